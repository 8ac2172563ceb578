"""What ranks exchange: buckets and needless reductions of replicas, gathers of shards, collectives of a profile."""

from __future__ import annotations

from typing import Any

from memtrace.analysis.communication.communication import communication_of_rank
from memtrace.analysis.communication.findings import communication_findings
from memtrace.analysis.results.communication import CommunicationResult, ReplicaResult
from memtrace.analysis.time.step_times import step_times
from memtrace.store.kineto.profile import read_profile
from memtrace.store.trace import RankTrace
from tests.analysis.small_profile import Profile
from tests.analysis.small_replicas import bucket, forward, timing
from tests.analysis.small_trace import owner, phase, rank_trace, step

MS = 10**6


def found_in(rank: RankTrace) -> CommunicationResult:
    found = communication_of_rank(rank)
    assert found is not None
    return found


def replica_in(rank: RankTrace) -> ReplicaResult:
    (replica,) = found_in(rank).replicas
    return replica


def loop(*, sync: tuple[bool, ...], optimizers: tuple[int, ...] = (), **more: Any) -> RankTrace:
    """Return two steps of 100 ms whose micro-batches take 10 ms forward and 10 ms backward each."""
    phases, forwards = [], []
    for number in (1, 2):
        for at, synchronizes in enumerate(sync):
            start = (100 * number + 20 * at) * MS
            phases += [phase("forward", number, start, start + 10 * MS)]
            phases += [phase("backward", number, start + 10 * MS, start + 20 * MS) | {"microbatch": at}]
            forwards += [forward(start, number, at, synchronizes=synchronizes)]
        ends = (*optimizers, 20 * len(sync))
        phases += [phase("optimizer", number, (100 * number + end) * MS, (100 * number + end) * MS + 1) for end in ends]
    steps = [step(number, 100 * number * MS, 100 * (number + 1) * MS) for number in (1, 2)]
    return rank_trace(phases=phases, replica_forwards=forwards, steps=steps, **more)


def test_buckets_are_those_that_were_read_last_in_their_order() -> None:
    rows = [bucket(0, 900), bucket(1, 200, time=5, rebuilt=True), bucket(0, 700, time=5, rebuilt=True)]
    replica = replica_in(rank_trace(buckets=rows))
    assert (replica.bucket_bytes, replica.total_bytes, replica.rebuilt) == ((700, 200), 900, True)


def test_reductions_before_the_last_microbatch_are_needless() -> None:
    replica = replica_in(loop(sync=(True, True, True), buckets=[bucket(0, 1000)]))
    assert (replica.num_steps, replica.num_backwards, replica.num_reductions) == (2, 6, 6)
    assert (replica.num_needless, replica.needless_bytes) == (4, 4000)


def test_under_no_sync_nothing_is_needless() -> None:
    rank = loop(sync=(False, False, True))
    assert (replica_in(rank).num_reductions, replica_in(rank).num_needless) == (2, 0)
    assert communication_findings(rank, found_in(rank), step_times(rank), None) == ()


def test_a_reduction_is_needed_where_none_follows_it() -> None:
    assert replica_in(loop(sync=(True, False))).num_needless == 0
    assert replica_in(loop(sync=(True, False, True))).num_needless == 2


def test_a_reduction_that_an_optimizer_uses_at_once_is_needed() -> None:
    assert replica_in(loop(sync=(True, True), optimizers=(20,))).num_needless == 0


def test_a_forward_without_a_backward_reduces_nothing() -> None:
    rank = loop(sync=(True,), buckets=[])
    more = [*rank.table("replica_forwards").rows(), forward(190 * MS, 1, 1)]
    phases = [{**row, "phase": rank.text(row["phase"])} for row in rank.table("phases").rows()]
    replica = replica_in(rank_trace(replica_forwards=more, phases=phases))
    assert (replica.num_backwards, replica.num_needless) == (2, 0)


def test_two_forwards_before_one_backward_are_one_reduction() -> None:
    rows = [forward(1, 1, 0), forward(2, 1, 0)]
    replica = replica_in(rank_trace(replica_forwards=rows, phases=[phase("backward", 1, 5, 9)]))
    assert (replica.num_backwards, replica.num_reductions) == (1, 1)


def test_the_finding_says_bytes_and_what_ddp_timed() -> None:
    timings = [timing(at, backward=8 * MS, communication=6 * MS, overlap=2 * MS) for at in (2, 3)]
    rank = loop(sync=(True, True), buckets=[bucket(0, 2048)], reducer_timings=timings)
    no_sync, exposed = communication_findings(rank, found_in(rank), step_times(rank), None)
    assert (no_sync.slug, no_sync.severity, no_sync.saves_ns) == ("no-sync", "warning", 4 * MS)
    assert no_sync.evidence["needless_bytes"] == 2048
    assert "2.00 KiB a step" in no_sync.title
    assert (exposed.slug, exposed.saves_ns) == ("exposed-communication", 4 * MS)


def test_without_any_time_the_finding_stands_on_bytes_alone() -> None:
    rank = loop(sync=(True, True), buckets=[bucket(0, 10)])
    (no_sync,) = communication_findings(rank, found_in(rank), step_times(rank), None)
    assert (no_sync.saves_ns, no_sync.severity) == (None, "warning")


def test_the_first_iteration_which_also_connects_counts_only_where_there_is_no_other() -> None:
    first = timing(1, backward=10, communication=90, overlap=0, unused=16)
    second = timing(2, backward=10, communication=6, overlap=4)
    replica = replica_in(rank_trace(reducer_timings=[first, second], replica_forwards=[forward(1, 1, 0)]))
    assert replica.time is not None
    assert (replica.time.num_timed, replica.time.exposed_ns, replica.time.start_ns) == (1, 2, 6)
    assert replica.unused_bytes == 16
    alone = replica_in(rank_trace(reducer_timings=[first], replica_forwards=[forward(1, 1, 0)]))
    assert alone.time is not None
    assert alone.time.exposed_ns == 90


def launches(kind: str, *times_us: int) -> Profile:
    profile = Profile()
    for at in times_us:
        if kind == "gpu":
            profile.communication(at + 50, at + 60, launch=at)
        else:
            profile.add("cpu_op", "c10d::allreduce_", at, at + 1)
    return profile


def test_all_reduces_start_where_they_are_launched_on_a_gpu_and_on_the_cpu() -> None:
    tables = {
        "phases": [
            phase("backward", number, 1000 * 1000 * number, 1000 * 1000 * number + 100_000) for number in (1, 2)
        ],
        "replica_forwards": [forward(number, number, 0) for number in (1, 2)],
        "buckets": [bucket(0, 10), bucket(1, 20)],
    }
    for kind in ("gpu", "cpu"):
        # The launch at 3 ms is in no backward; those of the first are 20 and 60 µs after its start.
        profile = launches(kind, 1020, 1060, 2040, 2080, 3000)
        replica = replica_in(profile.recorded(**tables))
        assert (replica.bucket_starts_ns, replica.backward_ns) == ((30_000, 70_000), 100_000), kind


def test_starts_are_not_told_where_their_number_is_not_that_of_the_buckets() -> None:
    tables = {
        "phases": [phase("backward", 1, 1_000_000, 1_100_000)],
        "replica_forwards": [forward(1, 1, 0)],
        "buckets": [bucket(0, 10), bucket(1, 20)],
    }
    assert replica_in(launches("cpu", 1020).recorded(**tables)).bucket_starts_ns == ()


def test_groups_of_fsdp_are_told_by_their_buffers() -> None:
    def buffer(time: int, size: int, name: str, number: int) -> dict[str, Any]:
        return owner(time, time, size, "communication") | {"name": name, "step": number}

    rows = [buffer(at, 800, "all-gather of blocks.0", 1 + at // 2) for at in range(4)]
    rows += [buffer(9, 400, "reduce-scatter of blocks.0", 1), buffer(10, 64, "all-gather of the root", 2)]
    rows += [buffer(11, 3, "bucket", 7)]
    found = found_in(rank_trace(owners=rows))
    block, root = found.shard_groups
    assert (block.name, block.gather_bytes, block.num_gathers) == ("blocks.0", 800, 4)
    assert (block.scatter_bytes, block.num_scatters) == (400, 1)
    assert (root.name, root.gather_bytes, root.scatter_bytes, found.num_shard_steps) == ("the root", 64, None, 2)


def test_collectives_add_up_by_name_group_and_dtype() -> None:
    args = {"In msg nelems": 100, "Out msg nelems": 100, "Group size": 2, "Process Group Name": "dp"}
    profile = Profile()
    for at, dtype in enumerate(("Float", "Float", "BFloat16")):
        profile.communication(10 * at, 10 * at + 5, **{"Collective name": "allreduce", "dtype": dtype, **args})
    profile.communication(50, 51, **{"Collective name": "_allgather_base", **args})
    found = found_in(read_profile({"traceEvents": profile.events}, where="small")).collectives
    rows = {(one.name, one.dtype): (one.num_kernels, one.input_bytes, one.time_ns) for one in found}
    assert rows == {
        ("allreduce", "float32"): (2, 800, 10_000),
        ("allreduce", "bfloat16"): (1, 200, 5_000),
        ("_allgather_base", None): (1, None, 1_000),
    }
    assert {(one.group, one.group_size) for one in found} == {("dp", 2)}


def test_a_rank_that_exchanges_nothing_has_no_result() -> None:
    assert communication_of_rank(rank_trace(steps=[step(1, 0, 9)])) is None
