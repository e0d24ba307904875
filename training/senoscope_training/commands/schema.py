"""The command ``senoscope-train schema``."""

from __future__ import annotations

from senoscope_training.commands.shared import ModelsDir


def schema(models_dir: ModelsDir = None) -> None:
    """Write the JSON Schema of ensemble.json into the folder of the ensembles."""
    from senoscope.engine.locations import default_models_dir
    from senoscope_training.schema import SCHEMA_NAME, manifest_schema

    path = (models_dir or default_models_dir()) / SCHEMA_NAME
    path.write_text(manifest_schema(), encoding="utf-8", newline="\n")
    print(path)
