"""What the first step changes between the allocator and the device: segments, memory outside torch, private pools.

In: `DeviceHistory`, the spans of its steps. Out: `FirstStepEffect`s; none on the CPU, which has neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.steps import StepSpan
from memtrace.analysis.events.moments import SEGMENT_SIGNS
from memtrace.analysis.results.report import FirstStepEffect
from memtrace.schema.names import DEFAULT_POOL
from memtrace.store.columns import NULL

_MAX_STEPS = 5
"""Most steps that an effect counts side by side: warm-up is over by then."""


def device_effects(history: DeviceHistory, spans: Mapping[int, StepSpan]) -> Iterator[FirstStepEffect]:
    """Yield what the first step changes on the device."""
    if history.is_cpu:
        return
    for found in (_warm_up(history, spans), _context_growth(history), _private_pools(history)):
        if found is not None:
            yield found


def _warm_up(history: DeviceHistory, spans: Mapping[int, StepSpan]) -> FirstStepEffect | None:
    """Return the segments that the allocator took in step 1, beside those of later steps."""
    moments, sizes = history.moments, history.rank.table("events")["size_bytes"]
    growth: dict[int, int] = {}
    mallocs: dict[int, int] = {}
    of_training = [span for span in spans.values() if 1 <= span.step <= _MAX_STEPS]
    for span in of_training:
        inside = (moments.of_event > span.first) & (moments.of_event <= span.last)
        growth[span.step] = mallocs[span.step] = 0
        for action, sign in SEGMENT_SIGNS.items():
            rows = moments.rows[inside & moments.is_action(history.rank, action)]
            growth[span.step] += sign * int(sizes[rows].sum())
            mallocs[span.step] += len(rows) if sign > 0 else 0
    if growth.get(1, 0) <= 0:
        return None
    is_over = len(growth) > 1 and max(growth[step] for step in growth if step > 1) < growth[1]
    return FirstStepEffect(
        slug="allocator-warm-up",
        title="The allocator takes segments from the device in step 1"
        + (", and few or none later" if is_over else "; that it is over by then is not seen"),
        num_bytes=growth[1],
        stays=True,
        evidence={
            "num_device_mallocs_by_step": {str(step): count for step, count in sorted(mallocs.items())},
            "reserved_growth_bytes_by_step": {str(step): size for step, size in sorted(growth.items())},
        },
    )


def _context_growth(history: DeviceHistory) -> FirstStepEffect | None:
    """Return by how much memory that is not torch's grew in step 1: kernels that are loaded, library handles."""
    steps = history.rank.table("steps")
    if not history.owns_marks:
        return None
    beside = {}
    for row in range(min(len(steps), _MAX_STEPS + 1)):
        used, reserved = int(steps["device_used_bytes"][row]), int(steps["reserved_bytes"][row])
        if used != NULL and reserved != NULL:
            beside[int(steps["step"][row])] = used - reserved
    if 0 not in beside or 1 not in beside or beside[1] <= beside[0]:
        return None
    later = [size for step, size in beside.items() if step > 1]
    return FirstStepEffect(
        slug="context-growth",
        title="Memory of the device that is not torch's grows in step 1: kernels are loaded, libraries make handles",
        num_bytes=beside[1] - beside[0],
        stays=min(later) >= beside[1] if later else None,
        evidence={"non_torch_bytes_by_step": {str(step): size for step, size in sorted(beside.items())}},
    )


def _private_pools(history: DeviceHistory) -> FirstStepEffect | None:
    """Return the segments of private pools: CUDA graphs and compiled regions keep theirs between replays."""
    segments, rank = history.rank.table("segments"), history.rank
    pools = segments["pool_id"]
    private = (pools != rank.string_id(DEFAULT_POOL)) & (pools != NULL)
    chosen = np.flatnonzero(private & (segments["device"] == rank.string_id(history.device)))
    if not len(chosen):
        return None
    names = sorted({rank.text(int(one)) or "" for one in pools[chosen]})
    return FirstStepEffect(
        slug="private-pools",
        title="Segments belong to private pools, as CUDA graphs and compiled regions have them",
        num_bytes=int(segments["total_bytes"][chosen].sum()),
        stays=True,
        evidence={"num_segments": len(chosen), "pools": names},
    )
