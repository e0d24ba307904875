"""The settings of the service: option, variable, default, meaning."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from pages.markdown import code, line, table
from senoscope.settings import ENV_PREFIX, Settings

_HEAD = """# Settings of the service

Each is an option of `senoscope serve` and a variable; an option wins over its variable. The other commands of
`senoscope` heed the variables too. What is misspelt, or does not go together, is refused at start.

Made from `senoscope.settings` by `python docs/make/reference.py`.

"""
# Defaults that depend on the machine.
_IN_WORDS = {
    "models_dir": "`models/` of the clone, else the user's data folder",
    "database_url": "`runlog.sqlite3` in the user's data folder",
}


def page() -> str:
    """The reference as Markdown."""
    rows = [(_names(name), *_told(name, field)) for name, field in Settings.model_fields.items()]
    return _HEAD + table(("option, variable", "default", ""), rows)


def _names(name: str) -> str:
    """Below each other, for side by side they leave the meaning no room."""
    return "<br>".join(map(code, (f"--{name.replace('_', '-')}", f"{ENV_PREFIX}{name.upper()}")))


def _told(name: str, field: FieldInfo) -> tuple[str, str]:
    text = line(field.description or "").partition(" Default: ")[0]
    if field.default_factory is not None:
        return _IN_WORDS[name], text
    if isinstance(field.default, bool):
        return "off", text
    return ("none" if field.default in (None, "") else code(field.default)), text
