"""The reference of the three commands, generated from their parsers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from enum import EnumType
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from pages.markdown import code, codes, line, prose, table
from senoscope.cli import app as service
from senoscope.commands.command_line import LazyGroup
from senoscope_client.cli import command_parser
from senoscope_training.cli import app as training

_HEAD = """# Commands

`--help` prints the same in the terminal. The exit status is 0 for success, 1 for a failure, which one line
on standard error describes, and 2 for wrong usage.

Generated from the programs by `python docs/make/reference.py`.
"""
_HEADINGS = ("option", "takes", "default", "")
_TYPES = {int: "integer", float: "number", str: "text", Path: "path"}
_KINDS = {"Path": "path", "name_list": "", "": ""}


def page() -> str:
    """Return the reference as Markdown."""
    parts = [_HEAD]
    for name, app in (("senoscope", service), ("senoscope-train", training)):
        parts += _command(name, typer.main.get_command(app))
    parts += _client()
    return "".join(parts)


def _command(name: str, command: Any) -> list[str]:
    """Describe a Typer command and its subcommands."""
    inner = getattr(command, "commands", {})
    if isinstance(command, LazyGroup):
        inner = {below: command.load(below) for below in inner}
    level = "##" if " " not in name else "###"
    parts = [f"\n{level} {name}\n\n{prose(command.help)}\n"]
    if name == "senoscope serve":
        parts.append("\nIts options are the [settings of the service](settings.md).\n")
    elif not inner:
        rows = [_parameter(p) for p in command.params if p.name != "help"]
        parts += ["\n" + table(_HEADINGS, rows)] if rows else []
    for below, one in inner.items():
        parts += _command(f"{name} {below}", one)
    return parts


def _parameter(parameter: Any) -> tuple[str, str, str, str]:
    argument = parameter.param_type_name == "argument"
    text = line(getattr(parameter, "help", None) or "")
    stated = re.search(r"\s*\[default: ([^]]+)\]|;? [Dd]efault: ([^.;]+)\.?$", text)
    if stated:
        text = text.replace(stated[0], "").rstrip(".") + "."
        default = stated[1] or stated[2]
    elif parameter.required:
        default = "*required*"
    else:
        default = _default(parameter.default)
    variable = f" ({codes([parameter.envvar])})" if getattr(parameter, "envvar", None) else ""
    name = (parameter.metavar or parameter.name).upper() if argument else ", ".join(parameter.opts)
    many = ", several" if parameter.nargs == -1 or getattr(parameter, "multiple", False) else ""
    return code(name), _takes(parameter) + many, default, text + variable


def _takes(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return ""
    kind = parameter.type_descriptor.annotation
    kind = get_args(kind)[0] if get_origin(kind) is list else kind
    if get_origin(kind) is Literal:
        return codes(get_args(kind))
    if isinstance(kind, EnumType):
        return codes(choice.value for choice in kind)
    return _TYPES[kind]


def _default(value: Any) -> str:
    if value is None or value is False or value in ([], ()) or callable(value):
        return ""
    return code(getattr(value, "value", value))


def _client() -> Iterator[str]:
    parser = command_parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    yield f"\n## {parser.prog}\n\n{parser.description}\n"
    helps = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    for name, command in commands.choices.items():
        rows = [_action(a) for a in command._actions if not isinstance(a, argparse._HelpAction)]
        yield f"\n### {parser.prog} {name}\n\n{_sentence(helps[name])}\n\n{table(_HEADINGS, rows)}"


def _action(action: argparse.Action) -> tuple[str, str, str, str]:
    text = re.sub(r"[,;]? ?\(?default: %\(\w+\)s\)?", "", action.help or "")
    if action.choices:
        takes = codes(action.choices)
    elif action.nargs == 0:
        takes = ""
    else:
        kind = getattr(action.type, "__name__", "")
        takes = _KINDS.get(kind, kind) or str(action.metavar or "text").lower()
    many = ", several" if action.nargs in {"*", "+"} else ""
    default = "*required*" if action.required and action.nargs != "*" else _default(action.default)
    name = ", ".join(action.option_strings) or action.metavar or action.dest
    return code(name), takes + many, default, _sentence(text)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""
