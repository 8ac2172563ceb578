"""Values that are known although there is no data: what came from the host, and what follows from it.

Masks, lengths and indices that a program makes or sends to the GPU decide what it does next. So a small fake storage
may have its bytes on the host, and an operator whose inputs all have them is run there as well; a larger one is known
where all its elements are equal. Anything random, or made of what is not known, is not known; where that is written
into a storage, its bytes are forgotten. Only finite numbers are taken for granted, and marked as assumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch

from memtrace.hooks.fake.events.storages import FakeMemory
from memtrace.hooks.fake.tensors.deciding_flags import decided

_aten = torch.ops.aten
_MOST_BYTES = 1 << 20
"""Largest storage whose bytes are kept: ids and masks of a batch, and no activations."""

_MADE = {
    getattr(getattr(_aten, name), overload)
    for name in ("full", "zeros", "ones", "arange", "eye", "linspace", "scalar_tensor", "tril_indices", "triu_indices")
    for overload in getattr(_aten, name).overloads()
    if "out" not in overload
}
_FILLED = {
    _aten.zeros_like.default: 0,
    _aten.ones_like.default: 1,
    _aten.new_zeros.default: 0,
    _aten.new_ones.default: 1,
    _aten.zero_.default: 0,
    _aten.zero.default: 0,
}
_FILLED_WITH = {
    _aten.full_like.default: 1,
    _aten.new_full.default: 2,
    _aten.fill_.Scalar: 1,
    _aten.fill.Scalar: 1,
}
"""Operators that fill all of what they return, with the place of the number among their arguments."""
_NAMES_ALIKE = (
    "mul logical_and logical_or logical_not bitwise_and bitwise_or bitwise_not eq ne all any clone _to_copy amax amin "
    "max min lift_fresh"
)
_ALIKE = {
    getattr(getattr(_aten, name), overload)
    for name in _NAMES_ALIKE.split()
    for overload in getattr(_aten, name).overloads()
    if overload in ("default", "Tensor", "Scalar", "dim", "dims")
}
"""Operators that make equal elements of equal elements, whatever the shape."""
_TESTS = {_aten.isnan.default: False, _aten.isinf.default: False, _aten.isfinite.default: True}
"""Tests for numbers that are none, with their answer for numbers that are not known: those are taken to be finite."""
_WITHOUT_EFFECT = {_aten._amp_update_scale_.default, _aten._amp_foreach_non_finite_check_and_unscale_.default}
"""Operators of a gradient scaler that write nothing new where all gradients are finite."""
_SILENT_WRITES = {_aten.native_batch_norm.default, _aten.cudnn_batch_norm.default}
"""Operators that write into arguments without saying so in their schema."""


class KnownValues:
    """Follows values through the operators."""

    def __init__(self, memory: FakeMemory) -> None:
        self._memory = memory
        self._effects: dict[Any, tuple[tuple[tuple[int, str], ...], bool]] = {}
        """By operator: the arguments that it writes into, by place and name; whether it returns a view."""

    def of(self, tensor: Any) -> Any:
        """Return a fake tensor's values as a tensor of the host; None where they are not known."""
        storage = tensor.untyped_storage()
        kept = self._memory.values_of(storage)
        if kept is None:
            return None
        data, is_alike = kept
        made = torch.empty(0, dtype=tensor.dtype)
        try:
            if is_alike:
                return made.set_(data, 0, (), ()).expand(tensor.shape)
            return made.set_(data, tensor.storage_offset(), tensor.shape, tensor.stride())
        except RuntimeError:  # a view as a wider type
            return None

    def take(self, tensor: Any, make: Callable[[], Any]) -> None:
        """Keep the values of a fake tensor that was made of data of the host; `make` makes it there."""
        if 0 < tensor.untyped_storage().nbytes() <= _MOST_BYTES:
            with suppress(RuntimeError, TypeError, ValueError):
                values = make()
                if not values.is_meta:
                    self._keep(tensor, values.detach(), assumed=False)

    def is_assumed(self, tensor: Any) -> bool:
        """Return whether values hang on numbers that were taken to be finite."""
        return self._memory.is_assumed(tensor.untyped_storage())

    def answer(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return the result of an operator that reads values, computed on the host; None where they are not known."""
        found = self._on_host(args), self._on_host(kwargs)
        if found[0] is None or found[1] is None:
            return None
        try:
            return func(*found[0], **found[1])
        except (RuntimeError, NotImplementedError):
            return None

    def after(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Take note of what an operator made of what is known, and of what it wrote into."""
        if func in _WITHOUT_EFFECT:
            return
        if func in _SILENT_WRITES:
            self._forget(one for one in args if isinstance(one, torch.Tensor))
        if func in _FILLED or func in _FILLED_WITH:
            self._fill(out, _FILLED[func] if func in _FILLED else args[_FILLED_WITH[func]])
        elif func is _aten.copy_.default:
            self._copied(args[0], args[1])
        elif (answer := self._decided(func, args, out)) is not None:
            self._fill(out, answer)
        elif (answer := self._of_finite(func, args)) is not None:
            self._fill(out, answer, assumed=True)
        else:
            self._follow(func, args, kwargs, out)

    def _decided(self, func: Any, args: Any, out: Any) -> int | None:
        """Return what numbers that are known make of some that are not; None where they decide nothing."""
        if len(args) != 2 or not isinstance(out, torch.Tensor):
            return None
        operands = [self.of(one) if isinstance(one, torch.Tensor) and one.is_meta else None for one in args]
        return decided(func, operands, out.dtype) if any(one is not None for one in operands) else None

    def _follow(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        writes, is_view = self._effects_of(func)
        if is_view:
            return
        written = [
            each
            for at, name in writes
            for each in _tensors(args[at] if at < len(args) else kwargs.get(name))
            if each.is_meta
        ]
        made = [] if writes else [one for one in _tensors(out) if one.is_meta]
        values = self._computed(func, args, kwargs, made)
        if values is None:
            self._forget(written)
            return
        assumed = any(self.is_assumed(one) for one in _tensors((args, kwargs)) if one.is_meta)
        for one, value in zip(made, _tensors(values), strict=False):
            self._keep(one, value, assumed=assumed)

    def _effects_of(self, func: Any) -> tuple[tuple[tuple[int, str], ...], bool]:
        if func not in self._effects:
            schema = func._schema
            writes = tuple(
                (at, one.name)
                for at, one in enumerate(schema.arguments)
                if one.alias_info is not None and one.alias_info.is_write
            )
            is_view = any(one.alias_info is not None and not one.alias_info.is_write for one in schema.returns)
            self._effects[func] = writes, is_view
        return self._effects[func]

    def _computed(self, func: Any, args: Any, kwargs: Any, made: list[Any]) -> Any:
        """Return what the operator gives on the host; None where an input is not known or the result too large."""
        if torch.Tag.nondeterministic_seeded in func.tags or func.namespace != "aten":
            return None
        if torch._C._current_graph_task_id() != -1:
            # Gradients are finite here, which they need not be in the first steps of a gradient scaler.
            return None
        inputs = list(_tensors((args, kwargs)))
        if not inputs and func not in _MADE:
            return None
        sizes = [one.untyped_storage().nbytes() for one in (*made, *inputs)]
        if max(sizes, default=0) > _MOST_BYTES and not (func in _MADE or func in _ALIKE):
            return None
        host_args, host_kwargs = self._on_host(args), self._on_host(kwargs)
        if host_args is None or host_kwargs is None:
            return None
        if max(sizes, default=0) > _MOST_BYTES:
            return self._computed_alike(func, args, host_args, host_kwargs)
        try:
            return func(*host_args, **host_kwargs)
        except (RuntimeError, NotImplementedError, IndexError):
            return None

    def _computed_alike(self, func: Any, args: Any, host_args: Any, host_kwargs: Any) -> Any:
        """Return one element for all of a result whose inputs are each of equal elements."""
        if func in (_aten.full.default, _aten.zeros.default, _aten.ones.default):
            number = args[1] if func is _aten.full.default else int(func is _aten.ones.default)
            is_number = isinstance(number, (bool, int, float))
            return torch.tensor(number, dtype=host_kwargs.get("dtype")) if is_number else None
        if func not in _ALIKE:
            return None
        if any(not _is_alike(one) for one in _tensors(host_args)):
            return None
        single = [one.as_strided((), ()) if isinstance(one, torch.Tensor) else one for one in host_args]
        name = func.name().partition(".")[0].removeprefix("aten::")
        try:
            if name in ("all", "any", "amax", "amin", "max", "min"):
                return single[0].bool() if name in ("all", "any") else single[0]
            return func(*single, **{key: one for key, one in host_kwargs.items() if key != "memory_format"})
        except (RuntimeError, NotImplementedError):
            return None

    def _on_host(self, value: Any) -> Any:
        """Return arguments with values in the place of fake tensors; None where those of one are not known."""
        if isinstance(value, torch.Tensor):
            return self.of(value) if value.is_meta else value
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if isinstance(value, (list, tuple)):
            found = [self._on_host(one) for one in value]
            if any(new is None and old is not None for new, old in zip(found, value, strict=True)):
                return None
            return found
        if isinstance(value, dict):
            named = {key: self._on_host(one) for key, one in value.items() if key != "pin_memory"}
            return None if any(one is None and value[key] is not None for key, one in named.items()) else named
        return value

    def _copied(self, target: Any, source: Any) -> None:
        values = self.of(source) if source.is_meta else source
        if not target.is_meta:
            return
        whole = target.numel() * target.element_size() == target.untyped_storage().nbytes()
        if whole and values is not None and values.layout is torch.strided:
            assumed = source.is_meta and self.is_assumed(source)
            self._keep(target, values.expand(target.shape), assumed=assumed)
            return
        known = self.of(target)
        if known is not None and values is not None and not _is_alike(known):
            known.copy_(values)
        else:
            self._forget([target])

    def _fill(self, out: Any, number: Any, *, assumed: bool = False) -> None:
        if isinstance(number, (bool, int, float)) and out.is_meta and out.layout is torch.strided:
            whole = out.numel() * out.element_size() == out.untyped_storage().nbytes()
            known = None if whole else self.of(out)
            if whole:
                self._keep(out, torch.tensor(number, dtype=out.dtype).expand(out.shape), assumed=assumed)
            elif known is not None and not _is_alike(known):
                known.fill_(number)
            else:
                self._forget([out])

    def _keep(self, tensor: Any, values: Any, *, assumed: bool) -> None:
        """Keep the values of all of a storage."""
        storage = tensor.untyped_storage()
        if tensor.layout is not torch.strided or values.dtype is not tensor.dtype or not storage.nbytes():
            return
        if storage.nbytes() > _MOST_BYTES:
            if _is_alike(values):
                single = values if not values.dim() else values.as_strided((), ())
                self._memory.keep_values(storage, (single.clone().untyped_storage(), True), assumed)
            else:
                self._forget([tensor])
            return
        data = torch.UntypedStorage(storage.nbytes())
        held = torch.empty(0, dtype=tensor.dtype).set_(data, tensor.storage_offset(), tensor.shape, tensor.stride())
        held.copy_(values.expand(tensor.shape) if values.dim() == 0 else values)
        self._memory.keep_values(storage, (data, False), assumed)

    def _forget(self, tensors: Any) -> None:
        for one in tensors:
            if one.is_meta:
                self._memory.keep_values(one.untyped_storage(), None, False)

    def _of_finite(self, func: Any, args: Any) -> bool | None:
        """Return what a test for numbers that are not finite says of some that are not known; None if it is none."""
        if not (func in _TESTS or func in _COMPARISONS) or not args[0].is_meta or self.of(args[0]) is not None:
            return None
        if func in _TESTS:
            return _TESTS[func]
        other = args[1]
        if isinstance(other, torch.Tensor):
            # A number that is none differs from itself.
            return _COMPARISONS[func] if _is_same(args[0], other) else None
        return not _COMPARISONS[func] if isinstance(other, float) and not math.isfinite(other) else None


_COMPARISONS = {_aten.eq.Tensor: True, _aten.ne.Tensor: False, _aten.eq.Scalar: True, _aten.ne.Scalar: False}
"""Comparisons, with what they say of a number and itself."""


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if not other.is_meta or other.untyped_storage()._cdata != one.untyped_storage()._cdata:
        return False
    places = [(each.shape, each.stride(), each.storage_offset(), each.dtype) for each in (one, other)]
    return places[0] == places[1]


def _is_alike(values: Any) -> bool:
    return all(stride == 0 for stride in values.stride())


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
