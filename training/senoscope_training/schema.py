"""The JSON Schema of ``ensemble.json``, as committed in ``models/ensemble.schema.json``."""

from __future__ import annotations

import json

from senoscope.engine.manifest import Manifest

SCHEMA_NAME = "ensemble.schema.json"


def manifest_schema() -> str:
    """Return the schema as text."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Manifest.model_json_schema(mode="serialization"),
    }
    return json.dumps(schema, indent=2) + "\n"
