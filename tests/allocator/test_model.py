"""The model of the allocator against a plain one, on random histories under all settings, and what always holds."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memtrace.allocator.blocks import ALLOCATED, FREE, PENDING, UNMAPPED, Block, Device
from memtrace.allocator.model import Allocator
from memtrace.allocator.settings import Settings, parse_settings
from memtrace.allocator.state import state_of
from tests.allocator.reference import Reference

MIB = 1 << 20
CONFIGURATIONS = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:32",
    "max_split_size_mb:24,max_non_split_rounding_mb:30",
    "roundup_power2_divisions:[1:4,4:8,>:2]",
    "per_process_memory_fraction:0.5,garbage_collection_threshold:0.5",
    "per_process_memory_fraction:0.7,max_split_size_mb:40,garbage_collection_threshold:0.3",
    "per_process_memory_fraction:0.4,throw_on_cudamalloc_oom:True",
    "large_segment_size_mb:12,expandable_segments:True,roundup_power2_divisions:2",
    "expandable_segments:True,max_split_size_mb:32",
)


@dataclass(frozen=True)
class Step:
    """One thing that a program does; what it refers to is taken modulo what is live."""

    kind: str
    size: int = 0
    stream: int = 0
    which: int = 0


sizes = st.one_of(
    st.integers(1, 4096),
    st.integers(1, 3 * MIB),
    st.integers(MIB - 512, MIB + 512),
    st.integers(9 * MIB, 12 * MIB),
    st.integers(1, 70 * MIB),
    st.sampled_from([512, MIB, 2 * MIB, 10 * MIB, 20 * MIB, 32 * MIB, 24 * MIB]),
)
steps = st.one_of(
    st.builds(Step, st.just("malloc"), size=sizes, stream=st.sampled_from([0, 0, 0, 7])),
    st.builds(Step, st.just("malloc"), size=sizes, stream=st.just(0)),
    st.builds(Step, st.just("free"), which=st.integers(0, 50)),
    st.builds(Step, st.just("free"), which=st.integers(0, 50)),
    st.builds(Step, st.just("free_later"), which=st.integers(0, 50)),
    st.builds(Step, st.just("complete"), which=st.integers(0, 50)),
    st.builds(Step, st.just("empty_cache")),
)


def long_program(seed: int, length: int) -> list[Step]:
    """Return a history in which memory fills up and empties again, of few sizes, so that pools are full of choices."""
    random = Random(seed)
    near = [512 * random.randrange(-2, 3) * (random.random() < 0.4) for _ in range(6)]
    palette = [max(random.choice(PALETTE) + off, 1) for off in near]
    program = []
    fills = 0.6
    for at in range(length):
        if at % 25 == 0:
            fills = random.choice([0.3, 0.55, 0.8])
        which = random.randrange(50)
        if random.random() < fills:
            program.append(Step("malloc", size=random.choice(palette), stream=7 * (random.random() < 0.15)))
        elif random.random() < 0.02:
            program.append(Step("empty_cache"))
        else:
            program.append(Step(random.choice(["free"] * 6 + ["free_later", "complete"]), which=which))
    return program


PALETTE = [2**power for power in range(8, 27)] + [size * MIB for size in (3, 9, 10, 11, 15, 21, 23, 25, 30, 33, 41, 50)]
programs = st.one_of(
    st.lists(steps, min_size=1, max_size=60),
    st.builds(long_program, st.integers(0, 2**32), st.integers(60, 250)),
    st.builds(long_program, st.integers(0, 2**32), st.integers(60, 250)),
)
configurations = st.sampled_from(CONFIGURATIONS).map(parse_settings)
capacities = st.sampled_from([100 * MIB, 260 * MIB, 4096 * MIB])
thorough = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def run(allocator: Allocator, program: list[Step], reference: Reference | None = None) -> list[int | None]:
    """Run a program, in the reference too if there is one; return every address and check that both agree."""
    addresses: list[int | None] = []
    live: list[int] = []
    waiting: list[int] = []
    for step in program:
        if step.kind == "malloc":
            block = allocator.malloc(step.size, step.stream)
            address = None if block is None else block.address
            if reference is not None:
                assert address == reference.malloc(step.size, step.stream)
            addresses.append(address)
            if address is not None:
                live.append(address)
            if allocator.num_alloc_retries and waiting:
                waiting = [one for one in waiting if one in allocator.live and allocator.live[one].state == PENDING]
        elif step.kind == "empty_cache":
            allocator.empty_cache()
            waiting = []
            if reference is not None:
                reference.empty_cache()
        elif step.kind == "complete" and waiting:
            address = waiting.pop(step.which % len(waiting))
            allocator.complete_free(address)
            if reference is not None:
                reference.complete(address)
        elif step.kind in ("free", "free_later") and live:
            address = live.pop(step.which % len(live))
            allocator.request_free(address)
            if step.kind == "free":
                allocator.complete_free(address)
            else:
                waiting.append(address)
            if reference is not None:
                reference.free(address, deferred=step.kind == "free_later")
        if reference is not None:
            assert allocator.reserved_bytes == reference.reserved()
            assert allocator.allocated_bytes == reference.total("allocated")
            assert allocator.active_bytes == reference.total("allocated", "pending")
    return addresses


def new(chosen: Settings, capacity: int) -> Allocator:
    return Allocator(chosen, Device(capacity), total_bytes=capacity)


@given(programs, configurations, capacities)
@thorough
def test_every_address_is_that_of_the_plain_model(program: list[Step], chosen: Settings, capacity: int) -> None:
    allocator, reference = new(chosen, capacity), Reference(chosen, capacity)
    run(allocator, program, reference)
    assert (allocator.num_alloc_retries, allocator.num_ooms) == (reference.retries, reference.ooms)


@given(programs, configurations, capacities)
@thorough
def test_what_always_holds(program: list[Step], chosen: Settings, capacity: int) -> None:
    allocator = new(chosen, capacity)
    run(allocator, program)
    assert allocator.allocated_bytes <= allocator.active_bytes <= allocator.reserved_bytes <= capacity
    chains = list(allocator.heads.values()) + [one.head for one in allocator.expandables]
    listed = {id(entry[2]) for pool in (allocator.small, allocator.large) for e in pool.free.values() for entry in e}
    for head in chains:
        check_chain(head, listed)
    state = state_of(allocator)
    assert sum(segment.size_bytes for segment in state.segments) == allocator.reserved_bytes
    assert state.requested_bytes <= state.allocated_bytes


def check_chain(head: Block | None, listed: set[int]) -> None:
    """Blocks tile a segment, free neighbours are merged, and exactly the free ones are in a pool."""
    assert head is not None
    assert head.prev is None
    block: Block | None = head
    while block is not None:
        assert block.size > 0
        assert (id(block) in listed) == (block.state == FREE)
        after = block.next
        if after is not None:
            assert after.prev is block
            assert after.address == block.address + block.size
            assert not (block.state == after.state and block.state in (FREE, UNMAPPED))
        block = after


@given(programs, configurations)
@thorough
def test_freeing_everything_and_emptying_the_cache_leaves_nothing(program: list[Step], chosen: Settings) -> None:
    allocator = new(chosen, 4096 * MIB)
    run(allocator, program)
    for address in [address for address, block in allocator.live.items() if block.state == ALLOCATED]:
        allocator.free(address)
    allocator.empty_cache()
    assert (allocator.allocated_bytes, allocator.active_bytes, allocator.reserved_bytes) == (0, 0, 0)
    assert not allocator.heads
    assert not allocator.expandables


@given(programs, configurations)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_same_requests_give_the_same_addresses(program: list[Step], chosen: Settings) -> None:
    assert run(new(chosen, 260 * MIB), program) == run(new(chosen, 260 * MIB), program)


def test_a_remainder_of_up_to_one_mib_belongs_to_its_block() -> None:
    allocator = new(Settings(), 4096 * MIB)
    whole = allocator.malloc(20 * MIB)
    assert whole is not None
    allocator.free(whole.address)
    block = allocator.malloc(19 * MIB)
    assert block is not None
    assert allocator.allocated_bytes == block.size == 20 * MIB


def test_an_expandable_segment_maps_whole_granules_of_20_mib() -> None:
    allocator = new(parse_settings("expandable_segments:True"), 4096 * MIB)
    allocator.malloc(30 * MIB)
    assert allocator.reserved_bytes == 40 * MIB
    plain = new(Settings(), 4096 * MIB)
    plain.malloc(30 * MIB)
    assert plain.reserved_bytes == 30 * MIB


def test_memory_of_a_captured_graph_goes_back_only_when_nobody_uses_its_pool() -> None:
    allocator = new(Settings(), 4096 * MIB)
    block = allocator.malloc(4 * MIB, 0, "1,0")
    assert block is not None
    allocator.free(block.address)
    other = allocator.malloc(4 * MIB)
    assert other is not None
    assert other.address != block.address
    allocator.free(other.address)
    allocator.empty_cache()
    assert allocator.reserved_bytes == 20 * MIB
    for pool in allocator.private["1,0"]:
        pool.use_count = 0
    allocator.empty_cache()
    assert allocator.reserved_bytes == 0


def test_a_flush_does_not_search_the_pools_again() -> None:
    # torch's issue 189504: the flush completes a free that would fit, and the request fails all the same.
    allocator = new(Settings(), 40 * MIB)
    first, second = allocator.malloc(10 * MIB), allocator.malloc(9 * MIB)
    third = allocator.malloc(5 * MIB)
    assert first is not None
    assert second is not None
    assert third is not None
    allocator.request_free(second.address)
    assert allocator.malloc(9 * MIB) is None
    assert (allocator.num_alloc_retries, allocator.num_ooms) == (1, 1)
    assert allocator.malloc(9 * MIB) is not None


def test_a_large_block_may_exceed_a_large_request_by_less_than_the_rounding() -> None:
    for excess, is_taken in ((30 * MIB, False), (28 * MIB, True)):
        allocator = new(parse_settings("max_split_size_mb:24,max_non_split_rounding_mb:30"), 4096 * MIB)
        block = allocator.malloc(32 * MIB + excess)
        assert block is not None
        allocator.free(block.address)
        again = allocator.malloc(32 * MIB)
        assert again is not None
        assert (again.address == block.address) == is_taken
