"""How long a replay may look for what it did not predict, before the proof is given up.

An event that contradicts the model, and that no unknown remainder explains, costs what hundreds of blocks cost to look
at, and two looks at the free blocks: one of them holds the recorded address. All such events together may cost as much
as looking at one block for each event of the history, which takes a small part of the time in which that event is
replayed. So a history that contradicts the model takes little longer than one that does not, whatever it holds. What
an unknown remainder explains is not counted: that happens once for each block that may have one.
"""

from __future__ import annotations

LEAST_BLOCKS = 4_000_000
"""What looking may cost in any history, however short: some tenths of a second."""
EACH = 200
"""What a contradiction costs beside looking at blocks."""


class GivenUpError(Exception):
    """The history contradicts the model too often for a proof."""


class Effort:
    """What looking has cost over all passes of a replay, in blocks that were looked at."""

    def __init__(self, num_events: int) -> None:
        self._left = max(num_events, LEAST_BLOCKS)

    def look_at(self, num_blocks: int) -> None:
        """Count an event that nothing explains, while there are so many free blocks.

        Raises:
            GivenUpError: it is one too many.
        """
        self._left -= EACH + 2 * num_blocks
        if self._left < 0:
            raise GivenUpError
