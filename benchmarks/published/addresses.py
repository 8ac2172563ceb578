"""What the same requests reserve where the driver gives addresses from above.

Before torch 2.12 the allocator took, of equal blocks, that of the lowest address, and which that is the driver decides:
the stand-ins and the model give segments ascending addresses, a real driver need not.
"""

from __future__ import annotations

from memtrace.allocator.blocks import Device
from memtrace.allocator.model import Allocator
from memtrace.allocator.settings import settings_of_snapshot
from memtrace.schema.names import Action
from memtrace.store.trace import RankTrace


class Descending(Device):
    """A device that gives each segment the addresses below those of the one before."""

    def malloc(self, size: int) -> int | None:
        """Return the address of a new segment, `None` above the capacity."""
        if not self.map(0, size):
            return None
        self._next -= size
        return self._next


def reserved_from(device: Device, rank: RankTrace) -> int:
    """Return the most that the requests of a rank reserve on a device, under the settings that its trace names."""
    settings = settings_of_snapshot(rank.header.get("allocator_settings") or {}, rank.header.get("environment"))
    allocator = Allocator(settings, device)
    events = rank.table("events")
    asked, freed = (rank.string_id(one.value) for one in (Action.ALLOC, Action.FREE_REQUESTED))
    held: dict[int, int] = {}
    most = 0
    for action, address, size in zip(
        *(events[name].tolist() for name in ("action", "address", "size_bytes")), strict=True
    ):
        if action == asked and size:
            block = allocator.malloc(size)
            assert block is not None, "the device is without end"
            held[address], most = block.address, max(most, allocator.reserved_bytes)
        elif action == freed and address in held:
            allocator.free(held.pop(address))
    return most
