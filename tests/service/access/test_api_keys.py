"""API keys: the command that creates them, the file that stores them, and their comparison."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from pathlib import Path

import pytest

from senoscope.access.api_keys import add_key, find_key, read_keys
from senoscope.access.key_ring import KeyRing
from support.commands import CompletedCommand, run_command

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")


def keys(*arguments: object) -> CompletedCommand:
    return run_command("senoscope", "keys", *arguments)


def test_a_key_is_printed_once_and_stored_as_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "etc" / "keys.json"
    done = keys("new", "--api-keys", file, "--name", "lab-pc", "--scope", "read", "--scope", "classify")
    key = done.stdout.strip()
    assert done.returncode == 0, done.stderr
    assert len(key) > 40
    assert key not in done.stderr
    kept = json.loads(file.read_text())["keys"]
    assert key not in file.read_text()
    assert [(k["name"], k["scopes"]) for k in kept] == [("lab-pc", ["read", "classify"])]
    assert kept[0]["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    again = keys("new", "--api-keys", file, "--name", "lab-pc", "--scope", "read")
    assert (again.returncode, again.stdout) == (1, "")
    assert "lab-pc" in again.stderr
    other = keys("new", "--api-keys", file, "--name", "other", "--scope", "admin").stdout.strip()
    assert other != key
    listed = keys("list", "--api-keys", file).stdout
    assert [line.split("\t")[:2] for line in listed.splitlines()] == [
        ["lab-pc", "read,classify"],
        ["other", "admin"],
    ]
    assert keys("revoke", "lab-pc", "--api-keys", file).returncode == 0
    assert [k.name for k in read_keys(file)] == ["other"]
    assert "no key named 'lab-pc'" in keys("revoke", "lab-pc", "--api-keys", file).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "a", "--scope", "write"], "use read, classify or admin"),
        (["--name", "a b", "--scope", "read"], "is not a valid key name"),
        (["--name", "../a", "--scope", "read"], "is not a valid key name"),
    ],
)
def test_invalid_keys_are_not_created(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = keys("new", "--api-keys", tmp_path / "keys.json", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@posix
def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    before = os.umask(0)
    try:
        add_key(file, "a", ("read",))
        add_key(file, "b", ("read",))
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]
    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        done = keys("list", "--api-keys", file)
        assert done.returncode == 1
        assert f"chmod 600 {file}" in done.stderr


@pytest.mark.parametrize("content", ["", "{}]", '{"keys": [{"name": "a"}]}', '{"version": 2, "keys": []}'])
def test_an_invalid_file_is_reported(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys.json"
    file.touch(0o600)
    file.write_text(content)
    with pytest.raises(OSError, match=r"keys\.json is not a valid file of API keys"):
        read_keys(file)


@pytest.mark.parametrize("wanted", [0, 2, 4, None])
def test_every_key_is_compared_even_after_a_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int | None
) -> None:
    file = tmp_path / "keys.json"
    texts = [add_key(file, f"k{n}", ("read",)) for n in range(5)]
    known = read_keys(file)
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b))
    found = find_key(known, "nonsense" if wanted is None else texts[wanted])
    assert found == (None if wanted is None else known[wanted])
    assert [a for a, _ in compared] == [key.sha256 for key in known], "each key once, in order"
    assert len({b for _, b in compared}) == 1
    assert {len(b) for _, b in compared} == {64}, "hashes are compared, never keys"


def test_a_key_ring_reloads_its_file_and_refuses_keys_while_it_is_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    first = add_key(file, "first", ("read",))
    ring = KeyRing(file, "m" * 32)
    assert ring.identify(first).name == "first"
    assert ring.identify("m" * 32).may("classify")
    second = add_key(file, "second", ("admin",))
    assert ring.identify(second).may("classify")
    assert not ring.identify(first).may("classify")
    keys("revoke", "first", "--api-keys", file)
    assert ring.identify(first) is None
    good = file.read_text()
    file.write_text("nonsense")
    assert ring.identify(second) is None
    assert ring.identify("m" * 32), "keys from the settings remain valid"
    file.write_text(good)
    assert ring.identify(second)
    file.unlink()
    assert ring.identify(second) is None
