"""Build an image and check the claims of docs/how-to/deploy-with-docker.md, without access to Docker Hub.

Podman builds the Dockerfile and runs the image. Docker Hub's Python image is replaced by one that debootstrap
creates of the same Debian release, with Debian's Python. Needs root, podman with runc, debootstrap, curl, and
network access for apt and pip.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.11-slim-bookworm"
DEBIAN = "bookworm"
PACKAGES = "python3,python3-pip-whl,ca-certificates,netbase,tzdata"
UID = 10001
# Podman's defaults exceed what root may set if the host is a container too.
LIMITS = ("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")
KEYED = ("--env=SENOSCOPE_API_KEYS=/keys/keys.json",)
# Options of pip's configuration that select the source of packages.
PIP_SETTINGS = ("cert", "index-url", "proxy", "timeout", "default-timeout", "trusted-host")


class Proof:
    """One image, built and tested in a working folder.

    Parameters
    ----------
    work : Path
        Folder for the base system and the images; existing ones are reused.
    target : str
        Target of the Dockerfile.
    """

    def __init__(self, work: Path, target: str) -> None:
        self.work = work
        self.image = f"localhost/senoscope:{target}"
        self.target = target
        self.proved: list[str] = []

    def podman(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run podman with the storage of the working folder."""
        command = ["podman", "--root", str(self.work / "storage"), "--runroot", str(self.work / "run")]
        command += [
            "--storage-driver",
            "overlay",
            "--cgroup-manager",
            "cgroupfs",
            "--runtime",
            "runc",
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if check and done.returncode:
            sys.exit(
                f"{shlex.join(command)}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            )
        return done

    def check(self, claim: str, holds: bool, details: object = "") -> None:
        """Record a claim that holds, or exit."""
        if not holds:
            sys.exit(f"NOT proved: {claim}: {details}")
        self.proved.append(claim)
        print(f"proved: {claim}", flush=True)

    def build_base(self) -> None:
        """Build the base image, with the name that the Dockerfile uses."""
        if self.podman("image", "exists", BASE, check=False).returncode == 0:
            return
        system = self.work / "base"
        if not (system / "usr/bin/python3").exists():
            subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", DEBIAN, str(system)], check=True
            )
        # As in Docker Hub's image: pip from PyPI, which may install packages.
        for marker in system.glob("usr/lib/python3.*/EXTERNALLY-MANAGED"):
            marker.unlink()
        (wheel,) = system.glob("usr/share/python-wheels/pip-*.whl")
        for unneeded in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
            shutil.rmtree(system / unneeded, ignore_errors=True)
        tar = self.work / "base.tar"
        subprocess.run(["tar", "-C", str(system), "-cf", str(tar), "."], check=True)
        self.podman("import", str(tar), "localhost/debian")
        tar.unlink()
        install = f"PYTHONPATH=/{wheel.relative_to(system)} python3 -m pip install --no-cache-dir pip"
        containerfile = self.work / "Containerfile"
        containerfile.write_text(f"FROM localhost/debian\nRUN {install}\n")
        self.podman(
            "build", *self.build_options(), "-t", BASE, "-f", str(containerfile), str(self.work / "run")
        )

    def build_options(self) -> list[str]:
        """Return build options for the network and the package sources of the host; the image has neither."""
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        ).stdout
        config = configparser.ConfigParser(interpolation=None)
        config["global"] = {}
        mounted = [f"{self.work / 'pip.conf'}:/etc/pip.conf:ro"]
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            name = name.split(".", 1)[-1].lstrip(".")
            if name in PIP_SETTINGS:
                config["global"][name] = value.strip("'")
                if name == "cert":
                    mounted.append(f"{value.strip(chr(39))}:{value.strip(chr(39))}:ro")
        with (self.work / "pip.conf").open("w") as file:
            config.write(file)
        options = ["--network=host", "--format=docker", "--layers", "--pull-never", "--isolation=chroot"]
        return options + [f"--volume={volume}" for volume in mounted]

    def build(self) -> float:
        """Build the target of the Dockerfile, and return the seconds it took."""
        begun_s = time.monotonic()
        dockerfile = str(ROOT / "docker" / "Dockerfile")
        self.podman(
            *("build", *self.build_options(), "--target", self.target, "-t", self.image, "-f", dockerfile),
            str(ROOT),
        )
        return time.monotonic() - begun_s

    def layers(self) -> list[tuple[str, int]]:
        """Return the command of each layer and its size in bytes, beginning with the base."""
        history = json.loads(self.podman("history", "--no-trunc", "--format=json", self.image).stdout)
        return [(layer.get("CreatedBy", ""), layer["size"]) for layer in reversed(history)]

    @contextlib.contextmanager
    def container(self, *options: str) -> Iterator[str]:
        """Run a container as compose.yml does within the block."""
        name = f"senoscope-proof-{os.getpid()}"
        hardened = ("--read-only", "--tmpfs=/tmp:mode=1777", "--cap-drop=ALL")
        self.podman(
            *("run", "--detach", f"--name={name}", "--no-healthcheck", *hardened),
            *(f"--volume={self.work / 'models'}:/models:ro", "--volume=data:/data", "--volume=keys:/keys:ro"),
            *("--security-opt=no-new-privileges", *LIMITS, *KEYED, *options, self.image),
        )
        try:
            yield name
        finally:
            self.podman("rm", "--force", "--time=0", name, check=False)

    def prepare_volumes(self, model: Path) -> str:
        """Create the volumes with the ensemble and the keys; return a key (scopes read and classify)."""
        self.podman("volume", "rm", "--force", "data", "keys", check=False)
        models = self.work / "models"
        shutil.rmtree(models, ignore_errors=True)
        shutil.copytree(model, models / "proof")
        for path in (models, *models.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        new = ("senoscope", "keys", "new", "--name=proof", "--scope=classify", "--scope=read")
        made = self.podman(
            *("run", "--rm", "--network=none", "--read-only", "--volume=keys:/keys"),
            *("--no-healthcheck", *LIMITS, *KEYED, self.image, *new),
        )
        return made.stdout.strip()


def curl(*arguments: str) -> tuple[int, str]:
    """Send a request, and return status and body."""
    command = ["curl", "--silent", "--max-time", "60", "--write-out", "\n%{http_code}", *arguments]
    body, _, status = subprocess.run(command, capture_output=True, text=True, check=False).stdout.rpartition(
        "\n"
    )
    return int(status), body


def npy(path: Path) -> Path:
    """Write a field of view of constant pixels, uint16 [3, 250, 300], and return the path."""
    header = b"{'descr': '<u2', 'fortran_order': False, 'shape': (3, 250, 300), }"
    header += b" " * (117 - len(header)) + b"\n"
    pixels = struct.pack("<H", 900) * (3 * 250 * 300)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pixels)
    return path


def status_of(pid: int) -> dict[str, str]:
    """Return the status of a process as the kernel of the host reports it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def missing_libraries(proof: Proof, name: str) -> tuple[bool, str]:
    """Return whether all libraries of ONNX Runtime's provider except the driver are found, and the others."""
    site = "/opt/senoscope/lib/python3.11/site-packages"
    # ONNX Runtime loads the libraries of these folders before the provider.
    ldd = f"LD_LIBRARY_PATH=$(ls -d {site}/nvidia/*/lib | tr '\\n' ':') ldd {site}/onnxruntime/capi/*cuda.so"
    found = proof.podman("exec", name, "sh", "-c", ldd).stdout
    missing = {line.split()[0] for line in found.splitlines() if "not found" in line}
    return missing <= {"libcuda.so.1"} and "libcudart" in found, ", ".join(sorted(missing)) or found


def check_service(proof: Proof, key: str, port: int) -> None:
    """Start the service and check the claims of the page from outside."""
    url = f"http://127.0.0.1:{port}"
    bearer = ("--header", f"Authorization: Bearer {key}")
    image = json.loads(proof.podman("image", "inspect", proof.image).stdout)[0]
    healthcheck = image["Healthcheck"]["Test"]
    proof.check("the image names uid 10001 as its user", image["User"] == f"{UID}:{UID}", image["User"])
    # The GPU image is usually checked on a machine without a GPU: it runs on the CPU.
    settings = ("--env=SENOSCOPE_MODEL=proof", "--env=SENOSCOPE_DEVICE=cpu")
    with proof.container(*settings, f"--publish=127.0.0.1:{port}:8750") as name:
        begun_s = time.monotonic()
        pid = int(proof.podman("inspect", "--format={{.State.Pid}}", name).stdout)
        deadline_s = time.monotonic() + 300
        unready = proof.podman("exec", name, *healthcheck[1:], check=False)
        while curl(f"{url}/readyz")[0] != 200:
            state = proof.podman("inspect", "--format={{.State.Status}}", name).stdout.strip()
            if state != "running" or time.monotonic() > deadline_s:
                sys.exit(f"not ready, {state}: {proof.podman('logs', name, check=False)}")
            time.sleep(0.5)
        print(f"ready after {time.monotonic() - begun_s:.1f} s", flush=True)
        health = proof.podman("exec", name, *healthcheck[1:], check=False)
        proof.check("HEALTHCHECK fails before the service is ready", unready.returncode == 1, unready)
        proof.check("HEALTHCHECK's command succeeds once it is", health.returncode == 0, health)

        status = status_of(pid)
        proof.check("the process is not root", status["Uid"].split() == [str(UID)] * 4, status["Uid"])
        proof.check("the process has no capabilities", int(status["CapEff"], 16) == 0, status["CapEff"])
        written = proof.podman("exec", name, "touch", "/written", check=False)
        proof.check("the root file system is read-only", "Read-only" in written.stderr, written)
        if proof.target == "gpu":
            proof.check("of CUDA's libraries only the driver's are missing", *missing_libraries(proof, name))
        tools = "for tool in cc gcc make pip; do ls /opt/senoscope/bin/$tool /usr/bin/$tool; done 2>/dev/null"
        found = proof.podman("exec", name, "sh", "-c", tools, check=False).stdout
        proof.check("no compiler, and no pip in the environment", not found, found)

        data = f"@{npy(proof.work / 'fov.npy')}"
        refused = curl("--data-binary", data, f"{url}/v1/classify")
        proof.check("without a key: 401", refused[0] == 401, refused)
        page = curl(f"{url}/")
        proof.check("the dashboard is served", page[0] == 200 and "<title>Senoscope</title>" in page[1], page)
        answer = curl(*bearer, "--data-binary", data, f"{url}/v1/classify?cam=grid")
        results = json.loads(answer[1]) if answer[0] == 200 else {}
        shown = re.findall(r'"(?:label|probability)":[^,]+', answer[1])[:2]
        proof.check(
            f"a posted field of view is classified: {', '.join(shown)}", bool(results and shown), answer
        )
        log = proof.podman("exec", name, "stat", "--format=%u %s", "/data/runlog.sqlite3").stdout.split()
        proof.check("the run log is in a new volume, which is uid 10001's", log[0] == str(UID), log)

        proof.podman("kill", "--signal=TERM", name)
        code = proof.podman("wait", name).stdout.strip()
        proof.check("SIGTERM ends it with exit code 0", code == "0", code)


def report_of(proof: Proof, seconds: float) -> str:
    """Return layers and proved claims as Markdown."""
    layers = proof.layers()
    lines = [f"| layer of `{proof.target}` | MB |", "|---|---:|"]
    lines += [
        f"| `{' '.join(made.split())[:90].replace('|', chr(92) + '|')}` | {size / 1e6:.1f} |"
        for made, size in layers
        if size > 50_000
    ]
    lines.append(f"| **sum** (unpacked) | {sum(size for _, size in layers) / 1e6:.1f} |")
    proved = [f"- {what}" for what in proof.proved]
    return "\n".join([*lines, "", f"Built in {seconds:.0f} s.", "", *proved, ""])


def main() -> None:
    """Build the image, check it, and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", choices=("cpu", "gpu"), default="cpu", help="target of the Dockerfile")
    parser.add_argument(
        "--model", type=Path, default=ROOT / "models" / "starter", help="folder of an ensemble"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for images; 4 GB, not deleted")
    parser.add_argument("--port", type=int, default=18750, help="port on loopback (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    missing = [name for name in ("podman", "runc", "debootstrap", "curl") if shutil.which(name) is None]
    if missing or os.geteuid():
        needs = ["root"] * bool(os.geteuid()) + missing
        sys.exit(f"prove_image.py needs {', '.join(needs)}")
    if not (options.model / "ensemble.json").is_file():
        sys.exit(f"{options.model} is not an ensemble; `senoscope classify` builds the starter")
    work = options.work.resolve()
    for folder in ("run", "storage"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    proof = Proof(work, options.target)
    proof.build_base()
    seconds = proof.build()
    key = proof.prepare_volumes(options.model)
    check_service(proof, key, options.port)
    report = report_of(proof, seconds)
    print(report)
    if options.report:
        options.report.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
