"""JSON Schemas of the files that people write, for their editors.

They are generated from the models that read the files, committed in ``schemas/``, and named in the files' first line
(``# yaml-language-server: $schema=``). A schema knows shapes and words; what only a program can check (a checksum, a
licence, whether a bakery exists) stays with ``feedstock lint``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from .bakery import Bakery, Grant
from .meta import Meta

MODELS: dict[str, type[BaseModel]] = {"bakery": Bakery, "grant": Grant, "meta": Meta}


class _Schema(GenerateJsonSchema):
    """Without a title for each key: editors would show `Github` above `github`."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def generate() -> dict[str, str]:
    """The text of every schema by its file's name."""
    return {f"{name}.schema.json": _text(model) for name, model in MODELS.items()}


def _text(model: type[BaseModel]) -> str:
    schema = {"$schema": GenerateJsonSchema.schema_dialect, **model.model_json_schema(schema_generator=_Schema)}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, text in generate().items():
        Path(sys.argv[1], name).write_text(text, encoding="utf-8")
