"""Gradients of parameters that are in no optimizer: a base that was meant to be frozen and still requires gradients.

In: `Case`, and the header, which says of which parameters that was seen. Out: a `Finding`. They are made in each
backward, no optimizer uses them, and as `optimizer.zero_grad()` knows its own alone, each stays and is added to.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.analysis.advice.gradients import gradients_of
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category, Phase
from memtrace.units import format_bytes

_MOST_MODULES = 3
"""Modules that a change names; of more it says that all are meant."""


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
    first, modules = sorted(names)[0], _modules(names)
    calls = [f"{one}.requires_grad_(False)" for one in modules] or ["requires_grad_(False) of each of them"]
    return Finding(
        slug="unstepped-gradients",
        severity="warning",
        title=f"No optimizer steps {len(names)} parameters with gradients ({first}, …): {format_bytes(held)} at peak",
        evidence={
            "gradients_at_peak_bytes": held,
            "num_parameters": len(names),
            "parameters": ", ".join(modules) or "of many modules",
        },
        change=f"Freeze what is not to learn before the first forward: {', '.join(calls)}. Then their "
        "gradients are not made, and what only they need is not kept for backward. Or give them to an optimizer.",
        cost="None: nothing reads these gradients. The backward gets shorter.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, rows),
    )


def _modules(names: set[str]) -> list[str]:
    """Return the modules that some parameters are in, as a program would write them; none where they are many.

    >>> _modules({"base.0.weight", "base.0.bias", "base.1.weight"}), _modules({"weight"})
    (['model.base'], ['model'])
    >>> _modules({f"{at}.weight" for at in range(9)})
    []
    """
    outermost = sorted({name.partition(".")[0] if "." in name else "" for name in names})
    return [f"model.{one}" if one else "model" for one in outermost] if len(outermost) <= _MOST_MODULES else []
