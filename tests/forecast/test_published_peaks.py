"""What benchmarks/published.py says of measured peaks: widths by the rule, sources left out, libraries, addresses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.published.addresses import Descending, reserved_from
from benchmarks.published.figures import LEAST_PERMILLE, STEP_PERMILLE, Figure, held_out, line_of, widths
from benchmarks.published.gpu_peaks import MeasuredPeak
from benchmarks.published.libraries import LIBRARIES, commands, make, of_kind, search_path
from memtrace.allocator.blocks import Device
from memtrace.allocator.settings import LOWEST_ADDRESS, MIB, OLDEST_SEGMENT
from memtrace.forecast.prediction.results import Range
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import event_rows, rank_trace, window

PREDICTED = 1000 * MIB
SOURCES = {"pf": "preflight", "lora": "fitcheck"}


def figure(name: str, true_mib: int, *, engine: str = "meta") -> Figure:
    """Return a row of which 1,000 MiB are predicted to be reserved."""
    row = MeasuredPeak(name=name, gpu="T4", command=("train.py",), allocated_bytes=None, reserved_bytes=true_mib * MIB)
    around = Range(low_bytes=PREDICTED, predicted_bytes=PREDICTED, high_bytes=PREDICTED)
    return Figure(
        row=row,
        engine=engine,
        libraries="fitcheck",
        what="reserved",
        true_bytes=true_mib * MIB,
        predicted=around,
        otherwise_bytes=PREDICTED,
        seconds=1.0,
    )


@pytest.mark.parametrize("measured", [(1000, 1063, 967), (1071, 1012), (930, 941, 1000), (1000, 1001), (1005, 1010)])
def test_widths_hold_every_row_and_are_no_wider_than_the_step(measured: tuple[int, ...]) -> None:
    figures = [figure("lora-a-b1-s1", one) for one in measured]
    less, more = widths(figures)
    assert all(-less <= one.more_permille <= more for one in figures)
    for width, sign in ((less, -1), (more, 1)):
        narrower = width - STEP_PERMILLE
        needed = any(sign * one.more_permille > narrower for one in figures)
        assert width % STEP_PERMILLE == 0
        assert needed or width == LEAST_PERMILLE


def test_a_source_is_judged_by_widths_that_its_own_rows_had_no_part_in() -> None:
    figures = [figure("lora-a-b1-s1", 1004), figure("lora-b-b1-s1", 996), figure("pf-a-b1-s1", 1080)]
    rows = [line.split(" | ") for line in held_out(figures, SOURCES)][2:]
    covered = {source: count for _, _, _, source, _, _, count, _ in rows}
    assert covered == {"fitcheck": "2", "preflight": "0"}
    everything = [figure("pf-a-b1-s1", 1004), figure("lora-a-b1-s1", 1080)]
    assert [line.split(" | ")[6] for line in list(held_out(everything, SOURCES))[2:]] == ["0", "1"]


def test_programs_of_another_kind_stand_for_one_that_no_other_source_has() -> None:
    figures = [figure("pf-resnet50-b1-s1", 1000), figure("lora-a-b1-s1", 1000)]
    lines = list(held_out(figures, SOURCES))[2:]
    assert len(lines) == len(figures)
    assert all("of all kinds" in line for line in lines)


def test_a_line_says_where_other_addresses_would_make_a_difference() -> None:
    one = figure("lora-a-b1-s1", 1000)
    assert f"{PREDICTED // MIB * 2:,}" not in line_of(one)
    assert f"{PREDICTED // MIB * 2:,}" in line_of(replace(one, otherwise_bytes=2 * PREDICTED))


def tied(**facts: str) -> RankTrace:
    """Return a history in which one of two free blocks of 40 MiB is taken, and one leaves its segment whole."""
    whole, first, rest, other, again, last = (number * 1000 * MIB for number in range(1, 7))
    events = [("alloc", whole, 100 * MIB), ("free_requested", whole, 100 * MIB)]
    events += [("alloc", first, 40 * MIB), ("alloc", rest, 60 * MIB), ("alloc", other, 40 * MIB)]
    events += [("free_requested", first, 40 * MIB), ("free_requested", other, 40 * MIB)]
    events += [("alloc", again, 40 * MIB), ("free_requested", rest, 60 * MIB), ("alloc", last, 100 * MIB)]
    return rank_trace(
        source="predicted",
        events=event_rows(events, device="cuda:0"),
        windows=[window(0, len(events), initial=0)],
        header={"devices": [{"name": "cuda:0"}], "allocator_settings": facts},
    )


def test_before_torch_2_12_the_drivers_addresses_decide_what_is_reserved() -> None:
    old = tied(equal_sizes=LOWEST_ADDRESS)
    assert reserved_from(Device(), old) == (100 + 40 + 100) * MIB
    assert reserved_from(Descending(), old) == (100 + 40) * MIB
    new = tied(equal_sizes=OLDEST_SEGMENT)
    assert reserved_from(Device(), new) == reserved_from(Descending(), new)


def test_every_source_of_measured_peaks_has_its_libraries() -> None:
    assert {kind for one in LIBRARIES for kind in one.kinds} == {"pf", "lora", "xcnn", "xllm"}
    for kind in ("pf", "lora", "xcnn", "xllm"):
        main, *others = of_kind(kind)
        assert main.over is None
        assert all(one.over == main.name for one in others)
        assert any(pin.startswith("torch==") for pin in main.alone)


def test_libraries_that_may_have_been_come_before_those_that_they_replace() -> None:
    newest = of_kind("pf")[-1]
    assert search_path(newest, Path("f")) == f"f/{newest.name}:f/{newest.over}"


def test_a_folder_is_filled_once_and_only_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = of_kind("lora")
    ran: list[tuple[str, ...]] = []

    def run(command: tuple[str, ...], *, check: bool) -> None:
        assert check
        assert not (tmp_path / one.name).exists()
        ran.append(command)
        (tmp_path / f"{one.name}.begun").mkdir(exist_ok=True)

    monkeypatch.setattr("subprocess.run", run)
    for _ in range(2):
        make(one, tmp_path, "python")
    assert ran == commands(one, tmp_path / f"{one.name}.begun", "python")
    assert (tmp_path / one.name).is_dir()
