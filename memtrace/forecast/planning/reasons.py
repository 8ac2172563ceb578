"""Why a layout stands where it stands, in sentences.

In: one row of a plan, and all layouts it was compared with. Out: sentences, each from numbers of the plan.
"""

from __future__ import annotations

import numpy as np

from memtrace.forecast.gpus import Gpu
from memtrace.forecast.memory.layout import RECOMPUTE
from memtrace.forecast.planning.doubt import CLOSE, PUBLISHED, WORDS
from memtrace.forecast.planning.layouts import Grid, IntArray
from memtrace.forecast.results import PlanRow
from memtrace.units import format_bytes

AXES = ("dp", "tp", "pp", "virtual_stages", "cp", "ep", "zero")


def reasons(row: PlanRow, grid: Grid, needed: IntArray, at: int, gpu: Gpu, framework: str) -> tuple[str, ...]:
    """Return what limits a layout, and what becomes of its neighbours: a larger micro-batch, less recomputation."""
    found = [_time(row), *_unlike_published(row, framework)]
    if not row.fits:
        over = format_bytes(int(needed[at]) - gpu.memory_bytes)
        return (f"Does not fit: {over} more than the GPU has.", *found)
    if row.verdict == WORDS[CLOSE]:
        left = format_bytes(gpu.memory_bytes - int(needed[at]))
        found.append(f"Close: {left} are left, less than published runs were off.")
    for name, words in (
        ("micro_batch", "The largest micro-batch that fits"),
        ("recompute", "The least recomputation that fits"),
        ("zero", "The lowest ZeRO stage that fits"),
    ):
        sentence = _neighbour(row, grid, needed, at, gpu, name, words)
        if sentence:
            found.append(sentence)
    return tuple(found)


def _unlike_published(row: PlanRow, framework: str) -> list[str]:
    known = PUBLISHED[framework]
    axes = (("tp", row.tp, known.tp), ("pp", row.pp, known.pp), ("cp", row.cp, known.cp))
    beyond = [f"{name} {value} (to {most})" for name, value, most in axes if value > most]
    return [f"Beyond published runs: {', '.join(beyond)}."] if beyond else []


def _time(row: PlanRow) -> str:
    shares = {
        "computes": row.compute_ns,
        "waits for communication": row.communication_ns,
        "idles in the pipeline's bubble": row.bubble_ns,
    }
    told = [f"{verb} {100 * time / row.step_time_ns:.0f} %" for verb, time in shares.items() if time > 0]
    return f"Of the step it {', '.join(told)}."


def _neighbour(row: PlanRow, grid: Grid, needed: IntArray, at: int, gpu: Gpu, name: str, words: str) -> str | None:
    """Return what the next better value of one setting would need, where it does not fit."""
    same = np.ones(len(grid), bool)
    for other in (*AXES, "recompute", "micro_batch"):
        if other != name:
            same &= getattr(grid, other) == getattr(grid, other)[at]
    column = getattr(grid, name)
    better = column > column[at] if name == "micro_batch" else column < column[at]
    candidates = np.flatnonzero(same & better)
    if not len(candidates):
        return None
    nearest = candidates[np.argmin(np.abs(column[candidates] - column[at]))]
    if needed[nearest] <= gpu.memory_bytes:
        return None
    value = RECOMPUTE[int(column[nearest])] if name == "recompute" else str(int(column[nearest]))
    return f"{words}: {value} would need {format_bytes(int(needed[nearest]))}."
