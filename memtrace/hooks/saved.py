"""Saved tensors: what autograd keeps for the backward pass, found by walking the graph from the roots of a backward.

Never through `saved_tensors_hooks`: under them an in-place corruption that would raise runs silently with wrong
gradients. Nothing is unpacked either: `_raw_saved_*` gives the saved value without running a hook of the user's
(which would recompute a checkpoint) and without the version check.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from memtrace.hooks.chunk import Row
from memtrace.hooks.owners import device_name, dtype_name, plain_tensors

_PREFIX = "_raw_saved_"


class SavedWalk:
    """Walks autograd graphs and emits rows of the `saved` table, one a storage and node."""

    def __init__(self, torch: Any) -> None:
        """Prepare. Raises AttributeError where this torch cannot show a saved value without unpacking it."""
        saved_tensor = torch._C._autograd.SavedTensor
        _ = saved_tensor.data, saved_tensor.unpack_hook
        self._tensor = torch.Tensor
        self._attributes: dict[type, tuple[str, ...]] = {}

    def rows(self, roots: Iterable[Any], *, now_ns: int, step: int, microbatch: int) -> list[Row]:
        """Return one row for each storage that the graph below these tensors keeps."""
        rows: list[Row] = []
        seen: set[int] = set()
        for node in _nodes(root.grad_fn for root in roots if getattr(root, "grad_fn", None) is not None):
            for tensor in self._saved_by(node):
                storage = tensor.untyped_storage()
                address, size = storage.data_ptr(), storage.nbytes()
                if address and size and address not in seen:
                    seen.add(address)
                    rows.append(
                        (
                            now_ns,
                            step,
                            microbatch,
                            device_name(tensor.device),
                            address,
                            size,
                            type(node).__name__,
                            dtype_name(tensor.dtype),
                            "x".join(map(str, tensor.shape)),
                        )
                    )
        return rows

    def _saved_by(self, node: Any) -> Iterator[Any]:
        kind = type(node)
        names = self._attributes.get(kind)
        if names is None:
            names = self._attributes[kind] = tuple(name for name in dir(node) if name.startswith(_PREFIX))
        for name in names:
            try:
                value = getattr(node, name)
            except RuntimeError:
                # Freed by a backward before this one.
                continue
            for saved in value if isinstance(value, (list, tuple)) else (value,):
                yield from self._plain(saved)

    def _plain(self, saved: Any) -> Iterator[Any]:
        try:
            # With hooks of the user's, this is what they packed: a tensor, or something that holds no memory here.
            data = None if saved is None else saved.data
        except RuntimeError:
            return
        if isinstance(data, self._tensor):
            yield from plain_tensors(data)


def _nodes(roots: Iterable[Any]) -> Iterator[Any]:
    """Yield every node of the graphs below these nodes once."""
    pending = list(roots)
    seen = set(pending)
    while pending:
        node = pending.pop()
        yield node
        for following, _index in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                pending.append(following)
