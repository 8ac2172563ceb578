"""The code to write for a set of changes, for those who edit their program. In: `Changes`. Out: lines of Python."""

from __future__ import annotations

import re
from collections.abc import Sequence

from memtrace.schema.changes import ALLOCATOR_VARIABLE, Changes

_RECOMPUTE = """\
# once, after the model is made
from torch.utils.checkpoint import checkpoint

def recompute(module):
    forward = module.forward
    module.forward = lambda *args, **kwargs: checkpoint(forward, *args, use_reentrant=False, **kwargs)

names = {names}
for name, module in model.named_modules():
    if name in names:
        recompute(module)
"""
_OFFLOAD = """\
# once, after the model is made
def offload(module):
    forward = module.forward
    def run(*args, **kwargs):
        with torch.autograd.graph.save_on_cpu(pin_memory=True):
            return forward(*args, **kwargs)
    module.forward = run

names = {names}
for name, module in model.named_modules():
    if name in names:
        offload(module)
"""


def environment_of(changes: Changes) -> dict[str, str]:
    """Return the variables to set."""
    return {} if changes.allocator is None else {ALLOCATOR_VARIABLE: changes.allocator}


def code_of(changes: Changes) -> str:
    """Return what to write into the program; empty where the environment and the command are all."""
    parts = []
    if changes.optimizer is not None:
        setting = "fused=True" if changes.optimizer == "fused" else "foreach=False"
        parts.append(f"# where the optimizer is made\noptimizer = …(model.parameters(), …, {setting})\n")
    if changes.set_to_none:
        parts.append("# where gradients are cleared\noptimizer.zero_grad(set_to_none=True)\n")
    if changes.no_cache:
        parts.append("# once, after the model is made\nmodel.config.use_cache = False\n")
    if changes.autocast is not None:
        parts.append(
            f'# around the forward\nwith torch.autocast("cuda", dtype=torch.{changes.autocast}):\n    loss = model(…)\n'
        )
    if changes.recompute:
        parts.append(_RECOMPUTE.format(names=names_of(changes.recompute)))
    if changes.offload:
        parts.append(_OFFLOAD.format(names=names_of(changes.offload)))
    return "\n".join(parts)


def names_of(names: Sequence[str]) -> str:
    """Return a set of paths as Python, numbered ones as ranges.

    >>> names_of(["blocks.0", "blocks.1", "blocks.2", "head"])
    '{*(f"blocks.{i}" for i in range(0, 3)), "head"}'
    >>> names_of(["blocks.0.mlp", "blocks.2.mlp"])
    '{"blocks.0.mlp", "blocks.2.mlp"}'
    """
    groups: dict[tuple[str, str], list[int]] = {}
    plain: list[str] = []
    for name in names:
        # A number of the path with a dot on each side, or the end: the first of them counts the blocks.
        found = re.fullmatch(r"((?:[^.\d][^.]*\.)+)(\d+)((?:\..*)?)", name)
        if found is None:
            plain.append(f'"{name}"')
        else:
            groups.setdefault((found[1], found[3]), []).append(int(found[2]))
    parts: list[str] = []
    for (before, after), numbers in groups.items():
        parts += [_range(before, first, last, after) for first, last in _runs(sorted(numbers))]
    return "{" + ", ".join([*parts, *plain]) + "}"


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def _range(before: str, first: int, last: int, after: str) -> str:
    if last - first < 2:
        return ", ".join(f'"{before}{number}{after}"' for number in range(first, last + 1))
    return f'*(f"{before}{{i}}{after}" for i in range({first}, {last + 1}))'
