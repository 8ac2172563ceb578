"""What a failed prediction tells about a block that was in use before the history: how large its remainder is.

A remainder of up to 1 MiB that was not split off belongs to its block (torch's rule for the large pool). It shows in
two ways: an alloc starts behind it, inside what the model takes for free; or a free block that is shorter than the
model takes it for is passed over.
"""

from __future__ import annotations

from memtrace.allocator.blocks import FREE, Block
from memtrace.allocator.initial import Initial, InitialBlock
from memtrace.allocator.model import Allocator
from memtrace.allocator.sizes import MIN_BLOCK


def infer_slack(allocator: Allocator, initial: Initial, size: int, predicted: int | None, recorded: int) -> bool:
    """Set the remainder that explains why an alloc of this size is at `recorded` and not at `predicted`.

    Return whether there is one. Affects: `initial.extra`, and the model, whose block becomes that much larger.
    """
    for block in _open_blocks(initial):
        live = allocator.live.get(block.address)
        behind = None if live is None else live.next
        if live is None or behind is None or behind.state != FREE or live.requested != block.requested:
            continue
        if (
            behind.address < recorded <= behind.address + block.slack
            and recorded + size <= behind.address + behind.size
        ):
            return _set(allocator, initial, block, live, recorded - behind.address)
        if behind.address == predicted:
            # It was passed over, so it is shorter than the request.
            least = behind.size - size + MIN_BLOCK
            if 0 < least <= block.slack:
                return _set(allocator, initial, block, live, least)
    return False


def _open_blocks(initial: Initial) -> list[InitialBlock]:
    return [one for used in initial.blocks for one in used if one.slack and one.address not in initial.extra]


def _set(allocator: Allocator, initial: Initial, block: InitialBlock, live: Block, extra: int) -> bool:
    initial.extra[block.address] = extra
    behind = live.next
    assert behind is not None
    behind.pool.remove(behind)
    live.size += extra
    behind.address += extra
    behind.size -= extra
    behind.pool.insert(behind)
    allocator.active_bytes += extra
    allocator.allocated_bytes += extra
    return True
