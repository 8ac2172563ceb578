"""What the program's own memory profile sees while the allocator knows every block because of a recording."""

from __future__ import annotations

import platform

import pytest
import torch

from memtrace.hooks.sources.cpu_profiler import CpuSource
from memtrace.schema.names import Action

pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="the table's layout is known on Linux x86-64"
)


def some(num_bytes: int) -> torch.Tensor:
    """Return a block of its own."""
    return torch.empty(num_bytes, dtype=torch.uint8)


def seen_by(profile: torch.profiler.profile) -> list[int]:
    """Return the sizes that a profile of the program tells of."""
    return [size for event in profile.events() if (size := event.self_cpu_memory_usage)]


def test_a_program_sees_what_it_would_and_the_recording_goes_on() -> None:
    source = CpuSource(torch, stacks="none", profile=False, warn=lambda slug, message: None)
    held, kept = [some(40_001)], some(50_001)
    source.start(frames=False)
    first = some(10_001)
    total = source.stop().columns["total_bytes"][-1]

    for known_before in (0, 30_001):
        source.hide_blocks()
        with torch.profiler.profile(profile_memory=True) as profile:
            held.clear()
            new = some(20_001)
        source.show_blocks()
        # What its profile before saw it knows.
        assert seen_by(profile) == ([20_001] if not known_before else [-known_before, 20_001])
        total += 20_001 - (known_before or 40_001)

        source.hide_blocks()
        with torch.profiler.profile(profile_memory=True) as profile:
            held.append(some(30_001))
            del new
        source.show_blocks()
        assert seen_by(profile) == [30_001, -20_001]
        total += 30_001 - 20_001

    source.start(frames=False)
    del kept
    batch = source.stop()
    (free,) = batch.columns["size_bytes"]
    assert free == 50_001
    assert batch.strings.id_of(Action.FREE_COMPLETED) in batch.columns["action"]
    assert batch.columns["total_bytes"] == [total - 50_001]
    assert len(first) == 10_001
