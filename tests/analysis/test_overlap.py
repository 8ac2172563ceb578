"""Where the time of made-up profiles goes: edge cases one by one, then anything against the plain computation."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from memtrace.analysis.results.time import CollectiveTime, TimeResult, TimeSplit
from memtrace.analysis.time.gpu_activities import is_collective_name
from memtrace.analysis.time.overlap import time_of_rank
from memtrace.store.kineto.profile import read_profile
from tests.analysis import raw_profile
from tests.analysis.small_profile import Profile
from tests.analysis.small_trace import step as step_row

US = 1000


def time_of(profile: Profile) -> TimeResult:
    found = time_of_rank(profile.rank())
    assert found is not None
    return found


def test_streams_are_united() -> None:
    whole = time_of(Profile().gpu(0, 10).gpu(5, 15, stream=8).gpu(15, 20, stream=9).gpu(30, 40)).whole
    assert (whole.compute_ns, whole.idle_ns, whole.window_ns) == (30 * US, 10 * US, 40 * US)


def test_communication_is_hidden_where_compute_runs_and_copies_hide_nothing() -> None:
    whole = time_of(Profile().gpu(0, 10).communication(5, 30).copy(25, 35)).whole
    assert (whole.communication_ns, whole.hidden_ns, whole.exposed_ns) == (25 * US, 5 * US, 20 * US)
    assert (whole.copy_ns, whole.copy_only_ns, whole.idle_ns) == (10 * US, 5 * US, 0)
    assert whole.hidden_share == 0.2


def test_share_hidden_of_no_communication_is_not_known() -> None:
    assert time_of(Profile().gpu(0, 1)).whole.hidden_share is None


def test_activities_of_no_length_and_under_a_microsecond_count_as_long_as_they_are() -> None:
    whole = time_of(Profile().gpu(0, 0.25).gpu(1, 1).gpu(2, 2.125)).whole
    assert (whole.num_activities, whole.compute_ns, whole.window_ns) == (3, 375, 2125)


def test_a_profile_of_one_activity_without_length_has_an_empty_window() -> None:
    whole = time_of(Profile().gpu(5, 5)).whole
    assert (whole.window_ns, whole.idle_ns, whole.idle_share) == (0, 0, None)


def test_touching_windows_share_no_moment() -> None:
    found = time_of(Profile().step(1, 0, 10).step(2, 10, 20).gpu(12, 14, launch=10).gpu(2, 3, launch=0))
    assert [one.compute_ns for one in found.steps] == [1 * US, 2 * US]


def test_work_belongs_to_the_step_that_launched_it_and_what_runs_outside_is_told() -> None:
    found = time_of(Profile().step(1, 0, 10).step(2, 10, 20).gpu(8, 14, launch=1).gpu(15, 18, launch=11))
    first, second = found.steps
    assert (first.compute_ns, first.outside_ns, first.other_ns, first.idle_ns) == (6 * US, 4 * US, 0, 8 * US)
    assert (second.compute_ns, second.outside_ns, second.other_ns, second.idle_ns) == (3 * US, 0, 4 * US, 3 * US)


def test_the_last_step_stays_even_without_work() -> None:
    found = time_of(Profile().step(1, 0, 10).gpu(1, 2).step(2, 10, 30))
    assert [(one.step, one.num_activities, one.idle_ns) for one in found.steps] == [(1, 1, 9 * US), (2, 0, 20 * US)]


def test_work_without_a_recorded_launch_is_in_the_whole_and_told() -> None:
    profile = Profile().step(1, 0, 10).gpu(1, 2).add("kernel", "lost", 3, 5, device=0, stream=7, correlation=999)
    profile.add("kernel", "no correlation", 6, 7, device=0, stream=7)
    found = time_of(profile)
    assert (found.num_unlinked, found.whole.compute_ns) == (2, 4 * US)
    assert (found.steps[0].compute_ns, found.steps[0].other_ns, found.steps[0].idle_ns) == (US, 3 * US, 6 * US)


def test_work_launched_outside_steps_is_told() -> None:
    found = time_of(Profile().gpu(0, 1).step(1, 10, 20).gpu(11, 12).gpu(25, 26))
    assert (found.num_outside_steps, found.steps[0].num_activities) == (2, 1)


def test_a_profile_without_steps_has_the_whole_only() -> None:
    found = time_of(Profile().gpu(0, 1))
    assert (found.steps, found.num_outside_steps) == ((), 0)


def test_a_launch_may_be_a_call_of_the_driver_within_one_of_the_runtime() -> None:
    profile = Profile().step(1, 0, 10).step(2, 10, 20).gpu(12, 13, launch=9)
    profile.add("cuda_driver", "cuLaunchKernel", 11, 11.5, correlation=profile.events[-1]["args"]["correlation"])
    assert [one.num_activities for one in time_of(profile).steps] == [1, 0]


def test_operators_with_a_stream_and_ranges_on_the_gpu_are_no_activities() -> None:
    profile = Profile().gpu(0, 1).add("cpu_op", "record_stream", 2, 9, stream=7, device=0, correlation=1)
    profile.add("gpu_user_annotation", "ProfilerStep#3", 0, 9, stream=7, device=0)
    found = time_of(profile)
    assert (found.whole.num_activities, found.whole.window_ns, found.steps) == (1, US, ())


def test_a_profile_of_the_cpu_has_no_gpu_time() -> None:
    assert time_of_rank(Profile().step(1, 0, 10).add("cpu_op", "aten::add", 1, 2).rank()) is None
    assert time_of_rank(Profile().rank()) is None


def test_broken_activities_break_nothing() -> None:
    profile = Profile().gpu(0, 1).gpu(5, 2).gpu(3, 4, device="x", stream=None).gpu(6, 7, correlation="7")
    whole = time_of(profile).whole
    # What ends before it starts holds no moment.
    assert (whole.compute_ns, whole.idle_ns, whole.num_activities) == (3 * US, 4 * US, 4)


def test_broken_steps_break_nothing() -> None:
    found = time_of(Profile().step(1, 10, 5).step(1, 0, 20).step(2, 0, 0).gpu(8, 9))
    assert [(one.step, one.window_ns, one.idle_ns) for one in found.steps] == [
        (1, 20 * US, 19 * US),
        (1, 0, 0),
        (2, 0, 0),
    ]


def test_the_last_times_that_are_read_end_in_no_negative_figure() -> None:
    profile = Profile().gpu(2.2e15, 6.6e15).gpu(1, 2).step(1, 2.25e15, 6.8e15)
    document = {"traceEvents": profile.events, "baseTimeNanoseconds": 2**61}
    found = time_of_rank(read_profile(document, where="hostile"))
    assert found is not None
    assert min(found.whole.compute_ns, found.whole.idle_ns, *(one.idle_ns for one in found.steps)) >= 0


def test_steps_of_a_recording_are_told_from_those_that_were_not_profiled() -> None:
    profile = Profile().gpu(110, 120, launch=105).gpu(130, 140, launch=125)
    rows = [(0, 0, 50), (1, 50, 100), (2, 100, 150), (3, 150, None)]
    steps = [step_row(number, start * US, end and end * US) for number, start, end in rows]
    found = time_of_rank(profile.recorded(steps=steps))
    assert found is not None
    assert [(one.step, one.compute_ns, one.idle_ns) for one in found.steps] == [(2, 20 * US, 30 * US)]
    assert (found.window, found.unfinished_steps) == ("optimizer step", (3,))


def test_time_in_which_a_recording_did_not_profile_is_not_idle() -> None:
    profile = Profile().gpu(110, 120, launch=105).gpu(310, 320, launch=305)
    profile.add("Trace", "PyTorch Profiler (0)", 100, 190).add("Trace", "PyTorch Profiler (0)", 300, 400)
    loads = [{"name": "enumerate(DataLoader)#x", "start_ns": start * US, "device": None} for start in (180, 250, 330)]
    named = [load | {"end_ns": load["start_ns"] + 20 * US} for load in loads]
    steps = [step_row(number, number * 100 * US, (number + 1) * 100 * US) for number in (1, 2, 3)]
    found = time_of_rank(profile.recorded(steps=steps, annotations=named))
    assert found is not None
    whole, (first, last) = found.whole, found.steps
    assert (whole.compute_ns, whole.idle_ns, whole.unseen_ns) == (20 * US, (70 + 10) * US, 110 * US)
    assert [(one.step, one.idle_ns, one.unseen_ns) for one in (first, last)] == [(1, 80 * US, 10 * US), (3, 90 * US, 0)]
    # Of a wait that nobody saw the GPU in, it is not known whether it was noticed.
    assert (first.data_ns, first.data_stall_ns) == (20 * US, 10 * US)
    assert (last.data_ns, last.data_stall_ns) == (20 * US, 20 * US)


def test_communication_is_told_by_kind() -> None:
    profile = Profile().gpu(0, 10).communication(5, 20).communication(15, 25, stream=21)
    profile.communication(30, 31, name="mscclKernel_Sum_half_LL")
    assert time_of(profile).collectives == (
        CollectiveTime(name="AllReduce", num_kernels=2, time_ns=20 * US, exposed_ns=15 * US),
        CollectiveTime(name="Generic", num_kernels=1, time_ns=1 * US, exposed_ns=1 * US),
    )


def test_names_of_the_three_libraries_are_communication() -> None:
    for name in ("ncclKernel_SendRecv_RING", "ncclDevKernel_AllGather_RING_LL", "rcclGenericKernel", "mscclKernel_x"):
        assert is_collective_name(name)
        assert is_collective_name(f"void {name}<float>(int)")
    assert is_collective_name("ncclSymkDevKernel_AllReduce_RSxLDMC_AGxSTMC<float>(x)")
    assert is_collective_name("void msccl::run(int)")
    assert is_collective_name("_Z20ncclKernel_AllReducePv")
    for name in ("__amd_rocclr_copyBuffer", "void gemm<ncclDataType_t>(int)", "at::native::roccl", "cutlass_nccl_like"):
        assert not is_collective_name(name)


def test_devices_are_counted() -> None:
    assert time_of(Profile().gpu(0, 1).gpu(2, 3, device=1)).num_devices == 2


def test_waits_are_split_into_what_the_gpu_noticed_and_not() -> None:
    profile = Profile().step(1, 0, 40).gpu(10, 20).gpu(30, 35)
    profile.add("user_annotation", "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__", 15, 25)
    profile.add("gpu_user_annotation", "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__", 0, 40)
    profile.add("cuda_runtime", "cudaMalloc", 33, 38).add("cuda_runtime", "cudaFree", 36, 39)
    profile.add("cpu_op", "cudaMalloc", 0, 10)
    step = time_of(profile).steps[0]
    assert (step.data_ns, step.data_stall_ns) == (10 * US, 5 * US)
    assert (step.allocator_ns, step.allocator_stall_ns) == (6 * US, 4 * US)


def test_waits_that_a_profile_could_not_see_are_not_known() -> None:
    found = time_of(Profile().add("kernel", "gemm", 0, 1)).whole
    assert (found.data_ns, found.data_stall_ns, found.allocator_ns, found.allocator_stall_ns) == (None,) * 4
    assert time_of(Profile().gpu(0, 1)).whole.allocator_ns == 0


times = st.integers(0, 400).map(lambda quarter: quarter / 4)
kinds = st.sampled_from(["gemm", "ncclDevKernel_AllReduce_x", "copy"])


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Draw a profile: work of three sorts that may overlap, be empty, lie outside its step or have no launch."""
    profile = Profile()
    for number, (one, other) in enumerate(draw(st.lists(st.tuples(times, times), max_size=4))):
        profile.step(number, min(one, other), max(one, other))
    for name, start, length, lag in draw(st.lists(st.tuples(kinds, times, times, times), min_size=1, max_size=12)):
        kind = "gpu_memset" if name == "copy" else "kernel"
        profile.gpu(start, start + length / 4, name=name, kind=kind, launch=max(0, start - lag / 4))
        if lag == 0:
            profile.events[-2]["args"] = {}
    return profile


def parts_add_up(split: TimeSplit) -> bool:
    parts_ns = split.compute_ns + split.exposed_ns + split.copy_only_ns + split.other_ns + split.idle_ns
    return parts_ns == split.window_ns + split.outside_ns


@settings(max_examples=150)
@given(profiles())
def test_any_profile_is_as_the_plain_computation_says(profile: Profile) -> None:
    found = time_of(profile)
    expected = raw_profile.whole_file(profile.events, 0)
    assert {name: getattr(found.whole, name) for name in expected} == expected
    assert (found.whole.outside_ns, found.whole.other_ns) == (0, 0)
    steps = raw_profile.by_step(profile.events, 0)
    assert [(one.step, (one.start_ns, one.end_ns)) for one in found.steps] == [step[:2] for step in steps]
    for one, (_, _, expected) in zip(found.steps, steps, strict=True):
        assert {name: getattr(one, name) for name in expected} == expected
    for one in (found.whole, *found.steps):
        assert parts_add_up(one)
        assert 0 <= one.hidden_ns <= one.communication_ns
        assert one.hidden_ns + one.exposed_ns == one.communication_ns
        assert min(one.idle_ns, one.other_ns, one.outside_ns, one.copy_only_ns) >= 0
