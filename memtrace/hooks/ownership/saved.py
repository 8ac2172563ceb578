"""Saved tensors: what autograd keeps for the backward pass, found by walking the graph from the roots of a backward.

Never through `saved_tensors_hooks`: under them an in-place corruption that would raise runs silently with wrong
gradients. Nothing is unpacked either: `_raw_saved_*` gives the saved value without running a hook of the user's
(which would recompute a checkpoint) and without the version check. What such hooks hold instead is looked for where it
is known to be: in what they packed, and, for torch's own checkpointing, in the frame that its hook closes over, which
keeps the inputs of the checkpointed function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from memtrace.hooks.ownership.owners import device_name, dtype_name, plain_tensors
from memtrace.hooks.parts.chunk import Row
from memtrace.schema.shapes import shape_text

_PREFIX = "_raw_saved_"
CHECKPOINT = "checkpoint"
"""What stands for the class of a node where checkpointing keeps a storage: no node does."""
_MAX_CLOSURES = 2


class SavedWalk:
    """Walks autograd graphs and emits rows of the `saved` table, one a storage and node."""

    def __init__(self, torch: Any) -> None:
        """Prepare. Raises AttributeError where this torch cannot show a saved value without unpacking it."""
        saved_tensor = torch._C._autograd.SavedTensor
        _ = saved_tensor.data, saved_tensor.unpack_hook
        self._tensor = torch.Tensor
        self._attributes: dict[type, tuple[str, ...]] = {}
        self._frames: set[int] = set()

    def rows(
        self, roots: Iterable[Any], *, now_ns: int, step: int, microbatch: int, max_nodes: int | None = None
    ) -> list[Row]:
        """Return one row for each storage that the graph below these tensors keeps, or so many nodes of it."""
        rows: list[Row] = []
        seen: set[int] = set()
        self._frames.clear()
        nodes = _nodes(root.grad_fn for root in roots if getattr(root, "grad_fn", None) is not None)
        for node in islice(nodes, max_nodes):
            for op, tensor in self._saved_by(node):
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
                            op,
                            dtype_name(tensor.dtype),
                            shape_text(tensor.shape),
                        )
                    )
        return rows

    def _saved_by(self, node: Any) -> Iterator[tuple[str, Any]]:
        """Yield the tensors that a node keeps, each with what to call the keeper."""
        kind = type(node)
        for saved in self._values(node):
            for tensor in self._plain(saved):
                yield kind.__name__, tensor
            hook = getattr(saved, "unpack_hook", None)
            for kept in () if hook is None else self._kept_by(hook, _MAX_CLOSURES):
                for tensor in self._plain(kept):
                    yield CHECKPOINT, tensor

    def _values(self, node: Any) -> Iterator[Any]:
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
            yield from value if isinstance(value, (list, tuple)) else (value,)

    def _kept_by(self, hook: Any, depth: int) -> Iterator[Any]:
        """Yield what a checkpoint keeps, once a walk: its frame is what the hook, or one inside it, closes over."""
        for cell in getattr(hook, "__closure__", None) or ():
            try:
                frame = cell.cell_contents
            except ValueError:
                # Not filled yet, or no longer.
                continue
            if depth > 1 and hasattr(frame, "__closure__"):
                yield from self._kept_by(frame, depth - 1)
            elif type(frame).__name__ == "_CheckpointFrame" and id(frame) not in self._frames:
                self._frames.add(id(frame))
                # In older versions of torch, a node outside the graph keeps them.
                saver = getattr(getattr(frame, "input_saver", None), "grad_fn", None)
                yield from getattr(frame, "saved_args", None) or (() if saver is None else self._values(saver))

    def _plain(self, saved: Any) -> Iterator[Any]:
        try:
            # With hooks of the user's, this is what they packed: a tensor, perhaps with something else beside it.
            data = getattr(saved, "data", None)
        except RuntimeError:
            return
        for value in data if isinstance(data, (list, tuple)) else (data,):
            if isinstance(value, self._tensor):
                yield from plain_tensors(value)


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
