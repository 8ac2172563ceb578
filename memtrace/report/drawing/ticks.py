"""Ticks of an axis of bytes: round numbers, in one unit. viewers/js/ticks.js draws those of charts that zoom."""

from __future__ import annotations


def byte_ticks(top_bytes: int, most: int) -> list[tuple[int, str]]:
    """Return values and texts from 0 up to `top_bytes`: multiples of a power of two, `most` steps at the most.

    >>> byte_ticks(4 * 1024**2, 4)
    [(0, '0'), (1048576, '1 MiB'), (2097152, '2 MiB'), (3145728, '3 MiB'), (4194304, '4 MiB')]
    >>> byte_ticks(44_800_000, 4)[-1]
    (33554432, '32 MiB')
    """
    step = 1
    while step * most < top_bytes:
        step *= 2
    values = [multiple * step for multiple in range(top_bytes // step + 1)]
    power = max((power for power in range(6) if values[-1] >= 1024**power), default=0)
    # One unit for the axis, and no more than two decimals: below that the smaller unit reads better.
    while power and (step * 4) % 1024**power:
        power -= 1
    unit = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")[power]
    return [(value, f"{value / 1024**power:g} {unit}" if value else "0") for value in values]
