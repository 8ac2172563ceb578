"""Gradients of parameters that are in no optimizer: a base that was meant to be frozen and still requires gradients.

In: `Case`, and the header, which says of which parameters that was seen. Out: a `Finding`. They are made in each
backward, no optimizer uses them, and as `optimizer.zero_grad()` knows its own alone, each stays and is added to.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.analysis.advice.gradients import gradients_of
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category, Phase
from memtrace.units import format_bytes


def unstepped_gradients(case: Case) -> Finding | None:
    """Return the gradients that no optimizer steps, and the peak without them."""
    names = set(case.history.rank.header.get("unstepped_parameters") or ())
    rows = gradients_of(case, names)
    if not len(rows):
        return None
    # Where one is there already, backward makes the new part beside it and adds it.
    parts = case.in_phase(Phase.BACKWARD) & case.is_category(Category.TEMPORARY)
    parts &= np.isin(case.lifetimes.size_bytes, case.lifetimes.size_bytes[rows])
    cuts = [case.cut(rows), case.cut(np.flatnonzero(parts))]
    new_peak = case.new_peak(*cuts)
    if new_peak is None:
        return None
    held = case.at_peak(cuts[0])
    first, whole = sorted(names)[0], _common_module(names)
    return Finding(
        slug="unstepped-gradients",
        severity="warning",
        title=f"No optimizer steps {len(names)} parameters with gradients ({first}, …): {format_bytes(held)} at peak",
        evidence={"gradients_at_peak_bytes": held, "num_parameters": len(names), "parameters": whole},
        change=f"Freeze what is not to learn before the first forward: {whole}.requires_grad_(False). Then their "
        "gradients are not made, and what only they need is not kept for backward. Or give them to an optimizer.",
        cost="None: nothing reads these gradients. The backward gets shorter.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, rows),
    )


def _common_module(names: set[str]) -> str:
    """Return the module that most of some parameters are in, as a program would write it.

    >>> _common_module({"base.0.weight", "base.0.bias", "base.1.weight"}), _common_module({"weight"})
    ('model.base', 'model')
    """
    outermost = Counter(name.partition(".")[0] for name in names if "." in name)
    return f"model.{outermost.most_common(1)[0][0]}" if outermost else "model"
