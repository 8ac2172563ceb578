"""Sets of tensors as large as all parameters: what the program writes to is called no copy, and no input."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from memtrace.analysis.advice.case import Case
from memtrace.analysis.advice.frozen import frozen_in_float
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.faults.second_copies import second_copies
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import event_rows, owner, phase, rank_trace, saved, step, window

WEIGHTS = [4000, 3000, 2000, 1000]
END = 1000


def run(
    *,
    made: str = "early",
    writes: int | None = None,
    looked_at: Sequence[int] = WEIGHTS,
    is_saved: bool = False,
    sizes: list[int] | None = None,
    differences: Sequence[int] = (),
) -> RankTrace:
    """Return a run of two steps beside whose weights a set of tensors is, made early or between its steps.

    `differences` are sizes of what the forward of the second step makes for backward. `writes` is what two looks at the
    set showed, as far as it is of sizes that were `looked_at` twice; `None` where none was.
    """
    sizes = WEIGHTS if sizes is None else sizes
    events = [("alloc", 1 + at, size) for at, size in enumerate(WEIGHTS)]
    events += [("alloc", 11 + at, size) for at, size in enumerate(sizes)]
    events += [("alloc", 21 + at, size) for at, size in enumerate(differences)]
    rows = event_rows(events)
    for at in range(len(differences)):
        rows[len(WEIGHTS) + len(sizes) + at]["time_ns"] = 310 + at
    if made == "between":
        for at, row in enumerate(rows[len(WEIGHTS) : len(WEIGHTS) + len(sizes)]):
            row["time_ns"] = 250 + at
    set_rows = [(11 + at, size) for at, size in enumerate(sizes)]
    keeper = {"time_ns": 900, "step": 2, "device": "cpu", "keeper": "dict 'state'", "kind": "container", "file": None}
    keeper |= {
        "line": None,
        "function": None,
        "num_storages": len(sizes),
        "num_bytes": sum(sizes),
    }
    return rank_trace(
        events=rows,
        windows=[window(0, len(events), initial=0) | {"end_ns": END}],
        steps=[step(0, 0, 100), step(1, 100, 300), step(2, 300, END)],
        phases=[
            *(
                phase(name, 1, 100 + 40 * at, 140 + 40 * at)
                for at, name in enumerate(("forward", "backward", "optimizer"))
            ),
            *(
                phase(name, 2, 300 + 40 * at, 340 + 40 * at)
                for at, name in enumerate(("forward", "backward", "optimizer"))
            ),
        ],
        owners=[owner(at_ns, 1 + at, size, "parameter") for at_ns in (290, 950) for at, size in enumerate(WEIGHTS)],
        saved=[saved(320, address, size) for address, size in set_rows] * is_saved
        + [saved(330, 21 + at, size) for at, size in enumerate(differences)],
        keepers=[
            keeper | {"address": address, "size_bytes": size, "is_written": writes if size in looked_at else None}
            for address, size in set_rows
        ],
        optimizers=[{"class_name": "SGD", "group": 0, "num_parameters": 1, "options": "{}"}],
    )


def found_in(rank: RankTrace) -> Finding | None:
    return second_copies(Case(build_history(rank, "cpu", owns_marks=False)))


@pytest.mark.parametrize(
    ("writes", "slug", "severity"),
    [(1, "own-sets", "info"), (0, "second-copy", "warning"), (None, "second-copy", "warning")],
)
@pytest.mark.parametrize("made", ["early", "between"])
def test_what_the_program_writes_to_is_a_set_of_its_own(
    made: str, writes: int | None, slug: str, severity: str
) -> None:
    found = found_in(run(made=made, writes=writes))
    assert found is not None
    assert (found.slug, found.severity) == (slug, severity)
    assert found.new_peak_bytes == sum(WEIGHTS)
    assert found.evidence["kept_by"] == "dict 'state'"


def test_the_words_claim_no_more_than_was_seen() -> None:
    written, untouched, unknown = (found_in(run(writes=writes)) for writes in (1, 0, None))
    assert written is not None
    assert untouched is not None
    assert unknown is not None
    assert "writes to as it trains" in written.title
    assert "copy" not in written.title.lower()
    assert "A second copy of all parameters" in untouched.title
    assert "nothing to write to" in untouched.title
    assert "copy" not in unknown.title.lower()
    assert "has to stay" in written.change
    assert "has to stay" in unknown.change


@pytest.mark.parametrize("writes", [0, 1])
def test_a_look_at_the_smallest_of_a_set_says_nothing_of_the_set(writes: int) -> None:
    found, unknown = found_in(run(writes=writes, looked_at=WEIGHTS[-1:])), found_in(run())
    assert found is not None
    assert unknown is not None
    assert (found.title, found.evidence["is_written"]) == (unknown.title, None)


def test_what_autograd_keeps_is_in_use_and_so_is_what_weights_are_compared_with() -> None:
    assert found_in(run(writes=0, is_saved=True)) is None
    rank = run(writes=0, differences=WEIGHTS)
    assert found_in(rank) is None
    assert found_in(run(writes=0, differences=WEIGHTS[:2])) is not None


@pytest.mark.parametrize("sizes", [WEIGHTS[:2], [4000, 4000, 4000]])
def test_a_few_blocks_are_no_set(sizes: list[int]) -> None:
    assert found_in(run(sizes=sizes)) is None


def test_a_set_made_between_steps_is_no_input_and_a_batch_of_one_such_size_is() -> None:
    for sizes, expected in ((WEIGHTS, Category.UNKNOWN), ([4000], Category.INPUT)):
        history = build_history(run(made="between", sizes=sizes), "cpu", owns_marks=False)
        at_end = {kind: int(level[-1]) for (kind, _), level in history.levels.by_kind.items() if level[-1]}
        assert at_end == {Category.PARAMETER: sum(WEIGHTS), expected: sum(sizes)}


def test_weights_that_follow_others_are_not_to_be_rounded() -> None:
    events = [("alloc", 1 + at, 1000) for at in range(3)]
    owners = [
        owner(90, 1, 1000, "parameter") | {"name": "net.weight", "dtype": "float32"},
        owner(90, 2, 1000, "gradient") | {"name": "net.weight", "dtype": "float32"},
        owner(90, 3, 1000, "parameter") | {"name": "average.weight", "dtype": "float32"},
    ]
    tables = {"events": event_rows(events), "windows": [window(0, 3, initial=0)], "owners": owners}
    tables["steps"] = [step(1, 0, 80)]

    def advice(**header: object) -> Finding | None:
        return frozen_in_float(Case(build_history(rank_trace(header=header, **tables), "cpu", owns_marks=False)))

    assert advice() is not None
    assert advice(following_parameters=["average.weight"]) is None
