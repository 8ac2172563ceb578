"""Ranks side by side: expected amounts come from the shapes and the rules of cutting, not from what is tested."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtrace.analysis.ranks.compare import compare_ranks
from memtrace.analysis.report import analyze
from memtrace.analysis.results.ranks import RanksResult, Scheme
from memtrace.analysis.results.report import Finding, Report
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace
from tests.analysis.made_ranks import Part, Shape, copies, made_rank, report_of
from tests.fake_report import out_of_memory

GPT = {
    "tokens.weight": (41, 8),
    **{f"blocks.{at}.{name}": shape for at in range(4) for name, shape in {"w": (8, 8), "b": (8,)}.items()},
}
SHAPES = st.dictionaries(
    st.sampled_from(["a.w", "b.w", "c.w", "d.w"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    min_size=1,
)


def overview(report: Report) -> RanksResult:
    assert report.ranks_overview is not None
    return report.ranks_overview


def told(report: Report) -> list[tuple[str, int | None, int | None, bool]]:
    """Return kind, stage, factor of each scheme and whether it is inferred."""
    return [(one.kind, one.stage, one.factor, one.inferred) for one in overview(report).schemes]


def named(report: Report, slug: str) -> list[Finding]:
    return [one for one in report.findings if one.slug == slug]


def chunk(shape: Shape, ranks: int, rank: int) -> Shape:
    """Return the part of a rank, as `torch.chunk` cuts along the first dimension."""
    rows = list(range(shape[0]))
    size = math.ceil(len(rows) / ranks)
    return (len(rows[rank * size : (rank + 1) * size]), *shape[1:])


def ddp(num_ranks: int, shapes: dict[str, Any] = GPT, **how: Any) -> list[RankTrace]:
    return [made_rank(rank, num_ranks, copies(shapes), ddp=True, **how) for rank in range(num_ranks)]


def divided(shapes: dict[str, Any], ranks: int, rank: int, placement: str) -> dict[str, Part]:
    return {name: Part(chunk(shape, ranks, rank), shape, placement) for name, shape in shapes.items()}


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(2, 5))
def test_savings_are_what_cutting_each_tensor_by_rows_leaves_out(shapes: dict[str, Shape], ranks: int) -> None:
    found = overview(report_of(*ddp(ranks, shapes))).savings
    assert [one.rank for one in found] == list(range(ranks))
    for one in found:
        padded = sum(4 * (math.prod(shape) - math.prod(chunk(shape, ranks, 0))) for shape in shapes.values())
        own = sum(4 * (math.prod(shape) - math.prod(chunk(shape, ranks, one.rank))) for shape in shapes.values())
        assert (one.parameter_bytes, one.gradient_bytes, one.state_bytes) == (padded, padded, 2 * own)
        assert one.zero_1_bytes <= one.zero_2_bytes <= one.zero_3_bytes == 2 * padded + 2 * own


def test_ddp_is_told_and_sharing_out_is_advised_once() -> None:
    report = report_of(*ddp(3))
    assert told(report) == [("ddp", None, 3, False)]
    assert not overview(report).savings_inferred
    (advice,) = named(report, "state-on-every-rank")
    saving = overview(report).savings[0]
    assert advice.rank == saving.rank
    assert [advice.evidence[f"zero_{stage}_saves_bytes"] for stage in (1, 2, 3)] == [
        saving.zero_1_bytes,
        saving.zero_2_bytes,
        saving.zero_3_bytes,
    ]


@pytest.mark.parametrize(
    ("gathers", "stage"), [(["forward", "backward"], 3), (["forward"], 2)], ids=["reshard", "keep"]
)
def test_fsdp2_is_told_with_its_stage(gathers: list[str], stage: int) -> None:
    ranks = [
        made_rank(rank, 4, divided(GPT, 4, rank, f"dp Shard(0) {rank} of 4"), gathers=gathers) for rank in range(4)
    ]
    report = report_of(*ranks)
    assert told(report) == [("fsdp", stage, 4, False)]
    assert (overview(report).copies, overview(report).savings) == (1, ())
    assert "tokens.weight is 11x8 of 41x8" in overview(report).schemes[0].how


def test_hybrid_sharding_has_copies_of_shards() -> None:
    ranks = [
        made_rank(
            2 * copy + part,
            4,
            divided(GPT, 2, part, f"dp_replicate Replicate {copy} of 2, dp_shard Shard(0) {part} of 2"),
            gathers=["forward", "backward"],
        )
        for copy in range(2)
        for part in range(2)
    ]
    report = report_of(*ranks)
    assert told(report) == [("fsdp", 3, 2, False), ("replicated", None, 2, False)]
    # Rank 2 has the same rows as rank 0, and would have the second half of them.
    rows = chunk(GPT["tokens.weight"], 2, 0)
    states = [2 * 4 * (math.prod(shape) - math.prod(chunk(shape, 2, 1))) for shape in [rows]]
    states += [2 * 4 * math.prod(chunk(shape, 2, 0)) // 2 for name, shape in GPT.items() if name.startswith("blocks")]
    assert overview(report).savings[2].state_bytes == sum(states)
    (advice,) = named(report, "state-on-every-rank")
    assert advice.evidence["copies"] == 2


def test_states_on_one_rank_each_are_zero_1() -> None:
    names = sorted(GPT)

    def parts(rank: int) -> dict[str, Part]:
        return {name: Part(GPT[name], has_state=names.index(name) % 2 == rank) for name in names}

    def run(optimizer: str) -> Report:
        return report_of(*(made_rank(rank, 2, parts(rank), ddp=True, optimizer=optimizer) for rank in range(2)))

    assert told(run("AdamW")) == [("zero", 1, 2, True), ("ddp", None, 2, False)]
    report = run("ZeroRedundancyOptimizer")
    assert told(report) == [("zero", 1, 2, False), ("ddp", None, 2, False)]
    assert [one.zero_1_bytes for one in overview(report).savings] == [0, 0]
    assert all(one.gradient_bytes == one.parameter_bytes > 0 for one in overview(report).savings)


def test_tensor_parallelism_is_told_by_a_named_axis_and_inferred_without() -> None:
    def run(axis: str) -> Report:
        part = {"blocks.0.w": Part((4, 8), (8, 8), f"{axis}Shard(0) 0 of 2"), "norm.w": Part((8,))}
        return report_of(*(made_rank(rank, 2, part) for rank in range(2)))

    assert told(run("tp ")) == [("tp", None, 2, False)]
    assert told(run("")) == [("tp", None, 2, True)]
    # The norm is whole on both ranks because both compute with it: data parallelism has one copy of the model.
    assert overview(run("tp ")).savings == ()


def test_fsdp2_over_tensor_parallelism_is_both() -> None:
    def parts(data: int, tensor: int) -> dict[str, Part]:
        own = (chunk((8, 8), 2, data)[0], 4)
        norm = Part(chunk((9,), 2, data), (9,), f"dp Shard(0) {data} of 2")
        return {"blocks.0.w": Part(own, (8, 8), f"dp Shard(0) {data} of 2, tp Shard(1) {tensor} of 2"), "norm.w": norm}

    ranks = [
        made_rank(2 * data + tensor, 4, parts(data, tensor), gathers=["forward", "backward"])
        for data in range(2)
        for tensor in range(2)
    ]
    report = report_of(*ranks)
    assert told(report) == [("fsdp", 3, 2, False), ("tp", None, 2, False)]
    # The norm is in two parts, each on two ranks: those of a layer's tensor parallelism, which all need it.
    assert (overview(report).copies, overview(report).savings) == (1, ())


def test_replicas_of_tensor_parallelism_are_copies_of_its_parts() -> None:
    def parts(tensor: int) -> dict[str, Part]:
        return {"blocks.0.w": Part((5, 8), (10, 8), f"tp Shard(0) {tensor} of 2"), "norm.w": Part((8,))}

    report = report_of(*(made_rank(rank, 4, parts(rank % 2), ddp=True) for rank in range(4)))
    assert told(report) == [("ddp", None, 2, False), ("tp", None, 2, False)]
    # Of five rows the first of two ranks with the same part would have three; of eight both have four.
    states = [2 * 4 * (8 * (5 - rows) + 4) for rows in (3, 3, 2, 2)]
    assert [one.state_bytes for one in overview(report).savings] == states


def test_what_has_another_shape_on_another_rank_is_no_copy() -> None:
    ranks = [made_rank(rank, 2, copies({"a.w": (4 + rank, 8), "b.w": (4, 8)})) for rank in range(2)]
    found = overview(report_of(*ranks))
    assert found.savings_inferred
    assert [one.parameter_bytes for one in found.savings] == [4 * 2 * 8] * 2


def test_a_parameter_that_fsdp2_was_not_given_is_a_copy() -> None:
    def parts(rank: int) -> dict[str, Part]:
        return {"blocks.0.w": Part((4, 8), (8, 8), f"dp Shard(0) {rank} of 2"), "scale": Part((4,))}

    report = report_of(*(made_rank(rank, 2, parts(rank), gathers=["forward", "backward"]) for rank in range(2)))
    assert told(report) == [("fsdp", 3, 2, False), ("replicated", None, 2, True)]
    assert [one.parameter_bytes for one in overview(report).savings] == [4 * 2] * 2


def test_nothing_is_called_a_copy_where_layers_are_divided_out_of_sight() -> None:
    for how in ({"classes": ["ColumnParallelLinear"]}, {"optimizer": "DistributedOptimizer"}):
        found = overview(report_of(*(made_rank(rank, 2, copies(GPT), ddp=True, **how) for rank in range(2))))  # type: ignore[arg-type]
        assert (found.copies, found.savings) == (None, ())
        assert [one.kind for one in found.schemes] == (["tp"] if "classes" in how else [])
    flat = overview(report_of(*(made_rank(rank, 2, copies({"_flat_param": (99,)})) for rank in range(2))))
    assert [(one.kind, one.inferred, one.factor) for one in flat.schemes] == [("fsdp", True, None)]
    assert flat.savings == ()


@pytest.mark.parametrize(
    "how", [{"optimizer": "DeepSpeedZeroOptimizer"}, {"classes": ("ColumnParallelLinear",)}], ids=str
)
def test_ranks_whose_parts_nothing_tells_are_not_said_to_hold_the_same(how: dict[str, Any]) -> None:
    report = report_of(*(made_rank(rank, 2, copies(GPT), **how) for rank in range(2)))
    assert not named(report, "state-on-every-rank")


def test_pipeline_stages_are_inferred_and_the_fuller_one_is_named() -> None:
    def stage(number: int) -> dict[str, Part]:
        layers = {f"blocks.{at}.w": (16, 16) for at in (2 * number, 2 * number + 1)}
        return copies(layers | ({"tokens.weight": (64, 16)} if number == 0 else {}))

    report = report_of(*(made_rank(rank, 2, stage(rank)) for rank in range(2)))
    assert told(report) == [("pp", None, 2, True)]
    assert not named(report, "state-on-every-rank")
    (finding,) = named(report, "rank-imbalance")
    assert finding.rank == 0
    # Parameter, gradient and two moments of the embedding, and the count of its steps.
    assert finding.evidence["by_parameters"]["tokens"] == 4 * 4 * 64 * 16 + 4
    assert "tokens" in finding.change
    assert "fewer layers" in finding.change


def test_missing_ranks_are_named_and_their_copies_count() -> None:
    report = report_of(*(made_rank(rank, 8, copies(GPT), ddp=True) for rank in (0, 1, 3, 4, 6, 7)))
    found = overview(report)
    assert (found.world_size, found.num_missing, found.missing) == (8, 2, (2, 5))
    assert told(report) == [("ddp", None, 8, False)]
    assert found.savings_inferred
    # The last of eight parts of the embedding has no rows: those are the places of the ranks that were not given, too.
    assert {one.rank: one.state_bytes for one in found.savings} == {
        rank: sum(2 * 4 * (math.prod(shape) - math.prod(chunk(shape, 8, rank))) for shape in GPT.values())
        for rank in (0, 1, 3, 4, 6, 7)
    }
    assert found.savings[-1].state_bytes > found.savings[0].state_bytes


def test_the_rank_that_died_first_is_named() -> None:
    exception = {"type": "ValueError", "message": "no", "stack": []}
    ranks = [
        made_rank(0, 4, copies(GPT), last_step=3),
        made_rank(1, 4, copies(GPT), last_step=3, complete=False),
        made_rank(2, 4, copies(GPT), last_step=2, exception=exception),
        made_rank(3, 4, copies(GPT), last_step=2),
    ]
    report = report_of(*ranks)
    assert (overview(report).failed, overview(report).behind) == ((2, 1), (3,))
    (finding,) = named(report, "rank-died")
    assert finding.rank == 2
    assert "ValueError after step 2" in finding.title
    assert finding.evidence["last_steps"] == {"1": 3, "2": 2}
    assert report.verdict.startswith("Rank 2 died of ValueError after step 2")


def test_of_ranks_that_stopped_at_one_step_an_exception_comes_before_an_oom_and_that_before_a_death() -> None:
    ranks = [made_rank(rank, 5, copies(GPT), last_step=2, complete=rank != 0) for rank in range(4)]
    exception = {"type": "ValueError", "message": "no", "stack": []}
    ranks.append(made_rank(4, 5, copies(GPT), last_step=2, exception=exception))
    dead, whole, other, *rest = report_of(*ranks).ranks
    reports = [dead, replace(whole, oom=out_of_memory()), replace(other, oom=replace(out_of_memory(), predicted=True))]
    overview = compare_ranks([*reports, *rest])
    assert overview is not None
    assert [row.failure for row in overview.ranks] == ["incomplete", "oom", None, None, "exception"]
    assert overview.failed == (4, 1, 0)


def test_ranks_that_were_all_stopped_at_once_did_not_die_of_one() -> None:
    report = report_of(*(made_rank(rank, 2, copies(GPT), last_step=2, complete=False) for rank in range(2)))
    assert overview(report).failed == (0, 1)
    assert named(report, "rank-died") == []


@given(st.lists(st.integers(0, 400), min_size=2, max_size=12), st.integers(0, 11))
@settings(max_examples=20, deadline=None)
def test_spreads_hold_the_extremes_of_all_ranks(extra: list[int], chosen: int) -> None:
    report = report_of(*ddp_with(extra))
    peaks = [one.peak.requested_bytes for one in report.ranks]
    whole = overview(report).spreads[0]
    assert (whole.min_bytes, whole.max_bytes) == (min(peaks), max(peaks))
    assert (peaks[whole.min_rank], peaks[whole.max_rank]) == (whole.min_bytes, whole.max_bytes)
    assert sum(peak <= whole.median_bytes for peak in peaks) >= len(peaks) / 2  # type: ignore[operator]
    assert sum(peak >= whole.median_bytes for peak in peaks) >= len(peaks) / 2  # type: ignore[operator]
    highest = overview(report).highest
    assert (highest is None) == (max(peaks) == whole.median_bytes)
    for one in overview(report).outliers:
        assert abs(one.excess_bytes) > 0.05 * one.median_bytes


def ddp_with(extra: list[int]) -> list[RankTrace]:
    return [
        made_rank(rank, len(extra), copies({"a.w": (4, 4)}), ddp=True, more=more) for rank, more in enumerate(extra)
    ]


def test_an_outlier_says_what_differs() -> None:
    plain = [made_rank(rank, 6, copies(GPT), ddp=True, more=1000, host="a") for rank in range(5)]
    report = report_of(*plain, made_rank(5, 6, copies(GPT), ddp=True, more=9000, host="b"))
    (outlier,) = overview(report).outliers
    assert (outlier.rank, outlier.median_rank, outlier.excess_bytes) == (5, 0, 8000)
    (difference,) = outlier.by_category
    assert difference.num_bytes - difference.median_bytes == 8000
    assert outlier.facts == ("host: b on rank 5, a on rank 0",)
    (finding,) = named(report, "rank-imbalance")
    assert finding.evidence["by_category"] == {difference.name: 8000}


def test_of_a_rank_with_two_devices_the_accelerator_counts() -> None:
    host = [made_rank(rank, 2, copies({"a.w": (64, 64)}), device="cpu") for rank in range(2)]
    gpu = [made_rank(rank, 2, copies({"a.w": (2, 2)}), device="cuda:0") for rank in range(2)]
    found = overview(report_of(*host, *gpu))
    assert [(row.rank, row.device) for row in found.ranks] == [(0, "cuda:0"), (1, "cuda:0")]


def test_a_run_of_one_rank_has_no_overview() -> None:
    assert report_of(made_rank(None, None, copies(GPT))).ranks_overview is None
    assert report_of(made_rank(0, 1, copies(GPT))).ranks_overview is None
    assert report_of(made_rank(None, None, copies(GPT)), made_rank(None, None, copies(GPT))).ranks_overview is None


def test_a_lone_rank_of_ddp_stands_for_all_but_no_other_does() -> None:
    found = overview(report_of(made_rank(0, 4, copies(GPT), ddp=True)))
    assert (found.copies, found.savings_inferred, [one.rank for one in found.savings]) == (4, True, [0])
    alone = overview(report_of(made_rank(0, 4, copies(GPT))))
    assert (alone.copies, alone.savings, alone.schemes) == (1, (), ())


@pytest.mark.parametrize("world_size", [10**15, -3, True, 0])
def test_an_odd_number_of_ranks_does_no_harm(world_size: int) -> None:
    report = report_of(*(made_rank(rank, world_size, copies(GPT)) for rank in (-1, 0, 10**12)))
    found = overview(report)
    assert len(found.missing) <= 1000
    assert len(found.ranks) == 3
    assert found.num_missing >= 0


@pytest.mark.parametrize(
    "placement", ["", "x", "Shard(0) 9 of 2", "Shard(0) 0 of 0", "Replicate 0 of 2, ", "tp Partial of 3", "a b c d e"]
)
def test_odd_placements_do_no_harm(placement: str) -> None:
    odd = {"a.w": Part((4, 4), (8, 4), placement), "b.w": Part((), None, placement)}
    found = overview(report_of(*(made_rank(rank, 2, odd) for rank in range(2))))
    assert all(isinstance(one, Scheme) for one in found.schemes)


def test_two_profiles_of_a_run_of_128(shared_data: Path) -> None:
    files = [shared_data / f"kineto/train-128-ranks-sampled-rank{rank}.json.gz" for rank in range(2)]
    found = overview(analyze(read_trace(files)))
    assert (found.world_size, found.num_missing, found.missing) == (128, 126, tuple(range(2, 128)))
    assert [(row.rank, row.peak_bytes) for row in found.ranks] == [(0, None), (1, None)]
    assert (found.spreads, found.outliers, found.schemes, found.savings) == ((), (), (), ())
