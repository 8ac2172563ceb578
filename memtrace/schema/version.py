"""The version of trace files and of the parts that a recording writes."""

from __future__ import annotations

TRACE_FORMAT = "memtrace-trace"
"""Value of `format` in the header of every trace file."""

PART_FORMAT = "memtrace-part"
"""Value of `format` in the header record of every part."""

TRACE_VERSION = 1
"""One integer for traces and parts. Same: read. Older: upgraded. Newer: refused.

1: first version.
"""
