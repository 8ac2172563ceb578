"""JSON Schemas of the documents that `--json` prints, made from the result types: their fields, types and meanings.

`docs/generate.py` writes them to docs/schemas/. A document may gain keys within a version; a key that changes its
meaning or goes is a new version.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from memtrace.analysis.results.card import Card
from memtrace.analysis.results.report import Finding, Note, Peak, PredictedPeak, RankReport
from memtrace.analysis.results.trend import Trend, TrendRun
from memtrace.report.answers import trend as trend_answers
from memtrace.report.answers.bisect import bisect_json
from memtrace.report.answers.check import check_document
from memtrace.report.answers.diff import diff_document
from memtrace.report.answers.estimate import estimate_json
from memtrace.report.answers.evaluation import evaluation_json
from memtrace.report.answers.fit import fit_json
from memtrace.report.answers.fixing import fixed_json
from memtrace.report.answers.plan import plan_json
from memtrace.report.answers.predict import predict_json
from memtrace.report.answers.whatif import whatif_json
from memtrace.report.json import report as report_documents

sys.path.insert(0, str(Path(__file__).parent))
from document_shapes import Shapes

Schema = dict[str, Any]
_SIMPLE = {int: "integer", str: "string", bool: "boolean", float: "number", types.NoneType: "null"}
_OWN_DOCUMENTS = frozenset({"fragmentation", "time", "step_times", "communication", "evaluation"})
"""Fields of a rank that stand in a document of their own shape."""


def report_schema() -> str:
    """Return the schema of `memtrace report --json`."""
    schemas = _Schemas()
    ranks = schemas.record(RankReport, only=_keys_of_a_rank(), loose=_OWN_DOCUMENTS)
    return schemas.document(
        "memtrace report --json",
        report_documents.FORMAT,
        report_documents.VERSION,
        {
            "verdict": {"type": "string", "description": "What the report comes to, in a sentence or two."},
            "card": _or_null(schemas.of(Card)),
            "ranks": {"type": "array", "items": ranks},
            "findings": {"type": "array", "items": schemas.of(Finding)},
            "next_commands": {"type": "array", "items": {"type": "string"}},
            "warnings": {"type": "array", "items": schemas.of(Note)},
            "ranks_overview": {"type": ["object", "null"], "description": "The ranks beside each other."},
        },
    )


def trend_schema() -> str:
    """Return the schema of `memtrace trend --json`, and of `memtrace diff --json` of more than two traces."""
    schemas = _Schemas()
    # The document leaves out the curves that the page draws.
    schemas.define(TrendRun, without=("curve",))
    record = schemas.record(Trend)
    name, version = trend_answers.FORMAT, trend_answers.VERSION
    return schemas.document("memtrace trend --json", name, version, record["properties"])


ANSWERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "check": ("memtrace check --json", check_document),
    "diff": ("memtrace diff --json, of two traces", diff_document),
    "estimate": ("memtrace estimate --json", estimate_json),
    "plan": ("memtrace plan --json", plan_json),
    "plan-evaluation": ("memtrace plan --evaluate --json", evaluation_json),
    "predict": ("memtrace predict --json", predict_json),
    "fit": ("memtrace fit --json", fit_json),
    "fix": ("memtrace fix --json", fixed_json),
    "whatif": ("memtrace whatif --json", whatif_json),
    "bisect": ("memtrace bisect --json", bisect_json),
}
"""By the name of its schema: what prints a document, and the function that makes it."""


def answer_schema(name: str) -> str:
    """Return the schema of a document that an answer is, as its function makes it."""
    title, function = ANSWERS[name]
    schemas = _Schemas()
    shape = Shapes(schemas.of, _meanings).document(function)
    return schemas.whole(title, shape["required"], shape["properties"])


class _Schemas:
    """The definitions that a document refers to, each once."""

    def __init__(self) -> None:
        self._definitions: dict[str, Schema] = {}

    def document(self, title: str, name: str, version: int, properties: Mapping[str, Schema]) -> str:
        """Return a whole document as text."""
        own = {"format": {"const": name}, "version": {"const": version}, **properties}
        return self.whole(title, list(own), own)

    def whole(self, title: str, required: list[str], properties: Mapping[str, Schema]) -> str:
        """Return a document of certain keys as text."""
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": title,
            "type": "object",
            "required": required,
            "properties": properties,
            "$defs": dict(sorted(self._definitions.items())),
        }
        return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"

    def of(self, kind: Any) -> Schema:
        """Return the schema of a type."""
        if kind in _SIMPLE:
            return {"type": _SIMPLE[kind]}
        if kind is Peak:
            self.define(Peak, without=("event",))
            # A predicted peak has more, and what both have is told once.
            self.define(PredictedPeak, without=("event",))
            return {"$ref": "#/$defs/Peak"}
        if dataclasses.is_dataclass(kind):
            self.define(typing.cast("type[Any]", kind))
            return {"$ref": f"#/$defs/{kind.__name__}"}  # type: ignore[union-attr]
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self.of(one) for one in arguments]}
        if origin in (tuple, list, Sequence):
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is not None and issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        return {}

    def record(
        self,
        kind: type[Any],
        *,
        only: Iterable[str] | None = None,
        without: Iterable[str] = (),
        loose: Iterable[str] = (),
    ) -> Schema:
        """Return the schema of a result: its fields but for some, `loose` ones as objects of no certain shape."""
        hints = typing.get_type_hints(kind)
        names = [one.name for one in dataclasses.fields(kind) if one.name not in without]
        properties = {}
        for name in names if only is None else [one for one in names if one in only]:
            shape = {"type": ["object", "null"]} if name in loose else self.of(hints[name])
            meaning = _meanings(kind).get(name)
            properties[name] = {**shape, **({} if meaning is None else {"description": meaning})}
        description = (inspect.getdoc(kind) or "").partition("\n\n")[0]
        return {"type": "object", "description": description, "required": list(properties), "properties": properties}

    def define(self, kind: type[Any], *, without: Iterable[str] = ()) -> None:
        """Add the definition of a result, unless it is there."""
        if kind.__name__ not in self._definitions:
            self._definitions[kind.__name__] = {}  # types refer to themselves
            self._definitions[kind.__name__] = self.record(kind, without=without)


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


@cache
def _meanings(kind: type[Any]) -> dict[str, str]:
    """Return the line of meaning under each field of a result, and of what it inherits."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__[:-1]):
        (body,) = (node.body for node in ast.parse(inspect.getsource(one)).body if isinstance(node, ast.ClassDef))
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def _keys_of_a_rank() -> set[str]:
    """Return the keys of a rank in a report's document, as the code that makes it says."""
    (function,) = ast.parse(inspect.getsource(report_documents._rank)).body
    (made,) = (node for node in ast.walk(function) if isinstance(node, ast.Return))
    assert isinstance(made.value, ast.Dict)
    return {key.value for key in made.value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
