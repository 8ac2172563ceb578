"""Real runs of several ranks: how they share the work is recognised, and what sharding would save is what it saves.

The samples run under torchrun with gloo. Each is recorded once for all tests here.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from memtrace.analysis.ranks.compare import compare_ranks
from memtrace.analysis.report import analyze
from memtrace.analysis.results.ranks import RanksResult
from memtrace.analysis.results.report import Report
from memtrace.report.terminal.report import render_text
from tests.conftest import ROOT
from tests.process.conftest import Workplace
from tests.warm.start import warm_python

pytest.importorskip("torch.distributed.tensor")

SIZES = "--device cpu --layers 2 --hidden 32 --heads 4 --sequence 32 --micro-batch 2 --steps 2"
RUNS = {
    "ddp-4": (4, "train_ddp.py"),
    "zero2-2": (2, "train_fsdp2.py", "--no-reshard-after-forward"),
    "zero3-4": (4, "train_fsdp2.py"),
    "tp-2": (2, "train_tp.py", "--sequence-parallel"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """Return the report of each run."""

    def recorded(name: str) -> Report:
        num_ranks, sample, *options = RUNS[name]
        work = Workplace(tmp_path_factory.mktemp(name))
        launcher = (warm_python(), "-m", "torch.distributed.run", "--nproc-per-node", str(num_ranks))
        ran = work.record(*launcher, ROOT / "samples" / sample, *SIZES.split(), *options, PYTHON_EXEC=warm_python())
        assert ran.returncode == 0, ran.stderr.decode()
        assert ran.stdout.decode().count("loss") == 2
        return analyze(work.trace())

    # Two at a time: a rank waits for the other ranks most of its time.
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(RUNS, pool.map(recorded, RUNS), strict=True))


def held(report: Report) -> dict[int, dict[str, int]]:
    """Return for each rank what was measured of parameters, gradients and states at the end of its last step."""
    return {
        rank.rank: {one.category: one.storage_bytes for one in rank.steps[-1].owned}
        for rank in report.ranks
        if rank.rank is not None
    }


def of_ranks(report: Report, num_ranks: int) -> RanksResult:
    """Return the comparison of the first ranks of a run with DDP, where each holds the same however many they are."""
    ranks = [
        replace(one, facts={**one.facts, "world_size": num_ranks})
        for one in report.ranks
        if one.rank in range(num_ranks)
    ]
    overview = compare_ranks(ranks)
    assert overview is not None
    return overview


@pytest.mark.parametrize(("name", "num_ranks"), [("zero2-2", 2), ("zero3-4", 4)])
def test_gathers_hold_the_parts_of_all_ranks(runs: dict[str, Report], name: str, num_ranks: int) -> None:
    # The first rank has a whole part of every parameter; gathered, those of the others are padded to as much.
    part = held(runs[name])[0]["parameter"]
    for rank in runs[name].ranks:
        assert rank.communication is not None
        groups = rank.communication.shard_groups
        assert sum(group.gather_bytes or 0 for group in groups) == num_ranks * part
        assert sum(group.scatter_bytes or 0 for group in groups) == num_ranks * part
        # Where parameters are let go after forward, backward gathers them again.
        assert all(group.num_gathers == (4 if name == "zero3-4" else 2) for group in groups)
        assert all(group.num_scatters == rank.communication.num_shard_steps == 2 for group in groups)


@pytest.mark.parametrize("sharded", ["zero2-2", "zero3-4"])
def test_what_could_be_shared_out_is_what_fsdp2_saves(runs: dict[str, Report], sharded: str) -> None:
    """To the byte, though the vocabulary has no multiple of the ranks as its number of rows."""
    overview = of_ranks(runs["ddp-4"], RUNS[sharded][0])
    before, after = held(runs["ddp-4"]), held(runs[sharded])
    saved = {
        rank: {category: num_bytes - after[rank][category] for category, num_bytes in of_rank.items()}
        for rank, of_rank in before.items()
        if rank in after
    }
    assert {
        one.rank: {
            "parameter": one.parameter_bytes,
            "gradient": one.gradient_bytes,
            "optimizer_state": one.state_bytes,
        }
        for one in overview.savings
    } == saved
    assert len({one.state_bytes for one in overview.savings}) > 1
    assert not overview.savings_inferred
    left = runs[sharded].ranks_overview
    assert left is not None
    assert left.savings == ()


def test_sharing_out_is_advised_once_and_only_where_there_are_copies(runs: dict[str, Report]) -> None:
    overview = runs["ddp-4"].ranks_overview
    assert overview is not None
    promised = {one.rank: one.zero_3_bytes for one in overview.savings}
    (advice,) = [one for one in runs["ddp-4"].findings if one.slug == "state-on-every-rank"]
    assert advice.evidence["zero_3_saves_bytes"] == promised[advice.rank or 0]
    for run in ("zero2-2", "zero3-4", "tp-2"):
        assert not [one for one in runs[run].findings if one.slug == "state-on-every-rank"]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("ddp-4", [("ddp", None, 4, False)]),
        ("zero2-2", [("fsdp", 2, 2, False)]),
        ("zero3-4", [("fsdp", 3, 4, False)]),
        ("tp-2", [("tp", None, 2, False), ("sp", None, 2, True)]),
    ],
)
def test_how_the_ranks_share_the_work_is_recognised(
    runs: dict[str, Report], run: str, expected: list[tuple[str, int | None, int, bool]]
) -> None:
    overview = runs[run].ranks_overview
    assert overview is not None
    assert [(one.kind, one.stage, one.factor, one.inferred) for one in overview.schemes] == expected
    num_ranks = RUNS[run][0]
    assert (overview.world_size, overview.num_missing, overview.failed) == (num_ranks, 0, ())
    assert [(row.rank, row.last_step) for row in overview.ranks] == [(rank, 2) for rank in range(num_ranks)]


def test_the_parts_of_a_tensor_make_up_the_whole(runs: dict[str, Report]) -> None:
    for run in ("zero2-2", "zero3-4", "tp-2"):
        facts = [rank.rank_facts for rank in runs[run].ranks]
        assert all(one is not None and one.names == facts[0].names for one in facts)  # type: ignore[union-attr]
        for at, whole in enumerate(facts[0].global_shapes):  # type: ignore[union-attr]
            shapes = [numbers(one.shapes[at]) for one in facts]  # type: ignore[union-attr]
            placement = facts[0].placements[at]  # type: ignore[union-attr]
            if whole is None or "Replicate" in str(placement):
                assert len(set(shapes)) == 1
                continue
            axis = int(str(placement).partition("Shard(")[2][0])
            assert sum(shape[axis] for shape in shapes) == numbers(whole)[axis]
            assert all(shape[:axis] + shape[axis + 1 :] == shapes[0][:axis] + shapes[0][axis + 1 :] for shape in shapes)


def numbers(shape: str | None) -> tuple[int, ...]:
    """Return a shape as numbers."""
    return tuple(map(int, (shape or "").split("x")))


PAGE = (ROOT / "docs/ranks.md").read_text(encoding="utf-8")


def test_the_page_shows_what_the_reports_of_its_commands_say(runs: dict[str, Report]) -> None:
    commands = re.findall(r"^\$ memtrace record -o (\S+) -- torchrun --nproc-per-node (\d) samples/(.+)$", PAGE, re.M)
    shown = [RUNS["ddp-4"], RUNS["zero3-4"]]
    assert [(int(number), line.split()) for _, number, line in commands] == [
        (number, [sample, *SIZES.split()]) for number, sample in shown
    ]
    excerpts = re.findall(r"^```text\n(.*?)^```$", PAGE, re.M | re.S)
    for name, excerpt in zip(("ddp-4", "zero3-4"), excerpts, strict=True):
        assert excerpt in render_text(runs[name])


def test_the_page_has_the_bytes_of_both_runs(runs: dict[str, Report]) -> None:
    before, after = (
        {rank: sum(of_rank.values()) for rank, of_rank in held(runs[name]).items()} for name in ("ddp-4", "zero3-4")
    )
    overview = runs["ddp-4"].ranks_overview
    assert overview is not None
    rows = re.findall(r"^\| (\d) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.M)
    assert [tuple(int(cell.replace(",", "")) for cell in row) for row in rows] == [
        (one.rank, before[one.rank], after[one.rank], before[one.rank] - after[one.rank], one.zero_3_bytes)
        for one in overview.savings
    ]
