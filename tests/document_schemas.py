"""The published JSON Schemas, and documents held against them."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import ROOT


def validate(kind: str, document: dict[str, Any], *, exactly: bool = False) -> None:
    """Hold a document against the published schema of its kind; `exactly`: it may have no key beside."""
    try:
        import jsonschema
    except ImportError:
        # It comes with the mcp extra; tests that are about more than the schema go on without.
        return
    schema = json.loads((ROOT / f"docs/schemas/{kind}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(strict(schema) if exactly else schema).validate(document)


def strict(schema: Any) -> Any:
    """Return a schema that allows no key that it does not name; a predicted peak has more than it is told once."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: value if key == "Peak" else strict(value) for key, value in schema.items()}
    return {**inner, "additionalProperties": False} if isinstance(schema.get("properties"), dict) else inner
