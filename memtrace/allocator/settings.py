"""The settings of the caching allocator: PYTORCH_ALLOC_CONF read, checked and printed as torch does.

In: the text of the variable, or what a snapshot says about the settings. Out: `Settings`, sizes in bytes.

The grammar, the limits and their wording follow torch's `c10/core/AllocatorConfig` and `c10/cuda/CUDAAllocatorConfig`
(2.10 to 2.13; a test compares this parser with torch's own): tokens end at "," ":" "[" "]", white space is dropped, a
later setting wins, and what a list of divisions does not mention keeps its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from memtrace.errors import MemtraceError

MIB = 1 << 20
UNLIMITED = 2**64 - 1
"""torch's value of `max_split_size` when it is not set (SIZE_MAX), in bytes."""

LOWEST_ADDRESS = "lowest address"
"""Of equal blocks, that of the lowest address is taken: before torch 2.12."""
OLDEST_BLOCK = "oldest block"
"""Of equal blocks, the one that was made first, a split making a new one of its front: torch 2.12."""
OLDEST_SEGMENT = "oldest segment"
"""Of equal blocks, that in the segment that was made first: since torch 2.13."""

NUM_DIVISIONS = 16
"""Entries of `roundup_power2_divisions`: for sizes from 1 MiB, 2 MiB … 32 GiB on."""

_DEFAULT_LARGE_SEGMENT = 20 * MIB
_NO_DIVISIONS = (0,) * NUM_DIVISIONS

_IGNORED = {
    "pinned_use_cuda_host_register": "bool",
    "pinned_use_hip_host_register": "bool",
    "pinned_use_background_threads": "bool",
    "pinned_num_register_threads": "number",
    "pinned_reserve_segment_size_mb": "number",
    "pinned_free_catch_all": "bool",
    "pinned_max_round_threshold_mb": "number",
    "pinned_max_cached_size_mb": "number",
    "release_lock_on_cudamalloc": "bool",
    "release_lock_on_hipmalloc": "bool",
    "graph_capture_record_stream_reuse": "bool",
}
"""Settings that torch takes and that do not change which device memory an allocation gets, and what they take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides how the caching allocator behaves. The defaults are torch's."""

    max_split_size: int = UNLIMITED
    """Bytes from which a block is never split, nor given to smaller requests."""
    max_non_split_rounding: int = _DEFAULT_LARGE_SEGMENT
    """Bytes by which a block may exceed a request of at least `max_split_size`."""
    garbage_collection_threshold: float = 0.0
    """Share of the memory limit above which unused segments are freed before new ones are made; 0 is off."""
    roundup_power2_divisions: tuple[int, ...] = _NO_DIVISIONS
    """Divisions between powers of two, to which sizes of each interval are rounded; 0 or 1 is off."""
    expandable_segments: bool = False
    """Whether segments grow by mapping memory."""
    large_segment_size: int = _DEFAULT_LARGE_SEGMENT
    """Bytes of a segment for requests above 1 MiB and below 10 MiB (fixed at 20 MiB before torch 2.11)."""
    per_process_memory_fraction: float = 1.0
    """Share of the device that may be reserved; 1 is no limit."""
    throw_on_cudamalloc_oom: bool = False
    """Whether a request above the memory limit fails at once, without freeing anything (torch 2.12)."""
    backend: str = "native"
    """`native`, or `cudaMallocAsync`, which has none of this and cannot be replayed."""

    equal_sizes: str = field(default=LOWEST_ADDRESS, compare=False)
    """Which of free blocks of one size is taken: no setting, but told by the version of torch."""

    def __str__(self) -> str:
        return print_settings(self)


class _Tokens:
    """The words of a setting text, and a position in them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = _words(text)
        self.at = 0

    def __bool__(self) -> bool:
        return self.at < len(self.words)

    def next(self) -> str:
        """Return the next word and step over it."""
        if not self:
            raise self.error("it ends too early")
        self.at += 1
        return self.words[self.at - 1]

    def peek(self) -> str | None:
        """Return the next word without stepping over it."""
        return self.words[self.at] if self else None

    def skip(self, expected: str) -> None:
        """Step over a word that must be there."""
        word = self.next()
        if word != expected:
            raise self.error(f"{expected!r} expected, not {word!r}")

    def error(self, problem: str) -> MemtraceError:
        """Return the error that names the text."""
        return MemtraceError(
            f"allocator settings {self.text!r}: {problem}",
            hint="write them as for PYTORCH_ALLOC_CONF, as in expandable_segments:True,max_split_size_mb:128",
            slug="alloc-conf",
        )


def _words(text: str) -> list[str]:
    words, word = [], ""
    for char in text:
        if char in ",:[]":
            words += [word, char] if word else [char]
            word = ""
        elif not char.isspace():
            word += char
    return [*words, word] if word else words


def parse_settings(text: str, *, base: Settings | None = None) -> Settings:
    """Return the settings that a text for PYTORCH_ALLOC_CONF means; what it does not name is as in `base`.

    >>> parse_settings("max_split_size_mb:64, expandable_segments:True").max_split_size == 64 * MIB
    True

    Raises:
        MemtraceError: torch would refuse the text.
    """
    settings, tokens = base or Settings(), _Tokens(text)
    non_split_is_set = False
    while tokens:
        key = tokens.next()
        tokens.skip(":")
        reader = _READERS.get(key)
        if reader is not None:
            settings = reader(tokens, settings)
        elif key in _IGNORED:
            _ignored(tokens, key)
        else:
            raise tokens.error(f"unknown setting {key!r}")
        non_split_is_set |= key == "max_non_split_rounding_mb"
        if key == "large_segment_size_mb" and not non_split_is_set:
            # Its default follows the size of large segments (torch 2.11).
            settings = replace(settings, max_non_split_rounding=settings.large_segment_size)
        if tokens:
            tokens.skip(",")
    return settings


def _whole(tokens: _Tokens) -> int:
    """Return a number as C++ reads it: leading digits count, what follows them does not."""
    word = tokens.next()
    digits = word[: len(word) - len(word.lstrip("0123456789"))]
    if not digits:
        raise tokens.error(f"a whole number expected, not {word!r}")
    return int(digits)


def _flag(tokens: _Tokens) -> bool:
    word = tokens.next()
    if word not in ("True", "False"):
        raise tokens.error(f"True or False expected, not {word!r}")
    return word == "True"


def _share(tokens: _Tokens) -> float:
    word = tokens.next()
    try:
        return float(word)
    except ValueError:
        raise tokens.error(f"a number expected, not {word!r}") from None


def _size_mb(tokens: _Tokens, settings: Settings) -> int:
    """Return a size given in MiB that may not be below that of a large segment."""
    megabytes, least = _whole(tokens), settings.large_segment_size // MIB
    if megabytes < least:
        raise tokens.error(f"{megabytes} is too small: at least {least}")
    return min(megabytes, UNLIMITED // MIB) * MIB


def _max_split(tokens: _Tokens, settings: Settings) -> Settings:
    return replace(settings, max_split_size=_size_mb(tokens, settings))


def _max_non_split(tokens: _Tokens, settings: Settings) -> Settings:
    return replace(settings, max_non_split_rounding=_size_mb(tokens, settings))


def _large_segment(tokens: _Tokens, settings: Settings) -> Settings:
    megabytes = _whole(tokens)
    if megabytes <= 10:
        raise tokens.error("large_segment_size_mb must be above 10")
    return replace(settings, large_segment_size=megabytes * MIB)


def _collection(tokens: _Tokens, settings: Settings) -> Settings:
    value = _share(tokens)
    if not 0 < value < 1:
        raise tokens.error("garbage_collection_threshold must be above 0 and below 1")
    return replace(settings, garbage_collection_threshold=value)


def _fraction(tokens: _Tokens, settings: Settings) -> Settings:
    value = _share(tokens)
    if not 0 <= value <= 1:
        raise tokens.error("per_process_memory_fraction must be from 0 to 1")
    return replace(settings, per_process_memory_fraction=value)


def _expandable(tokens: _Tokens, settings: Settings) -> Settings:
    return replace(settings, expandable_segments=_flag(tokens))


def _throw(tokens: _Tokens, settings: Settings) -> Settings:
    return replace(settings, throw_on_cudamalloc_oom=_flag(tokens))


def _backend(tokens: _Tokens, settings: Settings) -> Settings:
    name = tokens.next()
    if name not in ("native", "cudaMallocAsync", "hipMallocAsync"):
        raise tokens.error(f"unknown backend {name!r}: native or cudaMallocAsync")
    return replace(settings, backend=name)


def _divisions(tokens: _Tokens, settings: Settings) -> Settings:
    if tokens.peek() != "[":
        value = _whole(tokens)
        if not _is_power_of_two(value):
            raise tokens.error("roundup_power2_divisions must be a power of 2")
        return replace(settings, roundup_power2_divisions=(value,) * NUM_DIVISIONS)
    tokens.next()
    return replace(settings, roundup_power2_divisions=_division_list(tokens, list(settings.roundup_power2_divisions)))


def _division_list(tokens: _Tokens, divisions: list[int]) -> tuple[int, ...]:
    """Return the divisions after a list: the first interval fills all below it, ">" all from the last one on."""
    is_first, last = True, 0
    while tokens.peek() != "]":
        start = tokens.peek()
        megabytes = 0 if start == ">" and tokens.next() else _whole(tokens)
        tokens.skip(":")
        value = _whole(tokens)
        if value and not _is_power_of_two(value):
            raise tokens.error("divisions must be powers of 2, or 0")
        if start == ">":
            divisions[last:] = [value] * (NUM_DIVISIONS - last)
        else:
            if not _is_power_of_two(megabytes):
                raise tokens.error("intervals of roundup_power2_divisions must be powers of 2")
            last = min(megabytes.bit_length() - 1, NUM_DIVISIONS - 1)
            if is_first:
                divisions[:last] = [value] * last
                is_first = False
            divisions[last] = value
        if tokens.peek() != "]":
            tokens.skip(",")
    tokens.next()
    return tuple(divisions)


def _ignored(tokens: _Tokens, key: str) -> None:
    """Step over a value that changes nothing here, but refuse what torch refuses."""
    if _IGNORED[key] == "bool":
        _flag(tokens)
        return
    value = _whole(tokens)
    if key == "pinned_num_register_threads" and not (_is_power_of_two(value) and value <= 128):
        raise tokens.error("pinned_num_register_threads must be a power of 2 up to 128")


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


_READERS = {
    "max_split_size_mb": _max_split,
    "max_non_split_rounding_mb": _max_non_split,
    "garbage_collection_threshold": _collection,
    "roundup_power2_divisions": _divisions,
    "expandable_segments": _expandable,
    "large_segment_size_mb": _large_segment,
    "per_process_memory_fraction": _fraction,
    "throw_on_cudamalloc_oom": _throw,
    "backend": _backend,
}


def print_settings(settings: Settings) -> str:
    """Return the text for PYTORCH_ALLOC_CONF that means these settings; empty for torch's defaults.

    >>> print_settings(parse_settings("roundup_power2_divisions:[256:1,>:4],expandable_segments:True"))
    'roundup_power2_divisions:[1:1,2:1,4:1,8:1,16:1,32:1,64:1,128:1,256:4,>:4],expandable_segments:True'
    """
    default, parts = Settings(), []
    if settings.backend != default.backend:
        parts.append(f"backend:{settings.backend}")
    # The size of large segments comes first: it is the lower limit of the other two sizes.
    for name in ("large_segment_size", "max_split_size", "max_non_split_rounding"):
        value, usual = getattr(settings, name), getattr(default, name)
        if name == "max_non_split_rounding":
            usual = settings.large_segment_size
        if value != usual:
            parts.append(f"{name}_mb:{value // MIB}")
    for name in ("garbage_collection_threshold", "per_process_memory_fraction"):
        if getattr(settings, name) != getattr(default, name):
            parts.append(f"{name}:{getattr(settings, name)}")
    if settings.roundup_power2_divisions != default.roundup_power2_divisions:
        parts.append(f"roundup_power2_divisions:{_print_divisions(settings.roundup_power2_divisions)}")
    parts += [f"{name}:True" for name in ("expandable_segments", "throw_on_cudamalloc_oom") if getattr(settings, name)]
    return ",".join(parts)


def _print_divisions(divisions: tuple[int, ...]) -> str:
    """Return divisions as a list that ends in one value for all larger sizes."""
    last = max((at for at in range(1, NUM_DIVISIONS) if divisions[at] != divisions[at - 1]), default=0)
    return "[" + ",".join([f"{1 << at}:{divisions[at]}" for at in range(last + 1)] + [f">:{divisions[-1]}"]) + "]"


def order_of(torch_version: str | None) -> str:
    """Return which of free blocks of one size a version of torch takes; where it is not known, as torch long did.

    >>> order_of("2.6.0+cu124"), order_of("2.12.1"), order_of("2.13.0"), order_of(None)
    ('lowest address', 'oldest block', 'oldest segment', 'lowest address')
    """
    numbers = re.match(r"(\d+)\.(\d+)", torch_version or "")
    release = (0, 0) if numbers is None else (int(numbers[1]), int(numbers[2]))
    if release >= (2, 13):
        return OLDEST_SEGMENT
    return OLDEST_BLOCK if release >= (2, 12) else LOWEST_ADDRESS


def settings_of_snapshot(facts: Mapping[str, Any], environment: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings under which a trace was recorded: what torch reported, and its text for what it does not.

    `facts` is the header field allocator_settings, `environment` the header field of that name. A text that cannot be
    read leaves the defaults: torch took it, so a newer torch wrote it.
    """
    text = facts.get("PYTORCH_CUDA_ALLOC_CONF")
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        text = text or (environment or {}).get(name)
    settings = Settings()
    if isinstance(text, str):
        for one in _settings_of(text):
            try:
                settings = parse_settings(one, base=settings)
            except MemtraceError:
                continue
    return replace(settings, **_reported(facts))


def _settings_of(text: str) -> list[str]:
    """Return the single settings of a text; commas in lists do not part them."""
    parts, depth = [""], 0
    for char in text:
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part for part in parts if part.strip()]


def _reported(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what torch itself reported, by the name of our field. An unlimited split size is reported as -1."""
    found = {one.name: facts[one.name] for one in fields(Settings) if isinstance(facts.get(one.name), (int, float))}
    if found.get("max_split_size") == -1:
        found["max_split_size"] = UNLIMITED
    if facts.get("equal_sizes") in (LOWEST_ADDRESS, OLDEST_BLOCK, OLDEST_SEGMENT):
        found["equal_sizes"] = facts["equal_sizes"]
    elif facts.get("events_name_pool"):
        # Both came with the version of torch that changed the order: 2.12 and 2.13.
        found["equal_sizes"] = OLDEST_SEGMENT if "max_round_threshold" in facts else OLDEST_BLOCK
    divisions = facts.get("roundup_power2_divisions")
    if isinstance(divisions, Mapping) and all(str(key).isdigit() for key in divisions):
        by_start = {int(key): value for key, value in divisions.items() if isinstance(value, int)}
        if len(by_start) == NUM_DIVISIONS:
            found["roundup_power2_divisions"] = tuple(by_start[start] for start in sorted(by_start))
    return found
