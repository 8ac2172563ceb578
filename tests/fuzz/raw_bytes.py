"""Breaking a file as bytes: cut off, flipped, overwritten, compressed in odd ways, in a wrong encoding."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable

MAX_BYTES = 4 << 20
MAGICS = (
    b"\x28\xb5\x2f\xfd",
    b"\xfd7zXZ\0",
    b"BZh9",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"\x80\x04",
    b"{",
    b"[",
    b"\xef\xbb\xbf",
)


def break_bytes(random_: random.Random, content: bytes) -> bytes:
    """Return the bytes of a file with one or a few of them broken."""
    for _ in range(random_.choice((1, 1, 2, 5))):
        content = random_.choice(_WAYS)(random_, content)[:MAX_BYTES]
    return content


def compressed(random_: random.Random, content: bytes) -> bytes:
    """Return bytes as they might be compressed: soundly, in many members, padded, twice, or not at all."""
    sound: tuple[Callable[[], bytes], ...] = (
        lambda: _gzip(content),
        lambda: b"".join(_gzip(content[at : at + 9999]) for at in range(0, len(content), 9999)),
        lambda: _gzip(content) + b"\0" * random_.randrange(5000),
        lambda: _gzip(b"") * random_.randrange(3000) + _gzip(content),
    )
    odd: tuple[Callable[[], bytes], ...] = (
        lambda: _gzip(_gzip(content)),
        lambda: _gzip(content) + content[:50],
        lambda: _gzip(content)[:-9],
    )
    how = random_.random()
    if how < 0.6:
        return content
    return random_.choice(sound if how < 0.95 else odd)()


def _gzip(content: bytes) -> bytes:
    """Compress, without the time: the same content has the same bytes."""
    return gzip.compress(content, 1, mtime=0)


def _at(random_: random.Random, content: bytes) -> int:
    return random_.randrange(len(content) + 1)


def _cut(random_: random.Random, content: bytes) -> bytes:
    return content[: _at(random_, content)]


def _behead(random_: random.Random, content: bytes) -> bytes:
    return content[_at(random_, content) :]


def _flip(random_: random.Random, content: bytes) -> bytes:
    broken = bytearray(content)
    for _ in range(random_.choice((1, 1, 5, 100)) if broken else 0):
        broken[random_.randrange(len(broken))] ^= 1 << random_.randrange(8)
    return bytes(broken)


def _insert(random_: random.Random, content: bytes) -> bytes:
    at = _at(random_, content)
    return content[:at] + random_.randbytes(random_.choice((1, 2, 8, 300))) + content[at:]


def _repeat(random_: random.Random, content: bytes) -> bytes:
    at, length = _at(random_, content), random_.choice((1, 8, 100, 4096))
    return content[: at + length] + content[at:]


def _leave_out(random_: random.Random, content: bytes) -> bytes:
    at = _at(random_, content)
    return content[:at] + content[at + random_.choice((1, 4, 50, 2000)) :]


def _blank(random_: random.Random, content: bytes) -> bytes:
    at, length = _at(random_, content), random_.choice((1, 16, 5000))
    return (content[:at] + random_.choice((b"\0", b" ", b"\xff")) * length + content[at + length :])[: len(content)]


def _magic(random_: random.Random, content: bytes) -> bytes:
    return random_.choice(MAGICS) + content[random_.choice((0, 0, 2, 6)) :]


def _digits(random_: random.Random, content: bytes) -> bytes:
    """Overwrite with characters that JSON and pickles are made of."""
    at = _at(random_, content)
    return (
        content[:at]
        + random_.choice((b"9" * 400, b"[" * 2000, b"]}", b'"', b"NaN", b"-", b"1e999", b",,", b"\\u"))
        + content[at:]
    )


def _encoding(random_: random.Random, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(random_.choice(("utf-16", "utf-32", "latin-1", "utf-8-sig", "cp1252")), "replace")


_WAYS = (_cut, _cut, _behead, _flip, _flip, _insert, _repeat, _leave_out, _blank, _magic, _digits, _encoding)
