"""Opening files of unknown origin: what they are by their first bytes, and no more memory than they can justify."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

import orjson

from memtrace.errors import TraceReadError
from memtrace.printable import escaped
from memtrace.store.opening import NotRegularError, open_regular

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and how much there is (bytes or files), if that is known."""

_GZIP_MAGIC = b"\x1f\x8b"
_OTHER_COMPRESSIONS = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2"}
"""First bytes, and what made them; the first begins like an old pickle."""
_HEAD_BYTES = 4096
"""Enough to tell what a file is."""
_PIECE_BYTES = 1 << 20
_MEMBER_BYTES = 1 << 14
"""Compressed bytes given to the decompressor at a time."""
_EXPANSION_FLOOR_BYTES = 256 << 20
"""A compressed file may always grow to this."""
_EXPANSION_FACTOR = 100
"""And to this multiple of its own size: columns of a trace shrink by 5 to 40, gzip's limit is 1030."""
_MEMORY_SHARE = 4
"""One part in so many of the memory that is free may be one file's bytes; parsed they take several times as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """One file: its bytes, decompressed, or where to stream them from."""

    where: str
    """What messages call it."""
    kind: str
    """pickle or json."""
    content: bytes | None
    """The whole content; `None` for a local pickle that was not compressed, which is read from the file."""
    size_bytes: int
    """Bytes of the content."""


def open_file(path: Path, *, where: str | None = None, progress: Progress | None = None) -> Opened:
    """Return what a file holds, decompressed if need be; `where` is what messages call it, by default its path.

    Raises:
        TraceReadError: missing, empty, truncated, of a wrong kind, or too large.
    """
    where = where or str(path)
    try:
        with open_regular(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            head = file.read(_HEAD_BYTES)
            if not head.startswith(_GZIP_MAGIC) and _kind(head, where) == "pickle":
                return Opened(where=where, kind="pickle", content=None, size_bytes=size_bytes)
            return open_stream(file, where=where, size_bytes=size_bytes, progress=progress)
    except NotRegularError:
        raise TraceReadError(
            f"{where}: not a regular file", hint="copy it to a file first", slug="wrong-kind"
        ) from None
    except OSError as error:
        raise TraceReadError(f"{where}: {error.strerror or error}", hint=_hint_for_missing(path)) from None


def open_stream(file: IO[bytes], *, where: str, size_bytes: int, progress: Progress | None = None) -> Opened:
    """Return what a file of `size_bytes` holds, wherever it lies; of one of a wrong kind only the first bytes are read.

    Raises:
        TraceReadError: empty, truncated, of a wrong kind, or too large. OSError: it cannot be read.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    is_compressed = head.startswith(_GZIP_MAGIC)
    if not is_compressed:
        _kind(head, where)
    _check_memory(where, size_bytes)
    file.seek(0)
    content = file.read()
    if is_compressed:
        content = _decompressed(content, where, progress)
    return Opened(where=where, kind=_kind(content[:_HEAD_BYTES], where), content=content, size_bytes=len(content))


def parse_json(content: bytes, *, where: str) -> Any:
    """Return a parsed JSON document.

    Raises:
        TraceReadError: cut off, damaged, too deeply nested, or one that JSON does not allow (NaN).
    """
    try:
        return orjson.loads(content.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        line, _, _ = content.partition(b"\n")
        if b'"k"' in line and line.rstrip().endswith(b"}"):
            raise one_part(where) from None
        is_cut = error.pos >= len(content.rstrip()) - 1
        what = "the JSON is cut off" if is_cut else f"not valid JSON ({escaped(str(error))[:120]})"
        raise TraceReadError(
            f"{where}: {what}",
            hint="copy or record it again",
            slug="file-truncated" if is_cut else "file-damaged",
        ) from None


def one_part(where: str) -> TraceReadError:
    """Return the error for a single part, which is read as a folder."""
    return TraceReadError(f"{where}: one part of a recording", hint="name the folder of parts", slug="wrong-kind")


def _kind(head: bytes, where: str) -> str:
    """Return whether the first bytes begin a pickle or a JSON document."""
    if not head:
        raise TraceReadError(f"{where}: the file is empty", hint="record it again", slug="file-empty")
    for magic, name in _OTHER_COMPRESSIONS.items():
        if head.startswith(magic):
            hint = f"memtrace reads gzip only: decompress it with {name} -d"
            raise TraceReadError(f"{where}: {name}-compressed", hint=hint, slug="wrong-kind")
    # 0x80 and the protocol; or what a protocol 0 or 1 pickle of a dict or list begins with.
    if (head[0] == 0x80 and head[1:2] <= b"\x0a") or head[:1] in (b"(", b"}", b"]"):
        return "pickle"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"{", b"["):
        return "json"
    what = (
        "an archive, perhaps of torch.save" if head.startswith(b"PK") else "neither a trace, a snapshot nor a profile"
    )
    if head.startswith(_GZIP_MAGIC):
        what = "compressed twice"
    raise TraceReadError(
        f"{where}: {what if text else 'the file holds only blanks'}",
        hint="memtrace reads its own trace.json, memory snapshots (.pickle) and profiler traces (.json) of torch, "
        "and folders of them",
        slug="wrong-kind",
    )


def _decompressed(content: bytes, where: str, progress: Progress | None) -> bytes:
    """Return the content of a gzip file, refusing one that grows out of proportion."""
    limit = max(_EXPANSION_FLOOR_BYTES, _EXPANSION_FACTOR * len(content))
    limit = min(limit, _memory_limit_bytes() or limit)
    pieces: list[bytes] = []
    total, rest, at = 0, b"", 0
    try:
        while rest or at < len(content):
            if not rest:
                # Zeros between pieces are padding, as they are after a member.
                rest, at = content[at : at + _MEMBER_BYTES].lstrip(b"\0"), at + _MEMBER_BYTES
                continue
            stream = zlib.decompressobj(wbits=31)
            pending = rest
            while not stream.eof:
                if not pending and at < len(content):
                    # In pieces: each member that ends copies what follows it, which of the whole file is quadratic.
                    pending, at = content[at : at + _MEMBER_BYTES], at + _MEMBER_BYTES
                piece = stream.decompress(pending, _PIECE_BYTES)
                pending = stream.unconsumed_tail
                if not piece and not pending and not stream.eof and at >= len(content):
                    raise TraceReadError(f"{where}: the compressed file is cut off", slug="file-truncated")
                if not pieces and piece:
                    _kind(piece[:_HEAD_BYTES], where)
                total += len(piece)
                if total > limit:
                    raise _too_large(where, f"its {len(content)} bytes grow to more than {limit}")
                pieces.append(piece)
                if progress is not None:
                    progress(
                        f"decompressing {PurePath(where).name}", min(at, len(content)) - len(pending), len(content)
                    )
            # A gzip file may be several joined; zero padding after the last is allowed.
            rest = stream.unused_data.lstrip(b"\0")
    except zlib.error as error:
        message = f"{where}: the compressed file is damaged ({error})"
        raise TraceReadError(message, hint="copy or record it again", slug="file-damaged") from None
    return b"".join(pieces)


def _check_memory(where: str, size_bytes: int) -> None:
    limit = _memory_limit_bytes()
    if limit is not None and size_bytes > limit:
        raise _too_large(
            where, f"it has {size_bytes} bytes, and reading more than {limit} would not fit in free memory"
        )


def _too_large(where: str, why: str) -> TraceReadError:
    return TraceReadError(
        f"{where}: too large to read here: {why}",
        hint="read it on a machine with more memory, or record fewer steps (--steps)",
        slug="file-too-large",
    )


def _memory_limit_bytes() -> int | None:
    """Return how many bytes of one file fit in memory together with what they become; `None` where that is unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            available = next(line for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    return int(available.split()[1]) * 1024 // _MEMORY_SHARE


def _hint_for_missing(path: Path) -> str | None:
    parts = f"{path}.parts"
    if not os.path.exists(path) and os.path.isdir(parts):
        return f"a recording was interrupted here: read or merge {parts}"
    return None
