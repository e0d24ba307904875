"""Every command that the documentation shows, executed as a reader would: page by page, from the top."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from senoscope_client.simulation.synthetic import synthesize
from support import miniature as mini
from support.docs_reader import Block, Failed, Step, Terminal, blocks, steps

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "models" / "README.md", *ROOT.glob("docs/**/*.md")])
TIMEOUT_S = 200.0
pytestmark = pytest.mark.timeout(400)

_INSTALLS = "installs packages; .ci/run does it, on a machine without any"
_DOCKER = "no container engine is here; tests/docker/prove_image.py executes it; names are checked below"
NOT_EXECUTED: dict[tuple[str, str], str] = {
    ("README.md", 'pip install -c constraints.txt -e ".[demo]" && senoscope demo'): _INSTALLS,
    ("README.md", 'pip install -c constraints.txt -e ".[test]" && pytest'): _INSTALLS,
    (
        "docs/tutorials/first-classification.md",
        "python3 -m venv --upgrade-deps .venv && . .venv/bin/activate",
    ): _INSTALLS,
    ("docs/tutorials/first-classification.md", 'pip install -c constraints.txt -e ".[demo]"'): _INSTALLS,
    ("docs/how-to/c-client.md", "apt-get install gcc make libzmq3-dev"): _INSTALLS,
    ("docs/how-to/bioimageio.md", 'pip install -c constraints.txt -e ".[bioimageio]"'): _INSTALLS,
    (
        "docs/how-to/bioimageio.md",
        "senoscope-train export runs/plates --bioimageio plates.zip",
    ): "needs a trained experiment; train-on-your-data.md exports one, tests/training packages one",
    (
        "docs/how-to/faster-precisions.md",
        "senoscope-train export runs/plates --variants fp16",
    ): "needs a trained experiment; tests/training/experiment exports one with this option",
    (
        "docs/how-to/measure-speed.md",
        "senoscope bench",
    ): "takes minutes; the quick form and one at a fixed rate are executed",
    (
        "models/README.md",
        "senoscope-train starter --weights imagenet --name imagenet-starter",
    ): "downloads weights; tests/training/starter/test_ensemble.py makes one without",
    (
        "models/README.md",
        "senoscope-train starter --recipe recipe/",
    ): "takes minutes; the fixture starter_made_anew does it",
    **{
        ("docs/how-to/back-up-and-upgrade.md", command): "changes the machine's services"
        for command in (
            "sudo install -m 644 docs/examples/senoscope.service /etc/systemd/system/",
            "sudo systemctl enable --now senoscope",
        )
    },
    (
        "docs/how-to/train-on-your-data.md",
        "senoscope-train import-zenodo --download --out paper",
    ): "downloads from Zenodo",
    (
        "docs/how-to/connect-a-microscope.md",
        "sudo ufw allow proto tcp from 192.168.1.20 to any port 5555",
    ): "changes the machine's firewall",
    **{
        ("docs/explanation/reliability.md", f"pytest {arguments}"): "takes hours"
        for arguments in (
            "tests/endurance --long --endurance-report report.jsonl",
            "tests/endurance/test_soak.py --long --endurance-report report.jsonl",
            "tests/endurance --long --endurance-model models/starter",
        )
    },
    **{
        ("docs/explanation/t-cells.md", f"senoscope-train run docs/examples/{name}.yaml --data FOLDER"): (
            "takes many minutes, with images that others published"
        )
        for name in ("tcell", "tcell-scratch", "tcell-imagenet")
    },
    **{
        ("docs/how-to/deploy-with-docker.md", command): _DOCKER
        for command in (
            "docker compose -f docker/compose.demo.yml build && docker compose -f docker/compose.demo.yml up",
            "docker compose -f docker/compose.demo.yml run --rm keys "
            "senoscope keys new --name me --scope admin",
            "docker build -f docker/Dockerfile --target cpu -t senoscope:cpu .",
            "docker build -f docker/Dockerfile --target gpu -t senoscope:gpu .",
            "docker build -f docker/Dockerfile --target trainer -t senoscope:trainer .",
            "docker compose -f docker/compose.yml build",
            'docker run --rm -v senoscope_models:/models -v "$PWD/models/plates:/from:ro" '
            "senoscope:cpu cp -r /from /models/plates",
            "SENOSCOPE_MODEL=plates SENOSCOPE_STREAM=tcp://192.168.1.10:5555 "
            "docker compose -f docker/compose.yml up -d",
            "docker compose -f docker/compose.yml run --rm keys "
            "senoscope keys new --name lab --scope read --scope classify",
            "docker compose -f docker/compose.yml run --rm keys cat /issued/grafana/password",
            "SENOSCOPE_TARGET=gpu docker compose -f docker/compose.yml -f docker/compose.gpu.yml up -d",
        )
    },
    (
        "docs/how-to/deploy-with-docker.md",
        "sudo .venv/bin/python tests/docker/prove_image.py --work /var/tmp/senoscope-proof --report proof.md",
    ): "builds images for many minutes, with programs that are not here",
}

# What does not end with 0, as the page says.
EXITS = {("docs/how-to/train-on-your-data.md", "senoscope-train check broken"): 1}

# What goes on until it is stopped, by the place that it takes: a later one comes instead of an earlier one.
GOES_ON = {
    "service": re.compile(r"senoscope (serve|demo)\b"),
    "microscope": re.compile(r"senoscope-client publish|senoscope_publish|FramePublisher\("),
    "viewer": re.compile(r"senoscope-client watch(?!.*--count)|LiveDecisions\("),
}
# Besides those that every page needs.
NEEDED_PROGRAMS = {"docs/how-to/c-client.md": ("libzmq",)}
READY = {
    "service": "curl http://127.0.0.1:8750/readyz",
    "microscope": "exec 9<>/dev/tcp/127.0.0.1/5555; exec 9>&-",
}
SERVE = "senoscope serve"
PUBLISH = "senoscope-client publish --synthetic --rate 5"
CLASSIFIED = "curl -F file=@stack.npy http://127.0.0.1:8750/v1/classify"
LOGGED = "until curl http://127.0.0.1:8750/v1/series | grep -q ended; do sleep 0.1; done"
# So that what takes a laboratory a night takes the tests a minute.
SMALL_TRAINING: dict[str, Any] = {
    "data": {"fit": "resize"},
    "input": {"height": 75, "width": 90},
    "networks": ["mobilenet"],
    "systems": ["fully_trained"],
    "runs": 1,
    "weights": "random",
    "seed": 5,  # others leave the head switched off, which `export` refuses
    "augmentation": {"copies": 0},
    "phase1": {"max_epochs": 4},
    "phase2": {"max_epochs": 1},
}


def stack(folder: Path) -> None:
    """``stack.tif`` and ``stack.npy``: four synthetic fields of view."""
    pixels = np.stack([synthesize(7, n).pixels for n in range(4)])
    tifffile.imwrite(folder / "stack.tif", pixels, photometric="minisblack", metadata={"axes": "PCYX"})
    np.save(folder / "stack.npy", pixels)


def labelled(folder: Path, fovs: int, height: int = 75, width: int = 90) -> None:
    """A labelled data set, small."""
    for n in range(fovs):
        label = "senescent" if n % 2 else "control"
        path = folder / f"plate_{n // 8 + 1}" / label / f"{n:04}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        fov = synthesize(11, n, senescent=bool(n % 2), height=height, width=width)
        tifffile.imwrite(path, fov.pixels, photometric="minisblack")
    (folder / "SYNTHETIC.txt").write_text("as senoscope-train synthesize marks its data sets")


@dataclass(frozen=True)
class Desk:
    """What a page takes for granted.

    Attributes
    ----------
    real : bool
        Whether ``starter`` is the real one; else the miniature ensemble has that name.
    ensembles : tuple of str
        The names of all that are there.
    files : callable
        Makes the files that the page presupposes, in its folder.
    before : tuple of str
        Commands that the page presupposes.
    clone : tuple of str
        What of the repository the page needs.
    """

    real: bool = False
    ensembles: tuple[str, ...] = ("starter",)
    files: Callable[[Path], None] = field(default=lambda folder: None)
    before: tuple[str, ...] = ()
    clone: tuple[str, ...] = ()


def _readme(folder: Path) -> None:
    stack(folder)
    labelled(folder / "plates", 24, height=250, width=300)


def _train(folder: Path) -> None:
    labelled(folder / "other_plates", 12)
    _broken(folder / "broken")
    (folder / "by_fov.yaml").write_text("name: plates\ndata: {path: plates}\nsplit: {by: fov}\n")


def _broken(folder: Path) -> None:
    """A data set as ``senoscope-train synthesize`` makes them, with the three faults that the page shows."""
    rows = ["file,label,group,split"]
    for n in range(8):
        plate, label = f"plate_{n // 2 + 1}", "senescent" if n % 2 else "control"
        path = folder / plate / f"train_{n:04}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, synthesize(5, n, height=75, width=90).pixels, photometric="minisblack")
        rows.append(f"{plate}/{path.name},{'contol' if n == 4 else label},{plate},train")
    (folder / "dataset.csv").write_text("\n".join(rows) + "\n")
    (folder / "plate_2" / "train_0002.tif").unlink()
    damaged = folder / "plate_1" / "train_0000.tif"
    damaged.write_bytes(damaged.read_bytes()[:1000])


def _two_labs(folder: Path) -> None:
    labelled(folder / "our_plates", 12, height=250, width=300)


def _acquired(folder: Path) -> None:
    np.concatenate([synthesize(3, n).pixels for n in range(24)]).astype("<u2").tofile(folder / "plate3.raw")


def _microscope(folder: Path) -> None:
    """A configuration of demo devices, whose camera and presets are as the page says."""
    import mm_test_adapters

    found = next(Path(mm_test_adapters.__file__).parent.rglob("MMConfig_demo.cfg"))
    presets = [
        f"ConfigGroup,Detector,{name},Camera,Gain,{n}\n"
        for n, name in enumerate(("SRS", "TPEF", "Transmission"))
    ]
    size = ["Property,Camera,OnCameraCCDXSize,300\n", "Property,Camera,OnCameraCCDYSize,250\n"]
    (folder / "microscope.cfg").write_text(found.read_text() + "".join([*size, *presets]))


DESKS = {
    "docs/how-to/c-client.md": Desk(files=_acquired, before=(SERVE,), clone=("clients/c",)),
    "docs/how-to/closed-loop.md": Desk(
        files=_microscope,
        before=(
            SERVE,
            "senoscope-client publish --synthetic --series 'plate 1' --rate 10 --frames 6",
            LOGGED,
        ),
    ),
    "docs/how-to/move-between-labs.md": Desk(files=_two_labs, ensembles=("plates",)),
    "docs/how-to/faster-precisions.md": Desk(files=_two_labs, ensembles=("plates",)),
    "docs/how-to/train-on-your-data.md": Desk(files=_train),
    "README.md": Desk(real=True, files=_readme),
    "docs/tutorials/first-classification.md": Desk(real=True),
    "docs/how-to/bioimageio.md": Desk(files=stack),
    "docs/how-to/calibrate.md": Desk(files=stack, before=(SERVE, PUBLISH)),
    "docs/how-to/inference-protocol.md": Desk(files=stack, before=(SERVE,)),
    "docs/how-to/python-client.md": Desk(
        files=stack,
        before=(
            SERVE,
            "senoscope-client publish --synthetic --series 'plate 1' --rate 10 --frames 6",
            LOGGED,
            PUBLISH,
        ),
    ),
    "docs/how-to/engine-as-a-library.md": Desk(files=stack),
    "docs/how-to/back-up-and-upgrade.md": Desk(
        files=stack, clone=("docs/examples", "docker"), before=(SERVE, CLASSIFIED)
    ),
    "docs/how-to/watch-a-folder.md": Desk(files=stack),
    "docs/how-to/measure-speed.md": Desk(before=(SERVE,)),
    "docs/how-to/operation.md": Desk(before=(SERVE,), ensembles=("starter", "plates")),
}


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniature ensembles under the names that pages use."""
    home = tmp_path_factory.mktemp("small-models")
    for name in ("starter", "plates"):
        mini.build(home / name, name=name)
    return home


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _uncommented(command: str) -> str:
    return re.sub(r"\s+#.*", "", command)


def _shown() -> set[tuple[str, str]]:
    return {(_name(page), _uncommented(step.command)) for page in PAGES for step in steps(page)}


def test_what_is_not_executed_is_still_shown() -> None:
    assert set(NOT_EXECUTED) - _shown() == set()


def test_docker_commands_name_what_is_there() -> None:
    commands = [command for (_, command), why in NOT_EXECUTED.items() if why == _DOCKER]
    stages = re.findall(r"(?m)^FROM .* AS (\S+)$", (ROOT / "docker" / "Dockerfile").read_text())
    for command in commands:
        files = re.findall(r"-f (\S+)", command)
        assert all((ROOT / file).is_file() for file in files), command
        assert set(re.findall(r"--target (\S+)", command)) <= set(stages), command
        services = {name for file in files if file.endswith(".yml") for name in _services(ROOT / file)}
        assert set(re.findall(r"run --rm (\w+) ", command)) <= services, command
        variables = re.findall(r"(SENOSCOPE_\w+)=", command)
        assert all(f"${{{name}" in (ROOT / files[0]).read_text() for name in variables), command
    assert len(commands) > 8


def _services(compose: Path) -> dict[str, Any]:
    return yaml.safe_load(compose.read_text(encoding="utf-8"))["services"]


WITH_COMMANDS = [page for page in PAGES if any(True for _ in steps(page))]


def _parameter(page: Path) -> Any:
    needed = ("bash", "curl", *NEEDED_PROGRAMS.get(_name(page), ()))
    return pytest.param(page, marks=[pytest.mark.system(name) for name in needed], id=_name(page))


@pytest.mark.full
@pytest.mark.networks
@pytest.mark.parametrize("page", [_parameter(page) for page in WITH_COMMANDS])
def test_what_a_page_shows_works(
    page: Path, small_models: Path, starter_ensemble: Path, tmp_path: Path
) -> None:
    try:
        print(_read(page, small_models, starter_ensemble, tmp_path))
    except Failed as error:
        pytest.fail(str(error), pytrace=False)


def _read(page: Path, small_models: Path, starter: Path, home: Path) -> str:
    """Do what a page shows; how long each step took."""
    todo = [step for step in steps(page) if (_name(page), _uncommented(step.command)) not in NOT_EXECUTED]
    if not todo:
        return "nothing to do"
    desk = DESKS.get(_name(page), Desk())
    folder = home / "desk"
    models = folder / "models"  # as in a clone
    models.mkdir(parents=True)
    (home / "home").mkdir()
    # So that what the service refuses fails here.
    (home / "home" / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
    for name in desk.ensembles:
        shutil.copytree(small_models / name, models / name)
    if desk.real:
        shutil.rmtree(models / "starter")
        (models / "starter").symlink_to(starter)
    for part in desk.clone:
        shutil.copytree(ROOT / part, folder / part)
    desk.files(folder)
    terminal = Terminal(folder, _environment(home, models))
    took = []
    try:
        for command in desk.before:
            _do(terminal, Step(0, "sh", command), folder)
        written = {block.line: block for block in blocks(page) if block.language in {"yaml", "toml"}}
        for step in todo:
            for line in [line for line in written if line < step.line]:
                _write(written.pop(line), folder)
            began_s = time.monotonic()
            try:
                _do(terminal, step, folder, EXITS.get((_name(page), step.command), 0))
            except Failed as error:
                raise Failed(f"{_name(page)}:{step.line}: {error}") from None
            first = step.command.splitlines()[0]
            took.append(f"{time.monotonic() - began_s:6.1f} s, line {step.line}: {first}")
        for kind in terminal.running():
            terminal.check(kind)
    finally:
        terminal.close()
    return "\n".join(took)


def _environment(home: Path, models: Path) -> dict[str, str]:
    theirs = {
        name: value for name, value in os.environ.items() if not name.startswith(("SENOSCOPE_", "XDG_"))
    }
    return theirs | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(home / "home"),
        "SENOSCOPE_MODELS_DIR": str(models),
        "COLUMNS": "100",
        "TERM": "dumb",
    }


def _write(block: Block, folder: Path) -> None:
    """A file that the page tells to write: its first line says which."""
    name = re.match(r"# (\S+)\n", block.text)
    if name is not None:
        (folder / name[1]).write_text(block.text, encoding="utf-8")


def _make_small(path: Path) -> None:
    """A configuration as its page has it, but for what would take hours."""
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in SMALL_TRAINING.items():
        told[key] = {**told.get(key, {}), **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(told), encoding="utf-8")


def _do(terminal: Terminal, step: Step, folder: Path, code: int = 0) -> None:
    command = step.command
    if step.language == "python":
        program = folder / f"program_{step.line}.py"
        program.write_text(command, encoding="utf-8")
        command = f"python {program.name}"
    training = re.search(r"senoscope-train run (\S+)", command)
    if training:
        _make_small(folder / training[1])
        # Training takes the whole processor, so a reader ends them first: what was begun last, first.
        for kind in reversed([*terminal.running()]):
            terminal.stop(kind)
    kinds = [kind for kind, pattern in GOES_ON.items() if pattern.search(_uncommented(step.command))]
    for kind in kinds:
        terminal.stop(kind)
    ends = step.language == "python" and "viewer" not in kinds
    if kinds and not ends:
        terminal.start(kinds[0], command)
        if kinds[0] in READY:
            terminal.wait_for(kinds[0], READY[kinds[0]])
        return
    output = terminal.run(command, TIMEOUT_S, code)
    _compare(step.shown, output.replace(str(folder), "/home/me"))


def _compare(shown: tuple[str, ...], output: str) -> None:
    """Each line that is shown has to come, in that order, wherever lines are broken; ``...`` is anything."""
    came, place = " ".join(output.split()), 0
    for line in shown:
        wanted = " ".join(line.split())
        if wanted == "...":
            continue
        place = came.find(wanted, place)
        if place < 0:
            raise Failed(f"the page shows {line!r}, which did not come here or not in that order:\n{output}")
        place += len(wanted)
