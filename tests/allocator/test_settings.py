"""Allocator settings: read, refused and printed as torch does. Where torch is at hand, torch itself is asked."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.allocator.settings import MIB, UNLIMITED, Settings, parse_settings, print_settings, settings_of_snapshot
from memtrace.errors import MemtraceError

TAKEN = (
    "",
    "max_split_size_mb:20",
    "max_split_size_mb:64x",
    " max_split_size_mb : 64 , expandable_segments : True",
    "max_split_size_mb:64,",
    "garbage_collection_threshold:0.8",
    "garbage_collection_threshold:.5",
    "roundup_power2_divisions:4",
    "roundup_power2_divisions:[256:1,512:2,1024:4,>:8]",
    "roundup_power2_divisions:[>:8]",
    "roundup_power2_divisions:[256:1,512:2,]",
    "roundup_power2_divisions:[]",
    "roundup_power2_divisions:[512:2,256:1]",
    "expandable_segments:False",
    "max_non_split_rounding_mb:30",
    "large_segment_size_mb:11",
    "pinned_use_background_threads:True",
)
REFUSED = (
    "max_split_size_mb:19",
    "max_split_size_mb:1.5",
    "max_split_size_mb:x",
    "max_split_size_mb",
    "max_split_size_mb:64,,",
    "garbage_collection_threshold:0",
    "garbage_collection_threshold:1.0",
    "roundup_power2_divisions:0",
    "roundup_power2_divisions:3",
    "roundup_power2_divisions:[3:4]",
    "roundup_power2_divisions:[4:3]",
    "expandable_segments:true",
    "expandable_segments",
    "large_segment_size_mb:10",
    "large_segment_size_mb:40,max_split_size_mb:30",
    "max_non_split_rounding_mb:19",
)
ASK_TORCH = """
import json, sys, torch
answers = []
for text in json.loads(sys.argv[1]):
    torch._C._accelerator_setAllocatorSettings("large_segment_size_mb:20")
    try:
        torch._C._accelerator_setAllocatorSettings(text)
        answers.append(True)
    except Exception:
        answers.append(False)
print(json.dumps(answers))
"""


def is_taken(text: str) -> bool:
    try:
        parse_settings(text)
    except MemtraceError:
        return False
    return True


@pytest.mark.parametrize("text", TAKEN)
def test_taken(text: str) -> None:
    assert is_taken(text)


@pytest.mark.parametrize("text", [*REFUSED, "nonsense:1", "backend:other", "per_process_memory_fraction:1.5"])
def test_refused(text: str) -> None:
    with pytest.raises(MemtraceError) as caught:
        parse_settings(text)
    assert repr(text) in caught.value.message


def test_torch_takes_and_refuses_the_same() -> None:
    torch = pytest.importorskip("torch")
    if not hasattr(torch._C, "_accelerator_setAllocatorSettings"):
        pytest.skip("this torch has no settings of an accelerator to ask")
    # In a process of its own: settings are global and cannot be taken back.
    command = [sys.executable, "-c", ASK_TORCH, json.dumps([*TAKEN, *REFUSED])]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [True] * len(TAKEN) + [False] * len(REFUSED)


def test_values() -> None:
    read = parse_settings("max_split_size_mb:64,roundup_power2_divisions:[4:2,16:4,>:8],expandable_segments:True")
    assert read.max_split_size == 64 * MIB
    assert read.roundup_power2_divisions == (2, 2, 2, 0) + (8,) * 12
    assert read.expandable_segments
    assert Settings().max_split_size == UNLIMITED


def test_the_rounding_of_unsplit_blocks_follows_the_size_of_large_segments() -> None:
    assert parse_settings("large_segment_size_mb:40").max_non_split_rounding == 40 * MIB
    assert parse_settings("max_non_split_rounding_mb:50,large_segment_size_mb:40").max_non_split_rounding == 50 * MIB


SETTINGS = st.builds(
    Settings,
    max_split_size=st.one_of(st.just(UNLIMITED), st.integers(50, 4096).map(lambda mb: mb * MIB)),
    max_non_split_rounding=st.integers(50, 200).map(lambda mb: mb * MIB),
    garbage_collection_threshold=st.sampled_from([0.0, 0.25, 0.8]),
    roundup_power2_divisions=st.lists(st.sampled_from([0, 1, 2, 4, 8]), min_size=16, max_size=16).map(tuple),
    expandable_segments=st.booleans(),
    large_segment_size=st.integers(11, 50).map(lambda mb: mb * MIB),
    per_process_memory_fraction=st.sampled_from([0.5, 1.0]),
    throw_on_cudamalloc_oom=st.booleans(),
    backend=st.sampled_from(["native", "cudaMallocAsync"]),
)


@given(SETTINGS)
def test_what_is_printed_reads_as_it_was(settings: Settings) -> None:
    assert parse_settings(print_settings(settings)) == settings


def test_a_snapshot_tells_its_settings() -> None:
    facts = {
        "PYTORCH_CUDA_ALLOC_CONF": "large_segment_size_mb:24,of_a_newer_torch:1,max_split_size_mb:64",
        "max_split_size": 64 * MIB,
        "expandable_segments": True,
        "garbage_collection_threshold": 0.0,
        "roundup_power2_divisions": {str(1 << at): (2 if at > 3 else 0) for at in range(16)},
    }
    read = settings_of_snapshot(facts)
    assert (read.max_split_size, read.large_segment_size) == (64 * MIB, 24 * MIB)
    assert read.expandable_segments
    assert read.roundup_power2_divisions == (0, 0, 0, 0) + (2,) * 12
    assert settings_of_snapshot({"max_split_size": -1}) == Settings()
