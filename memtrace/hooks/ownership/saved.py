"""Saved tensors: what autograd keeps for the backward pass, found by walking the graph from the roots of a backward.

Never through `saved_tensors_hooks`: under them an in-place corruption that would raise runs silently with wrong
gradients. Nothing is unpacked either: `_raw_saved_*` gives the saved value without running a hook of the user's
(which would recompute a checkpoint) and without the version check. What such hooks hold instead is looked for where it
is known to be: in what they packed, and, for torch's own checkpointing, in the frame that its hook closes over, which
keeps the inputs of the checkpointed function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from memtrace.hooks.ownership.owners import device_name, dtype_name, plain_check, plain_tensors
from memtrace.hooks.parts.saved_rows import SavedRows
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
        self._is_plain = plain_check(torch)
        self._leaf = getattr(getattr(torch._C, "_functions", None), "AccumulateGrad", None)
        """The class of the nodes that end a graph: nothing follows one, and it keeps nothing for the backward pass."""
        self._attributes: dict[type, tuple[str, ...]] = {}
        self._frames: set[int] = set()

    def rows(
        self, roots: Iterable[Any], *, now_ns: int, step: int, microbatch: int, max_nodes: int | None = None
    ) -> SavedRows:
        """Return one row for each storage that the graph below these tensors keeps, or so many nodes of it.

        Parameters, where a graph ends, are none of the nodes that count.
        """
        rows = SavedRows(now_ns=now_ns, step=step, microbatch=microbatch)
        collector = _Collector(rows)
        self._frames.clear()
        is_plain = self._is_plain
        for node in islice(self._nodes(roots), max_nodes):
            names = self._names(node)
            if not names:
                continue
            op = type(node).__name__
            for saved in _values(node, names):
                data = _data(saved)
                if is_plain(data):
                    collector.add(data, op)
                else:
                    for tensor in self._plain(data):
                        collector.add(tensor, op)
                hook = getattr(saved, "unpack_hook", None)
                if hook is not None:
                    for tensor in self._checkpointed(hook):
                        collector.add(tensor, CHECKPOINT)
        return rows

    def _nodes(self, roots: Iterable[Any]) -> Iterator[Any]:
        """Yield every node of the graphs below these tensors once, but those that end them."""
        leaf = self._leaf
        pending = [root.grad_fn for root in roots if getattr(root, "grad_fn", None) is not None]
        seen = set(pending)
        while pending:
            node = pending.pop()
            yield node
            for following, _index in node.next_functions:
                # Of ten thousand parameters that one node stacks, each is passed over here.
                if type(following) is not leaf and following is not None and following not in seen:
                    seen.add(following)
                    pending.append(following)

    def leaves(self, roots: Iterable[Any]) -> Iterator[Any]:
        """Yield the tensors at which the graphs below these tensors end, each once."""
        met: set[int] = set()
        for node in self._nodes(roots):
            for following, _index in node.next_functions:
                leaf = following.variable if self._leaf is not None and type(following) is self._leaf else None
                if leaf is not None and id(leaf) not in met:
                    met.add(id(leaf))
                    yield leaf

    def _names(self, node: Any) -> tuple[str, ...]:
        """Return under which names a node has what it keeps: all nodes of a class have the same."""
        kind = type(node)
        names = self._attributes.get(kind)
        if names is None:
            names = self._attributes[kind] = tuple(name for name in dir(node) if name.startswith(_PREFIX))
        return names

    def _checkpointed(self, hook: Any) -> Iterator[Any]:
        for kept in self._kept_by(hook, _MAX_CLOSURES):
            yield from self._plain(_data(kept))

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
                saved = () if saver is None else _values(saver, self._names(saver))
                yield from getattr(frame, "saved_args", None) or saved

    def _plain(self, data: Any) -> Iterator[Any]:
        # With hooks of the user's, this is what they packed: a tensor, perhaps with something else beside it.
        for value in data if isinstance(data, (list, tuple)) else (data,):
            if isinstance(value, self._tensor):
                yield from plain_tensors(value)


class _Collector:
    """Adds storages to the rows of one walk. A storage has one, of the node that is met first."""

    def __init__(self, rows: SavedRows) -> None:
        self._rows = rows
        self._seen: set[int] = set()
        # A graph has few devices, types and shapes, and many tensors.
        self._devices = _Texts(device_name)
        self._dtypes = _Texts(dtype_name)
        self._shapes = _Texts(shape_text)

    def add(self, tensor: Any, op: str) -> None:
        """Add the storage of a tensor, unless it has none, or has a row."""
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address in self._seen or not address:
            return
        size = storage.nbytes()
        if not size:
            return
        self._seen.add(address)
        rows = self._rows
        rows.devices.append(self._devices[tensor.device])
        rows.addresses.append(address)
        rows.sizes.append(size)
        rows.ops.append(op)
        rows.dtypes.append(self._dtypes[tensor.dtype])
        rows.shapes.append(self._shapes[tensor.shape])


class _Texts(dict[Any, str]):
    """The text of each value, made once."""

    def __init__(self, text_of: Callable[[Any], str]) -> None:
        super().__init__()
        self._text_of = text_of

    def __missing__(self, value: Any) -> str:
        text = self[value] = self._text_of(value)
        return text


def _values(node: Any, names: Iterable[str]) -> Iterator[Any]:
    for name in names:
        try:
            value = getattr(node, name)
        except RuntimeError:
            # Freed by a backward before this one.
            continue
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _data(saved: Any) -> Any:
    try:
        return getattr(saved, "data", None)
    except RuntimeError:
        return None
