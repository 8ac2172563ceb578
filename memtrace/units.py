"""Bytes and times for people. The only place where KiB, MiB and GiB exist; everywhere else bytes are ints."""

from __future__ import annotations

import re

from memtrace.errors import MemtraceError

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_BYTE_FACTORS = {
    "": 1,
    "b": 1,
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
}
MAX_BYTES = 2**50
"""Below what a size is, of one block or of a device: a pebibyte. Sums of many still fit 64 bits."""
_LIKELY_UNITS = 100_000
"""A number below was meant as GiB or MiB; a larger one is of bytes."""
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def format_bytes(num_bytes: int | None) -> str:
    """Return bytes in binary units with at least three significant digits; `None` is "not recorded".

    >>> format_bytes(0), format_bytes(1536), format_bytes(90_800_000), format_bytes(-2048), format_bytes(None)
    ('0 B', '1.50 KiB', '86.6 MiB', '-2.00 KiB', 'not recorded')
    """
    if num_bytes is None:
        return "not recorded"
    sign, value, unit = ("-" if num_bytes < 0 else ""), float(abs(num_bytes)), 0
    # 1023.95 of a unit would round to "1024.0": move on before that.
    while value >= 1023.5 and unit < len(_BYTE_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    if unit == 0:
        return f"{sign}{int(value)} B"
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{sign}{value:.{digits}f} {_BYTE_UNITS[unit]}"


def format_ns(duration_ns: int | None) -> str:
    """Return a duration in the unit that reads best; `None` is "not recorded".

    >>> format_ns(950), format_ns(12_300), format_ns(999_900_000), format_ns(7_890_000_000), format_ns(90 * 10**9)
    ('950 ns', '12.3 µs', '1.00 s', '7.89 s', '1 min 30 s')
    """
    if duration_ns is None:
        return "not recorded"
    if duration_ns >= 60 * 10**9:
        minutes, seconds = divmod(round(duration_ns / 10**9), 60)
        return f"{minutes} min {seconds} s"
    for factor, unit in ((10**9, "s"), (10**6, "ms"), (10**3, "µs")):
        # 999.5 and more of the smaller unit would round to 1000 of it.
        if duration_ns >= factor * 0.9995:
            value = duration_ns / factor
            return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {unit}"
    return f"{duration_ns} ns"


def parse_bytes(text: str) -> int:
    """Return the bytes that a size such as "24GiB", "80 GB" or "1048576" means.

    >>> parse_bytes("24GiB"), parse_bytes("1.5 MB"), parse_bytes("512")
    (25769803776, 1500000, 512)

    Raises:
        MemtraceError: the text is not a number with an optional unit, or beyond what any machine has.
    """
    match = _SIZE.fullmatch(text)
    factor = _BYTE_FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise MemtraceError(f"not a size: {text[:40]!r}", hint="write a number and a unit, as in 24GiB or 80GB")
    num_bytes = float(match[1]) * factor
    if num_bytes >= MAX_BYTES:
        raise MemtraceError(f"not a size: {text[:40]!r} is more than any machine has", hint="write it as in 24GiB")
    return int(num_bytes + 0.5)


def parse_size(text: str) -> int:
    """Return the bytes that a size means which somebody typed: with a unit, since 80 would be eighty bytes.

    >>> parse_size("80GiB") == 80 * 1024**3, parse_size("512B")
    (True, 512)

    Raises:
        MemtraceError: as `parse_bytes`, or there is no unit, or nothing is left of it.
    """
    match = _SIZE.fullmatch(text)
    if match is not None and not match[2]:
        meant = f"{match[1]}GiB or {match[1]}MiB" if float(match[1]) < _LIKELY_UNITS else "80GiB"
        hint = f"write the unit, as in {meant}; {match[1]}B are bytes"
        raise MemtraceError(f"a size without a unit: {text[:40]!r}", hint=hint)
    num_bytes = parse_bytes(text)
    if num_bytes < 1:
        raise MemtraceError("a size of 0 holds nothing", hint="write it as in 24GiB")
    return num_bytes
