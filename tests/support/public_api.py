"""Everything that users of Senoscope can depend on, as one document: names, paths, settings, formats.

::

    PYTHONPATH=tests python -m support.public_api  # writes tests/public_api.json, after a change on purpose
"""

from __future__ import annotations

import argparse
import enum
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from starlette.routing import WebSocketRoute

import senoscope

SNAPSHOT = Path(__file__).parents[1] / "public_api.json"
# Packages whose `__all__` is public, and the names that the documentation imports from modules.
_PACKAGES = ("senoscope", "senoscope.engine", "senoscope_client")
_DOCUMENTED = {
    "senoscope_client.closed_loop": ("ClosedLoop",),
    "senoscope_client.micromanager": ("MdaFrames",),
    "senoscope_client.synthetic": ("synthesize",),
}


def public_api() -> dict[str, Any]:
    """The document, as JSON has it."""
    api = {
        "python": _python(),
        "commands": _commands(),
        "settings": _settings(),
        "http": _http(),
        "headers": _headers(),
        "metrics": _metrics(),
        "tables": _tables(),
        "manifest": _manifest(),
        "experiment": _experiment(),
    }
    return json.loads(json.dumps(api))


def _python() -> dict[str, Any]:
    names = [(package, name) for package in _PACKAGES for name in import_module(package).__all__]
    names += [(module, name) for module, some in _DOCUMENTED.items() for name in some]
    found = {f"{module}.{name}": getattr(import_module(module), name) for module, name in names}
    return {name: _object(value) for name, value in sorted(found.items()) if name != "senoscope.__version__"}


def _object(value: Any) -> Any:
    if not inspect.isclass(value):
        return _signature(value)
    fields: Mapping[str, Any] = getattr(value, "model_fields", {})
    members = {
        name: _member(member)
        for name, member in inspect.getmembers(value)
        if not name.startswith("_") and not hasattr(BaseModel, name) and name not in fields
    }
    made = {} if issubclass(value, (BaseModel, enum.Enum)) else {"()": _signature(value)}
    return {**made, **members, **dict.fromkeys(fields, "field")}


def _member(member: Any) -> str:
    return _signature(member) if callable(member) else "attribute"


def _signature(function: Any) -> str:
    """Names, kinds and defaults of parameters; annotations name modules, which may move."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return "(...)"
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return re.sub(r" at 0x[0-9a-f]+", "", text)  # of a function that is a default


def _commands() -> dict[str, Any]:
    from senoscope.cli import app as service
    from senoscope_client.cli import command_parser
    from senoscope_training.cli import app as training

    commands: dict[str, Any] = {}
    for name, app in (("senoscope", service), ("senoscope-train", training)):
        commands.update(_typer(name, typer.main.get_command(app)))
    parser = command_parser()
    (below,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in below.choices.items():
        commands[f"{parser.prog} {name}"] = {
            "/".join(action.option_strings) or action.dest: str(action.default) for action in command._actions
        }
    return commands


def _typer(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", {})
    load = getattr(command, "load", inner.get)
    if not inner:
        yield (
            name,
            {
                "/".join([*one.opts, *one.secondary_opts]): "" if callable(one.default) else str(one.default)
                for one in command.params
            },
        )
    for below in inner:
        yield from _typer(f"{name} {below}", load(below))


def _settings() -> dict[str, str]:
    from senoscope.settings import Settings

    return {
        name: "computed" if field.default_factory else str(field.default)
        for name, field in Settings.model_fields.items()
    }


def _app() -> Any:
    from senoscope.api.app import create_app
    from senoscope.service import Service
    from senoscope.settings import Settings

    service = Service(Settings(database_url="none", stream="", results="", otlp_endpoint=""))
    return service, create_app(service)


def _http() -> dict[str, Any]:
    _, app = _app()
    schema = app.openapi()
    return {
        "paths": {
            f"{method.upper()} {path}": _operation(operation)
            for path, methods in sorted(schema["paths"].items())
            for method, operation in methods.items()
        },
        "websockets": sorted(route.path for route in _websockets(app.routes)),
        "documents": {
            name: _without_texts(model) for name, model in sorted(schema["components"]["schemas"].items())
        },
    }


def _operation(operation: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "parameters": {
            f"{one['in']} {one['name']}": _without_texts(one["schema"])
            for one in operation.get("parameters", [])
        },
        "body": sorted(operation.get("requestBody", {}).get("content", {})),
        "answers": {
            status: sorted(answer.get("content", {})) for status, answer in operation["responses"].items()
        },
    }


def _websockets(routes: Any) -> Iterator[WebSocketRoute]:
    for route in routes:
        if isinstance(route, WebSocketRoute):
            yield route
        router = getattr(route, "original_router", None)  # what FastAPI keeps of one that was included
        yield from _websockets(router.routes if router else ())


def _without_texts(schema: Any) -> Any:
    """A JSON Schema without what is there for readers alone."""
    if isinstance(schema, list):
        return [_without_texts(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without_texts(one) for name, one in value.items()}
        if key == "properties"
        else _without_texts(value)
        for key, value in schema.items()
        if key not in {"description", "title", "examples"}
    }


def _headers() -> dict[str, Any]:
    from senoscope_client.wire.headers import EndHeader, HeartbeatHeader, ImageHeader, StartHeader

    return {
        header.__name__: _without_texts(header.model_json_schema())
        for header in (StartHeader, ImageHeader, HeartbeatHeader, EndHeader)
    }


def _metrics() -> dict[str, Any]:
    from senoscope.metrics import catalogue

    return {metric.name: [metric.kind, *metric.labels] for metric in catalogue.ALL}


def _tables() -> dict[str, Any]:
    from senoscope.runlog.tables import metadata
    from senoscope_client.tables import result_columns

    return {
        "results": {column.name: column.kind for column in result_columns(["network"])},
        "run log": {
            table.name: {column.name: str(column.type) for column in table.columns}
            for table in metadata.sorted_tables
        },
    }


def _manifest() -> Any:
    from senoscope.engine import Manifest

    return _without_texts(Manifest.model_json_schema())


def _experiment() -> Any:
    from senoscope_training.config import Config

    return _without_texts(Config.model_json_schema())


def as_text(api: Mapping[str, Any]) -> str:
    """The document with a line for each value, so that a change shows as few lines."""
    return json.dumps(api, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    if not Path(senoscope.__file__).is_relative_to(SNAPSHOT.parents[1]):
        raise SystemExit(f"{senoscope.__file__} belongs to another checkout; install this one")
    sys.stdout.write(f"{SNAPSHOT}\n")
    SNAPSHOT.write_text(as_text(public_api()), encoding="utf-8", newline="\n")
