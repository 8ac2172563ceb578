"""What the program itself calls a tensor: `w`, `params['w']`, `layers[2].weight`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from time import thread_time_ns
from types import FrameType
from typing import Any

from memtrace.hooks.keepers.edges import Edges, attributes_of, is_own_dict
from memtrace.hooks.keepers.program_frames import ProgramModules, is_program_file, program_frames
from memtrace.hooks.keepers.reach import Chain, Reach, Root
from memtrace.hooks.keepers.roots import roots

_SEARCH_NS = 10 * 10**6
_MAX_CHARS = 80


def variable_names(
    torch: Any, tensors: Iterable[Any], innermost: FrameType | None, modules: ProgramModules
) -> dict[int, str]:
    """Return how the program writes some tensors, by identity; those that no short way leads to are left out."""
    wanted = set(map(id, tensors))
    frames = list(program_frames(innermost))
    # The program's own calls by themselves: libraries that called it may hold very much.
    own = [frame for frame in frames if is_program_file(frame.f_code.co_filename)]
    try:
        names = _found(torch, wanted, roots(own, ()))
        return names if len(names) == len(wanted) else _found(torch, wanted, roots(frames, modules.names())) | names
    finally:
        frames.clear()
        own.clear()


def _found(torch: Any, wanted: set[int], begins: Iterator[Root]) -> dict[int, str]:
    # Where a search begins takes longer to find than the search, when many modules were imported since.
    all_roots = list(begins)
    reach = Reach(Edges(torch.nn.Module), torch.Tensor, until_ns=thread_time_ns() + _SEARCH_NS)
    reach.run(all_roots)
    names: dict[int, str] = {}
    for chain in reach.chains(lambda tensor: id(tensor) in wanted):
        written = _written(chain)
        if written is not None:
            names.setdefault(id(chain.objects[-1]), written)
    return names


def _written(chain: Chain) -> str | None:
    written, holder = chain.variable, None
    for parent, child in pairwise(chain.objects):
        if type(child) is dict and is_own_dict(parent, child):
            holder = child
            continue
        part = _part(parent, child, is_own=parent is holder)
        if part is None:
            return None
        written += part
    return written if len(written) <= _MAX_CHARS else None


def _part(parent: Any, child: Any, *, is_own: bool) -> str | None:
    """Return what is written behind a thing for another that it holds."""
    kind = type(parent)
    if issubclass(kind, (list, tuple)):
        at = next((at for at, one in enumerate(list(parent)) if one is child), None)
        return None if at is None else f"[{at}]"
    table = parent if issubclass(kind, dict) else attributes_of(parent)
    key = next((key for key, one in dict.items(table) if one is child), None)
    if type(key) is int and issubclass(kind, dict):
        return f"[{key}]"
    if type(key) is not str or not key.isprintable():
        return None
    return f"[{key!r}]" if issubclass(kind, dict) and not is_own else f".{key}"
