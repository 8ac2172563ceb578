"""A test that needs more memory than its limit, in words: how much, what for, and where it was allocated."""

from __future__ import annotations

from memtrace.analysis.results.check import OwnPeak, OwnStack
from memtrace.report.answers.check import category
from memtrace.report.drawing.markup import visible
from memtrace.units import format_bytes

_NUM_STACKS = 3
_NUM_FRAMES = 3


def limit_text(name: str, device: str, peak: OwnPeak, limit_bytes: int) -> str:
    """Return why a test fails; `name` is that of the test."""
    over = peak.num_bytes - limit_bytes
    lines = [
        f"{name} peaks at {format_bytes(peak.num_bytes)} ({peak.num_bytes:,} bytes) {peak.measures} on {device}: "
        f"{format_bytes(over)} ({over:,} bytes) more than its limit of {format_bytes(limit_bytes)}",
        "",
        "At the peak:",
    ]
    lines += [_category_line(peak, one, num_bytes) for one, num_bytes in peak.by_category.items()]
    lines += ["", "Largest stacks at the peak:"]
    lines += [line for stack in peak.stacks[:_NUM_STACKS] for line in _stack_lines(stack)]
    if len(peak.stacks) > _NUM_STACKS:
        lines.append(f"  and {len(peak.stacks) - _NUM_STACKS} more")
    return "\n".join(str(visible(line)).rstrip() for line in lines)


def _category_line(peak: OwnPeak, name: str, num_bytes: int) -> str:
    inferred = num_bytes - peak.exact_by_category.get(name, 0)
    doubt = f"  ({format_bytes(inferred)} of it inferred)" if inferred and name != "unknown" else ""
    return f"  {format_bytes(num_bytes):>11}  {category(name)}{doubt}"


def _stack_lines(stack: OwnStack) -> list[str]:
    frames = stack.frames[:_NUM_FRAMES] or ("no stack recorded",)
    times = "" if stack.num_allocations == 1 else f"  ({stack.num_allocations:,} allocations)"
    return [
        f"  {format_bytes(stack.num_bytes):>11}  {frames[0]}{times}",
        *(f"  {'':>11}    {frame}" for frame in frames[1:]),
    ]
