"""A run of blocks in a few lines: a step whose forward makes what each block keeps, and whose backward frees it."""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.forecast.fixing.survey import Call, Operator, Survey
from memtrace.store.trace import RankTrace
from tests.builders import START_US, rank_trace

KIB = 1024
PRODUCT = "aten.mm"
_START_NS = 1000 * START_US


def run_of_blocks(
    blocks: int,
    *,
    kept: int = 1000 * KIB,
    temporary: int = 100 * KIB,
    out: int = 10 * KIB,
    base: int = 500 * KIB,
    again: Sequence[str] = (),
    steps: int = 2,
    cost_s: float = 0.01,
    product: int = 0,
    saved: Sequence[str] = (),
) -> tuple[RankTrace, Survey]:
    """Return the trace and the survey of a program whose blocks keep so many bytes each, but for those in `again`.

    Each block makes a temporary, what it keeps, frees the temporary, and makes its output, which the next is given.
    With `product` its temporary is followed by what a product gives, which it keeps as well and which takes most of its
    time; that stays also where the block is computed again, if it is in `saved`.
    """
    made = _Made()
    made.alloc(base)
    marks: list[tuple[str, int, int, int]] = []
    calls: list[Call] = []
    operators: list[Operator] = []
    step_rows = []
    for step in range(1, steps + 1):
        begin = made.now
        outputs, held, products = [], [], []
        for at in range(blocks):
            start = made.now
            scratch = made.alloc(temporary)
            multiplied = made.alloc(product) if product else None
            if multiplied is not None:
                operators.append(
                    Operator(
                        name=PRODUCT, time_ns=made.now, cost_s=0.8 * cost_s, results=(multiplied,), can_be_kept=True
                    )
                )
            inside, output = made.alloc(kept), made.alloc(out)
            made.free(scratch)
            is_again, is_saved = f"blocks.{at}" in again, f"blocks.{at}:{PRODUCT}" in saved
            if is_again:
                made.free(inside)
            if is_again and not is_saved and multiplied is not None:
                made.free(multiplied)
                multiplied = None
            calls.append(
                Call(
                    name=f"blocks.{at}",
                    class_name="Block",
                    start_ns=start,
                    end_ns=made.now,
                    cost_s=cost_s,
                    inputs=tuple(outputs[-1:]),
                    outputs=(output,),
                )
            )
            made.wait()
            outputs.append(output)
            held.append(None if is_again else inside)
            products.append(multiplied)
        marks.append(("forward", step, begin, made.now))
        backward = made.now
        for at in reversed(range(blocks)):
            if held[at] is None:
                scratch = made.alloc(temporary)
                if product and products[at] is None:
                    products[at] = made.alloc(product)
                held[at] = made.alloc(kept)
                made.free(scratch)
            gradient = made.alloc(out)
            made.free(held[at])
            if product:
                made.free(products[at])
            made.free(outputs[at])
            made.free(gradient)
        marks.append(("backward", step, backward, made.now))
        marks.append(("optimizer", step, made.now, made.wait()))
        step_rows.append(
            {"step": step, "start_ns": begin, "end_ns": made.wait(), "recorded": True, "num_microbatches": 1}
        )
    rank = rank_trace(
        header={"source": "predicted", "devices": [{"name": "cuda:0"}], "sources": {"events": "fake_device"}},
        events=made.events,
        steps=step_rows,
        phases=[
            {"phase": phase, "step": step, "microbatch": 0, "start_ns": start, "end_ns": end}
            for phase, step, start, end in marks
        ],
    )
    seconds = 1.0 + cost_s * (len(again) - 0.8 * len(saved))
    ends = tuple((row["end_ns"], seconds * row["step"]) for row in step_rows)
    return rank, Survey(calls=tuple(calls), refused={}, step_ends=ends, operators=tuple(operators))


class _Made:
    """Events, one a microsecond, at addresses that are used once."""

    def __init__(self) -> None:
        self.now = _START_NS
        self.events: list[dict[str, object]] = []
        self._next = 1 << 40
        self._sizes: dict[int, int] = {}

    def alloc(self, size: int) -> int:
        address, self._next = self._next, self._next + (1 << 30)
        self._sizes[address] = size
        self._add("alloc", address)
        return address

    def free(self, address: int | None) -> None:
        assert address is not None
        self._add("free_completed", address)

    def wait(self) -> int:
        self.now += 1000
        return self.now

    def _add(self, action: str, address: int) -> None:
        self.events.append(
            {"action": action, "address": address, "size_bytes": self._sizes[address], "time_ns": self.wait()}
        )
