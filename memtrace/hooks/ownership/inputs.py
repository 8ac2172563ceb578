"""Inputs: what the program itself gives to a module, and not what another module computed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from memtrace.hooks.ownership.module_tree import parameters_in
from memtrace.hooks.ownership.owners import Owned, plain_tensors, tensors_in
from memtrace.schema.input_names import input_of
from memtrace.schema.names import Category

_MAX_COMPUTED = 512


class Inputs:
    """Finds the inputs of root modules; knows the outputs of earlier ones by their storages, and keeps none alive."""

    def __init__(self, torch: Any) -> None:
        self._tensor = torch.Tensor
        self._computed: dict[int, weakref.ref[Any]] = {}

    def computed(self, output: Any) -> None:
        """Note what a root module has returned."""
        if len(self._computed) > _MAX_COMPUTED:
            self._computed = {key: known for key, known in self._computed.items() if known() is not None}
        for _, tensor in tensors_in(output, "", self._tensor):
            for storage in _storages(tensor):
                self._computed[storage.data_ptr()] = weakref.ref(storage)

    def given(self, module: Any, values: Any) -> Iterator[Owned]:
        """Yield what of the arguments of a root module the program made; a loss has no batch of its own."""
        has_parameters = next(parameters_in(module), None) is not None
        for name, tensor in tensors_in(values, "input", self._tensor):
            if tensor.grad_fn is None and not any(map(self._is_computed, _storages(tensor))):
                given = name if has_parameters else input_of(type(module).__name__)
                yield Category.INPUT, given, tensor

    def _is_computed(self, storage: Any) -> bool:
        known = self._computed.get(storage.data_ptr())
        return known is not None and known() is storage


def _storages(tensor: Any) -> Iterator[Any]:
    return (part.untyped_storage() for part in plain_tensors(tensor))
