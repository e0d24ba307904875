"""Behaviour shared by the three command lines: lazy imports, exit statuses, restored process state."""

from __future__ import annotations

import json
import pkgutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

import senoscope.commands
from senoscope.cli import app
from senoscope.commands.command_line import LazyGroup, Subcommand, exiting_on_sigterm, run_command_line
from support.commands import CompletedCommand, command_line, run_command, run_process

HEAVY = (
    *("alembic", "cv2", "fastapi", "httpx", "numpy", "onnxruntime", "sqlalchemy"),
    *("starlette", "tensorflow", "tifffile", "uvicorn", "websockets", "zmq"),
)
# Calls `main` for each command line and prints the heavy modules imported so far.
REPORT_IMPORTS = """
import contextlib, importlib, io, json, sys
module, heavy, commands = json.loads(sys.argv[1])
main = importlib.import_module(module).main
reports = []
for arguments in commands:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main(arguments)
    reports.append([code, [name for name in heavy if name in sys.modules]])
print(json.dumps(reports))
"""


def imports_of(module: str, commands: list[list[str]]) -> list[list]:
    """Return the exit status of each command and the heavy modules imported up to its end."""
    command = [sys.executable, "-c", REPORT_IMPORTS, json.dumps([module, HEAVY, commands])]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def test_all_heavy_modules_are_installed() -> None:
    """Otherwise the tests below could not detect their import."""
    missing = [name for name in HEAVY if name != "tensorflow" and find_spec(name) is None]
    assert missing == []


def test_help_and_mistakes_import_nothing_heavy(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\nname = "a"\naction = "stop"\n[rules.when]\nprobability = { above = 0.8 }\n')
    keys = tmp_path / "keys.json"
    new_key = ("keys", "new", "--api-keys", keys, "--name", "a", "--scope", "read")
    assert run_command("senoscope", *new_key).returncode == 0
    expected = {
        ("--help",): 0,
        ("--version",): 0,
        ("no-such",): 2,
        ("keys", "--help"): 0,
        ("keys", "list", "--api-keys", str(keys)): 0,
        ("keys", "list", "--api-keys", str(tmp_path / "none.json")): 1,
        ("serve", "--help"): 0,
        ("serve", "--port", "x"): 2,
        ("serve", "--port", "99999"): 2,
        ("classify", "x.npy", "--model", "none", "--models-dir", str(tmp_path)): 1,
        ("serve", "--port", "0", "--host", "0.0.0.0"): 1,
        ("classify", "--help"): 0,
        ("classify", "x.npy", "--json", "--csv"): 2,
        ("doctor", "--device", "tpu"): 2,
        ("demo", "--seed", "-1"): 2,
        ("demo", "--device", "bogus"): 2,
        ("rules", "check", str(rules)): 0,
        ("rules", "check", str(tmp_path / "none.toml")): 1,
    }
    found = imports_of("senoscope.cli", [list(arguments) for arguments in expected])
    assert dict(zip(expected, found, strict=True)) == {
        arguments: [code, []] for arguments, code in expected.items()
    }


def test_a_missing_ensemble_is_reported_before_the_engine_is_imported(tmp_path: Path) -> None:
    arguments = ["serve", "--port", "0", "--model", "none", "--models-dir", str(tmp_path)]
    ((code, found),) = imports_of("senoscope.cli", [arguments])
    assert code == 1
    assert not set(found) & {"cv2", "fastapi", "numpy", "onnxruntime", "sqlalchemy"}


def test_client_imports_nothing_heavy_for_help_and_mistakes() -> None:
    commands = [
        ["--help"],
        ["--version"],
        ["publish", "--help"],
        ["publish", "--rate", "0"],
        ["watch", "--no"],
    ]
    found = imports_of("senoscope_client.cli", commands)
    assert found == [[code, []] for code in (0, 0, 0, 2, 2)]


def test_training_imports_nothing_heavy_for_help_and_mistakes() -> None:
    commands = [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["run", "--jobs", "x"],
        ["starter", "--seed", "-1"],
    ]
    found = imports_of("senoscope_training.cli", commands)
    assert found == [[code, []] for code in (0, 0, 0, 2, 2)]


def test_the_list_of_subcommands_shows_the_help_of_each() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, LazyGroup)
    assert list(group.commands) == ["demo", "serve", "classify", "doctor", "bench", "keys", "rules"]
    for name, listed in group.commands.items():
        found = group.load(name)
        assert found.name == name
        assert listed.help == (found.help or "").strip().splitlines()[0], name


def test_every_subcommand_is_in_the_list() -> None:
    modules = {module.name for module in pkgutil.iter_modules(senoscope.commands.__path__)}
    sources = [subcommand.source for subcommand in _subcommands().values()]
    helpers = {"command_line", "demo_view", "options", "process", "serving"}
    assert {source.partition(":")[0].rpartition(".")[2] for source in sources} == modules - helpers
    help_page = run_command("senoscope", "--help").stdout
    for name, subcommand in _subcommands().items():
        assert name in help_page
        assert subcommand.help in help_page


def _subcommands() -> dict[str, Subcommand]:
    group = typer.main.get_command(app)
    assert isinstance(group, LazyGroup)
    return dict(group.subcommands)


def test_a_similar_name_is_suggested_for_a_misspelt_subcommand() -> None:
    done = run_command("senoscope", "clasify")
    assert done.returncode == 2
    assert "No such command 'clasify'. Did you mean 'classify'?" in done.stderr


example = typer.Typer()


@example.command()
def ends(how: str) -> None:
    """End in the given way."""
    if how == "interrupted":
        raise KeyboardInterrupt
    if how == "aborted":
        raise typer.Abort
    if how == "failed":
        raise typer.Exit(3)
    if how == "message":
        sys.exit("the reason")
    if how == "status":
        sys.exit(4)
    if how == "usage":
        raise typer.BadParameter("the reason")
    if how == "error":
        raise ValueError("the reason")
    print("done")


@pytest.mark.parametrize(
    ("how", "code", "out", "err"),
    [
        ("well", 0, "done", ""),
        ("interrupted", 130, "", ""),
        ("aborted", 1, "", "Aborted"),
        ("failed", 3, "", ""),
        ("message", 1, "", "the reason"),
        ("status", 4, "", ""),
        ("usage", 2, "", "the reason"),
    ],
)
def test_a_command_returns_the_exit_status_of_its_process(
    how: str, code: int, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = sys.excepthook
    assert run_command_line(example, "example", [how]) == code
    printed = capsys.readouterr()
    assert out in printed.out
    assert err in printed.err
    assert bool(printed.out) == bool(out)
    assert bool(printed.err) == bool(err)
    assert sys.excepthook is hook


def test_a_programming_error_is_raised() -> None:
    with pytest.raises(ValueError, match="the reason"):
        run_command_line(example, "example", ["error"])


def test_usage_lines_name_the_program() -> None:
    assert "Usage: senoscope serve" in run_command("senoscope", "serve", "--port", "x").stderr
    assert "Usage: senoscope-train run" in run_command("senoscope-train", "run").stderr
    assert "usage: senoscope-client" in run_command("senoscope-client").stderr
    assert "Usage: senoscope serve" in run_process("senoscope", "serve", "--port", "x").stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_command_cleans_up_on_sigterm_and_restores_the_handler() -> None:
    def handler(*_: object) -> None:
        raise AssertionError("SIGTERM reached the handler of the process")

    cleaned_up = []

    @exiting_on_sigterm()
    def command() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned_up.append(True)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(SystemExit) as end:
            command()
        assert end.value.code == 143
        assert cleaned_up == [True]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_commands_restore_signal_handlers(tmp_path: Path) -> None:
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(kind) for kind in kinds]
    assert run_command("senoscope", "demo", "--model", "none-such", "--port", "0").returncode == 1
    assert run_command("senoscope", "serve", "--model", "none-such", "--port", "0").returncode == 1
    assert run_command("senoscope-train", "run", tmp_path / "none.yaml").returncode == 1
    assert [signal.getsignal(kind) for kind in kinds] == before


@pytest.mark.parametrize("program", ["senoscope", "senoscope-train", "senoscope-client"])
def test_a_called_command_behaves_as_its_process(program: str) -> None:
    for arguments in (["--version"], ["--help"], ["no-such-command"]):
        assert run_command(program, *arguments) == run_process(program, *arguments), arguments


@pytest.mark.parametrize("start", [["-m", "senoscope"], ["-m", "senoscope_training"]])
def test_a_package_runs_as_its_command(start: list[str]) -> None:
    done = subprocess.run([sys.executable, *start, "no-such"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No such command" in done.stderr


@pytest.mark.parametrize("program", ["senoscope", "senoscope-train", "senoscope-client"])
def test_an_installed_script_exits_with_the_status_of_the_command(program: str) -> None:
    found = [Path(sys.executable).with_name(name) for name in (program, f"{program}.exe")]
    script = next((path for path in found if path.exists()), None)
    if script is None:
        pytest.skip("not installed with this interpreter")
    done = subprocess.run([script, "no-such-command"], capture_output=True, text=True, check=False)
    assert CompletedCommand(done.returncode, done.stdout, "") == CompletedCommand(2, "", "")
    assert "no-such-command" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_closed_output_pipe_prints_no_traceback() -> None:
    """As with ``| head``."""
    for program in ("senoscope", "senoscope-train"):
        process = subprocess.Popen(
            command_line(program, "--help"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) in {0, 1}
        process.stderr.close()
