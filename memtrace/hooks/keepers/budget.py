"""A share of the time that passes: what costs milliseconds is done as often as that allows."""

from __future__ import annotations


class Budget:
    """Time that may be spent: some at once, and of what passes a share."""

    def __init__(self, *, at_once_ns: int, share: float, now_ns: int) -> None:
        self._left_ns = float(at_once_ns)
        self._most_ns = float(at_once_ns)
        self._share = share
        self._last_ns = now_ns

    def allows(self, now_ns: int) -> bool:
        """Return whether there is any left, having counted the time since this was last asked."""
        self._left_ns = min(self._most_ns, self._left_ns + self._share * max(now_ns - self._last_ns, 0))
        self._last_ns = now_ns
        return self._left_ns > 0

    def spend(self, spent_ns: int) -> None:
        """Take off what was spent; it may become a debt."""
        self._left_ns -= spent_ns

    def refill(self) -> None:
        """Let it be as at the beginning: what was spent has paid."""
        self._left_ns = self._most_ns
