"""The reference of an ensemble's manifest, ``ensemble.json``, generated from its model."""

from __future__ import annotations

from pages.markdown import prose
from pages.schema import properties
from senoscope.engine.manifest import Manifest

_HEAD = """# The manifest, `ensemble.json`

The manifest describes the files of an ensemble and their expected outputs. `models/ensemble.schema.json` is
the same as JSON Schema. Unknown keys are rejected. Loading checks the SHA-256 of every file and runs the
test vectors.

Generated from `senoscope.engine.manifest` by `python docs/make/reference.py`.
"""


def page() -> str:
    """Return the reference as Markdown."""
    schema = Manifest.model_json_schema()
    models = {"Manifest": schema, **schema["$defs"]}
    parts = [
        f"\n## {name}\n\n{prose(model['description'])}\n\n{properties(model)}"
        for name, model in models.items()
        if "properties" in model
    ]
    return _HEAD + "".join(parts)
