"""The memory of the fake device: one allocation a storage, freed when torch frees it, with the bytes of the storage."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.fake.events.storages import CUDA, HOST, PLAIN, FakeMemory  # noqa: E402

BLOCK = 512


def meta(count: int) -> torch.Tensor:
    return torch.empty(count, device="meta")


@pytest.fixture
def memory() -> FakeMemory:
    memory = FakeMemory(with_stacks=False)
    memory.start()
    return memory


def sizes(memory: FakeMemory) -> list[int]:
    """Return what was allocated and freed (negative) since the last look."""
    batch = memory.stop()
    memory.start()
    if not batch.columns:
        return []
    alloc = batch.strings.id_of("alloc")
    pairs = zip(batch.columns["action"], batch.columns["size_bytes"], strict=True)
    return [size if action == alloc else -size for action, size in pairs]


def test_a_storage_is_allocated_once_and_freed_with_its_last_view(memory: FakeMemory) -> None:
    whole = meta(100)
    memory.adopt(whole, CUDA)
    view = whole[10:20]
    memory.adopt(view, CUDA)
    assert sizes(memory) == [400]
    del whole
    assert sizes(memory) == []
    assert memory.kind_of(view) == CUDA
    del view
    assert sizes(memory) == [-400]
    assert memory.allocated_bytes == 0


def test_only_the_device_has_memory(memory: FakeMemory) -> None:
    host, plain, empty = meta(3), meta(3), meta(0)
    memory.adopt(host, HOST)
    memory.adopt(plain, PLAIN)
    memory.adopt(empty, CUDA)
    assert sizes(memory) == []
    assert (memory.kind_of(host), memory.kind_of(plain)) == (HOST, PLAIN)
    assert memory.kind_of(torch.ones(3)) is None
    # A meta tensor that nobody took note of was made in C++ for the device.
    assert memory.kind_of(meta(3)) == CUDA
    assert memory.address_of(host.untyped_storage()) == 0


def test_addresses_are_used_once(memory: FakeMemory) -> None:
    seen = set()
    for _ in range(3):
        one = meta(10)
        memory.adopt(one, CUDA)
        seen.add(memory.address_of(one.untyped_storage()))
        del one
    assert len(seen) == 3
    assert 0 not in seen


def test_levels_count_whole_blocks(memory: FakeMemory) -> None:
    small, larger = meta(1), meta(BLOCK // 4 + 1)
    memory.adopt(small, CUDA)
    memory.adopt(larger, CUDA)
    assert memory.allocated_bytes == BLOCK + 2 * BLOCK
    del larger
    assert (memory.allocated_bytes, memory.peak_bytes) == (BLOCK, 3 * BLOCK)


def test_scratch_memory_comes_and_goes_and_a_workspace_stays(memory: FakeMemory) -> None:
    memory.temporary(1000)
    memory.workspace(3000)
    memory.workspace(0)
    assert sizes(memory) == [1000, -1000, 3000]


def test_a_storage_that_is_resized_is_another_allocation(memory: FakeMemory) -> None:
    one = meta(100)
    memory.adopt(one, CUDA)
    storage = one.untyped_storage()
    before = memory.address_of(storage)
    storage.resize_(0)
    memory.resized(storage)
    assert sizes(memory) == [400, -400]
    assert memory.address_of(storage) == 0
    storage.resize_(800)
    memory.resized(storage)
    memory.resized(storage)
    assert sizes(memory) == [800]
    assert memory.address_of(storage) != before


def test_what_was_there_before_the_events_is_told(memory: FakeMemory) -> None:
    kept, later = meta(100), meta(10)
    memory.stop()
    memory.adopt(kept, CUDA)
    memory.start()
    memory.adopt(later, CUDA)
    batch = memory.stop()
    assert batch.initial_bytes == 400
    assert batch.columns["size_bytes"] == (40,)
