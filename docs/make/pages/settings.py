"""The reference of the service's settings, generated from their model."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from pages.markdown import code, line, table
from senoscope.settings import ENV_PREFIX, Settings

_HEAD = """# Settings of the service

Each setting is an option of `senoscope serve` and an environment variable. An option takes precedence over
its variable. The other commands of `senoscope` read the variables too. Misspelt settings, and settings that
contradict each other, are rejected at start.

Generated from `senoscope.settings` by `python docs/make/reference.py`.

"""
# Defaults that depend on the machine.
_IN_WORDS = {
    "models_dir": "`models/` of the clone, else the user's data folder",
    "database_url": "`runlog.sqlite3` in the user's data folder",
    "deadline_ms": "`24` on a GPU that computes one FOV in less, otherwise none",
}


def page() -> str:
    """Return the reference as Markdown."""
    rows = [(_names(name), *_meaning(name, field)) for name, field in Settings.model_fields.items()]
    return _HEAD + table(("option, variable", "default", ""), rows)


def _names(name: str) -> str:
    """Return option and variable on two lines, so that the meaning has room."""
    return "<br>".join(map(code, (f"--{name.replace('_', '-')}", f"{ENV_PREFIX}{name.upper()}")))


def _meaning(name: str, field: FieldInfo) -> tuple[str, str]:
    text = line(field.description or "").partition(" Default: ")[0]
    if name in _IN_WORDS:
        return _IN_WORDS[name], text
    if isinstance(field.default, bool):
        return "off", text
    return ("none" if field.default in (None, "") else code(field.default)), text
