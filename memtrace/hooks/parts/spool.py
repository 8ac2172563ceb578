"""The files of one recorded process: an append-only main part and chunks that are complete in themselves.

In: records as plain dicts. Out: JSON lines in the folder of parts. The disk may fill or vanish at any moment: then one
warning is given, nothing more is written, and the program goes on.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

from memtrace.hooks.failure.meant_for_program import pass_on
from memtrace.hooks.parts.as_imported import as_json, system
from memtrace.hooks.parts.own_file import FileLost, OwnFile, open_private
from memtrace.hooks.parts.stderr import WarningLine
from memtrace.schema.records import (
    END,
    KINETO_SUFFIX,
    LOST,
    PART_SUFFIX,
    SNAPSHOT_SUFFIX,
    STEP,
    WARNING,
    Record,
    chunk_name,
    part_name,
)

MAX_PENDING_BYTES = 1 << 20
"""Records wait in memory until a step ends, but never more than this."""

WRITE_FAILED = "write-failed"
"""Slug of the warning that the disk was full or not writable."""

_PARTS_REMOVED = "the files of the recording were removed while the program ran: steps before that are missing"
_OF_STEPS = frozenset({STEP, LOST, END})
_CHUNK_SUFFIXES = (PART_SUFFIX, SNAPSHOT_SUFFIX, KINETO_SUFFIX)


class Spool:
    """Writes the parts of the process that made it. In a forked child every method does nothing."""

    def __init__(self, parts_dir: str, *, rank: int | None, warn_once: Callable[[str], None] | None = None) -> None:
        self._parts_dir = parts_dir
        self._pid = system.getpid()
        # os.urandom and not `random`, whose state belongs to the user's program.
        suffix = os.urandom(4).hex()
        self.name = part_name(rank=rank, host=socket.gethostname(), pid=self._pid, suffix=suffix)
        self.broken = False
        """Whether writing failed: no chunk is written any more."""
        self._main_broken = False
        self._warn_once = warn_once or WarningLine()
        self._warned = False
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._written_bytes = 0
        self._lasting: list[bytes] = []
        """What a main part holds beside steps, to begin it again should its file be removed."""
        self._lasting_bytes = 0
        self._file: OwnFile | None = None
        # Re-entrant, since a garbage collection inside a write can run a callback that writes.
        self._lock = threading.RLock()

    @property
    def main_path(self) -> str:
        """The main part of the process."""
        return os.path.join(self._parts_dir, self.name + PART_SUFFIX)

    def write(self, record: Record) -> None:
        """Keep one record of the main part for the next flush."""
        if self._main_broken or self._foreign():
            return
        line = encode(record)
        with self._lock:
            if record["k"] not in _OF_STEPS and self._lasting_bytes < MAX_PENDING_BYTES:
                self._lasting.append(line)
                self._lasting_bytes += len(line)
            self._pending.append(line)
            self._pending_bytes += len(line)
            if self._pending_bytes > MAX_PENDING_BYTES:
                self.flush()

    def flush(self) -> None:
        """Append what is pending to the main part. What is flushed survives any death of the process."""
        if self._main_broken or self._foreign():
            return
        with self._lock:
            if not self._pending:
                return
            try:
                self._append_pending()
            except OSError as error:
                pass_on(error)
                self._main_broken = True
                self._give_up(error)
            self._pending.clear()
            self._pending_bytes = 0

    def write_chunk(self, number: int, records: Iterable[Record | bytes]) -> bool:
        """Write a chunk as a whole, records or their lines; return whether it is there.

        A chunk that fails leaves no file behind.
        """
        if self.broken or self._foreign():
            return False
        path = self.chunk_path(number, PART_SUFFIX)
        unfinished = f"{path}.tmp"
        try:
            self._make_folder()
            with open_private(unfinished) as file:
                for record in records:
                    file.write(record if isinstance(record, bytes) else encode(record))
            system.replace(unfinished, path)
        except OSError as error:
            _remove(unfinished)
            self.give_up(error)
            return False
        except BaseException:
            _remove(unfinished)
            raise
        return True

    def chunk_path(self, number: int, suffix: str) -> str:
        """Return the path of a chunk's file with this suffix, for what torch writes natively."""
        return os.path.join(self._parts_dir, chunk_name(self.name, number) + suffix)

    def drop_chunk(self, number: int) -> None:
        """Remove all files of a chunk that left the rolling window."""
        if self._foreign():
            return
        for suffix in _CHUNK_SUFFIXES:
            _remove(self.chunk_path(number, suffix))

    def close(self) -> None:
        """Flush and close; a later write opens the part again."""
        if self._foreign():
            return
        self.flush()
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def give_up(self, error: OSError) -> None:
        """Take note that writing a chunk, or beside the chunks, failed: stop writing and warn once.

        What is no error of ours, but one that the program raised meanwhile, goes on to the program.
        """
        pass_on(error)
        if not self._foreign():
            self._give_up(error)

    def _foreign(self) -> bool:
        """Whether this is a forked child, whose records would tear the parent's file."""
        return system.getpid() != self._pid

    def _append_pending(self) -> None:
        try:
            self._append(b"".join(self._pending))
        except FileLost as error:
            if error.errno != errno.ENOENT or self._file is None:
                raise
            # Somebody cleaned up while the program runs: what is still to come is worth a new file.
            self._file.close()
            self._file, self._written_bytes = None, 0
            warning = {"k": WARNING, "slug": "parts-removed", "message": _PARTS_REMOVED, "count": 1}
            pending = [line for line in self._pending if line not in self._lasting]
            self._append(b"".join([*self._lasting, encode(warning), *pending]))

    def _make_folder(self) -> None:
        """Make the folder of parts if it is missing, and none that it lies in: that one is the program's."""
        with contextlib.suppress(FileExistsError):
            system.mkdir(self._parts_dir, 0o700)

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._make_folder()
            self._file = OwnFile(self.main_path, append=True)
        self._file.append(data, size_before=self._written_bytes)
        self._written_bytes += len(data)

    def _give_up(self, error: OSError) -> None:
        """Warn, once in the life of the process. The small main part is tried on: it may say why data is missing."""
        self.broken = True
        if self._warned:
            return
        self._warned = True
        reason = error.strerror or type(error).__name__
        message = f"the recording stopped, its folder cannot be written: {reason}"
        with contextlib.suppress(Exception):
            self._warn_once(message)
        self.write({"k": WARNING, "slug": WRITE_FAILED, "message": message, "count": 1})


def encode(record: Record) -> bytes:
    """Return a record as one line of strict JSON in UTF-8.

    What JSON cannot say is replaced, since one bad value must not cost the record: NaN and infinity by null, lone
    surrogates (file names that are not UTF-8) by a question mark, other objects by their text.

    >>> encode({"k": "step", "lr": float("nan")})
    b'{"k":"step","lr":null}\\n'
    """
    try:
        text = _dump(record)
    except ValueError:
        text = _dump(_finite(record))
    return text.encode("utf-8", "replace") + b"\n"


def _dump(record: Any) -> str:
    return as_json(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)


def _finite(value: Any) -> Any:
    """Return the value with every float that is not a number replaced by None."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        system.unlink(path)
