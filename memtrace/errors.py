"""The one exception tree of memtrace. Standard library only; importable by every part.

MemtraceError            what went wrong, where, and what to try; exit code 1
├── TraceReadError       a file is not what it should be (truncated, wrong kind, hostile)
├── TraceVersionError    a file was written by a newer memtrace
├── OutputError          an output exists, or cannot be written
└── RecordError          a recording could not be started or assembled
"""

from __future__ import annotations


class MemtraceError(Exception):
    """An error for the user: `message` says what and where, `hint` what to try, `slug` links to docs/messages.md."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, slug: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.slug = slug


class TraceReadError(MemtraceError):
    """A trace, snapshot or profile could not be read: truncated, of a wrong kind, or hostile."""


class TraceVersionError(TraceReadError):
    """The file's format version is newer than this memtrace reads."""


class OutputError(MemtraceError):
    """The output exists already, or cannot be written."""


class RecordError(MemtraceError):
    """A recording could not be started, triggered or assembled."""
