"""What shape a document has, read off the function that makes it: its keys, and the types of the fields behind them.

In: a function such as `check_document`, whose parameters are results. Out: a JSON Schema. An expression of a kind that
is not known here is an error, so that no schema is ever looser than it says.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Schema = dict[str, Any]
_AS_THEY_ARE = ("plain", "asdict", "list", "tuple", "dict")
"""Functions that change no shape but from a result to an object, which is the same in JSON."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What is known of an expression: the type that it has, or the schema of what is made there."""

    hint: Any = None
    """A type of Python."""
    made: Schema | None = None
    """A schema; then there is no type."""
    meaning: str | None = None
    """The line of meaning of the field that it is."""


class Shapes:
    """Reads shapes of documents; `of` returns the schema of a type, `meanings` the lines under the fields of one."""

    def __init__(self, of: Callable[[Any], Schema], meanings: Callable[[type[Any]], Mapping[str, str]]) -> None:
        self._of = of
        self._meanings = meanings

    def document(self, function: Callable[..., Any]) -> Schema:
        """Return the schema of the object that a function returns, or writes as JSON."""
        hints = typing.get_type_hints(function)
        names = inspect.signature(function).parameters
        return self._result(function, {name: Value(hint=hints[name]) for name in names})

    def _result(self, function: Callable[..., Any], given: Mapping[str, Value]) -> Schema:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        assert isinstance(tree, ast.FunctionDef)
        return self._schema(_Body(self, function, dict(given)).run(tree.body))

    def _schema(self, value: Value) -> Schema:
        """Return the schema of a value, with what it means."""
        found = value.made if value.made is not None else self._of(value.hint)
        return found if value.meaning is None else {**found, "description": value.meaning}

    def call(self, function: Any, arguments: Sequence[Value]) -> Value:
        """Return what a function of memtrace returns: by its type, or by its body where that says only "an object"."""
        returned = typing.get_type_hints(function)["return"]
        if "Any" not in str(returned):
            return Value(hint=returned)
        names = list(inspect.signature(function).parameters)
        return Value(made=self._result(function, dict(zip(names, arguments, strict=False))))

    def field(self, base: Value, name: str) -> Value:
        """Return a field or property of a result."""
        if base.made is not None:
            return Value(made=_property(base.made, name))
        (kind,) = _without_none(base.hint)
        hints = typing.get_type_hints(kind)
        if name in hints:
            return Value(hint=hints[name], meaning=self._meanings(kind).get(name))
        found = inspect.getattr_static(kind, name)
        getter = found.fget if isinstance(found, property) else found
        return Value(hint=typing.get_type_hints(getter)["return"])

    def items(self, of: Value) -> Value:
        """Return what a sequence is of."""
        if of.made is not None:
            return Value(made=of.made["items"])
        return Value(hint=typing.get_args(of.hint)[0])

    def schema(self, value: Value) -> Schema:
        """Return the schema of a value."""
        return self._schema(value)


class _Body:
    """The statements of one function."""

    def __init__(self, shapes: Shapes, function: Callable[..., Any], names: dict[str, Value]) -> None:
        self._shapes = shapes
        self._globals = vars(sys.modules[function.__module__])
        self._names = names

    def run(self, statements: Sequence[ast.stmt], *, sometimes: bool = False) -> Value:
        """Return what is returned; the object that is written is taken for it."""
        for one in statements:
            if isinstance(one, ast.Return):
                assert one.value is not None
                return self._returned(one.value)
            if isinstance(one, ast.If):
                self.run(one.body, sometimes=True)
            elif isinstance(one, (ast.Assign, ast.AnnAssign)):
                (target,) = one.targets if isinstance(one, ast.Assign) else (one.target,)
                assert one.value is not None
                self._assign(target, self.value(one.value), sometimes=sometimes)
        return Value(hint=types.NoneType)

    def _returned(self, node: ast.expr) -> Value:
        is_written = isinstance(node, ast.Call) and ast.unparse(node.func) == "orjson.dumps"
        return self._names["document"] if is_written else self.value(node)

    def _assign(self, target: ast.expr, value: Value, *, sometimes: bool) -> None:
        if isinstance(target, ast.Name):
            self._names[target.id] = value
            return
        # document["key"] = …: a key that is there only sometimes.
        assert isinstance(target, ast.Subscript)
        assert isinstance(target.slice, ast.Constant)
        made = self.value(target.value).made
        assert made is not None
        made["properties"][target.slice.value] = self._shapes.schema(value)
        if not sometimes:
            made["required"].append(target.slice.value)

    def value(self, node: ast.expr) -> Value:
        """Return what is known of an expression."""
        known = getattr(self, f"_{type(node).__name__.lower()}", None)
        if known is None:
            raise NotImplementedError(f"no shape is known of {ast.unparse(node)}")
        found: Value = known(node)
        return found

    def _constant(self, node: ast.Constant) -> Value:
        return Value(hint=type(node.value))

    def _joinedstr(self, _node: ast.JoinedStr) -> Value:
        return Value(hint=str)

    def _compare(self, _node: ast.Compare) -> Value:
        return Value(hint=bool)

    def _unaryop(self, _node: ast.UnaryOp) -> Value:
        return Value(hint=bool)

    def _name(self, node: ast.Name) -> Value:
        if node.id in self._names:
            return self._names[node.id]
        return Value(made={"const": self._globals[node.id]})

    def _attribute(self, node: ast.Attribute) -> Value:
        return self._shapes.field(self.value(node.value), node.attr)

    def _subscript(self, node: ast.Subscript) -> Value:
        assert isinstance(node.slice, ast.Constant)
        whole = self.value(node.value)
        if isinstance(node.slice.value, int):
            return self._shapes.items(whole)
        assert whole.made is not None
        return Value(made=_property(whole.made, node.slice.value))

    def _ifexp(self, node: ast.IfExp) -> Value:
        schemas: list[Schema] = []
        for one in (node.body, node.orelse):
            schema = self._shapes.schema(self.value(one))
            if schema not in schemas:
                schemas.append(schema)
        return Value(made=schemas[0] if len(schemas) == 1 else {"anyOf": schemas})

    def _dict(self, node: ast.Dict) -> Value:
        properties: dict[str, Schema] = {}
        required: list[str] = []
        for key, item in zip(node.keys, node.values, strict=True):
            value = self._shapes.schema(self.value(item)) if key is not None else self._spread(item)
            if key is None:
                properties |= value["properties"]
                required += value["required"]
            else:
                assert isinstance(key, ast.Constant)
                properties[key.value] = value
                required.append(key.value)
        required = list(dict.fromkeys(required))
        return Value(made={"type": "object", "required": required, "properties": properties})

    def _spread(self, item: ast.expr) -> Schema:
        """Return the object whose keys stand among those of another."""
        value = self.value(item)
        if value.made is not None:
            return value.made
        (kind,) = _without_none(value.hint)
        names = [one.name for one in dataclasses.fields(kind)]
        properties = {name: self._shapes.schema(self._shapes.field(Value(hint=kind), name)) for name in names}
        return {"type": "object", "required": names, "properties": properties}

    def _list(self, node: ast.List | ast.Tuple) -> Value:
        if not node.elts:
            return Value(made={"type": "array"})
        first = node.elts[0]
        of = self._shapes.items(self.value(first.value)) if isinstance(first, ast.Starred) else self.value(first)
        return Value(made={"type": "array", "items": self._shapes.schema(of)})

    _tuple = _list

    def _listcomp(self, node: ast.ListComp) -> Value:
        (loop,) = node.generators
        item, target = self._shapes.items(self.value(loop.iter)), loop.target
        inner = dict(self._names)
        if isinstance(target, ast.Tuple):
            kinds = typing.get_args(item.hint)
            inner |= {
                one.id: Value(hint=kind)
                for one, kind in zip(target.elts, kinds, strict=True)
                if isinstance(one, ast.Name)
            }
        else:
            assert isinstance(target, ast.Name)
            inner[target.id] = item
        outer, self._names = self._names, inner
        made = self._shapes.schema(self.value(node.elt))
        self._names = outer
        return Value(made={"type": "array", "items": made})

    def _call(self, node: ast.Call) -> Value:
        if isinstance(node.func, ast.Attribute):
            return self.value(node.func)
        assert isinstance(node.func, ast.Name)
        name, arguments = node.func.id, [self.value(one) for one in node.args]
        if name in _AS_THEY_ARE:
            return arguments[0]
        function = self._globals[name]
        if name == "peak_document":
            (kind,) = _without_none(arguments[0].hint)
            return Value(hint=kind)
        return self._shapes.call(function, arguments)


def _property(made: Schema, name: str) -> Schema:
    """Return a key of an object, or of several that it may be."""
    if "anyOf" not in made:
        found: Schema = made["properties"][name]
        return found
    schemas: list[Schema] = []
    for one in made["anyOf"]:
        if one["properties"][name] not in schemas:
            schemas.append(one["properties"][name])
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _without_none(hint: Any) -> list[Any]:
    """Return the types that a value may have, but `None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [one for one in typing.get_args(hint) if one is not types.NoneType]
    return [hint]
