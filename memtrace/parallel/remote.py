"""Traces that lie in an object store or another file system: found and read by fsspec, which is optional.

In: URLs, as s3://bucket/run. Out: the files there, and their traces. Only this file knows fsspec.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtrace.errors import MemtraceError, TraceReadError
from memtrace.schema.records import PART_SUFFIX, PARTS_SUFFIX
from memtrace.store.reading.read import read_file, read_stream
from memtrace.store.trace import Trace

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file, or one folder of parts."""

    url: str
    size_bytes: int
    """0 where that is not known."""


def is_url(path: str | Path) -> bool:
    """Return whether a path is a URL.

    >>> is_url("s3://bucket/run"), is_url("run/rank-00000.json.gz")
    (True, False)
    """
    # A Path has only one of the two slashes left.
    return isinstance(path, str) and "://" in path


def local_path(url: str) -> Path | None:
    """Return the path that a URL names on this machine, `None` if it names another place.

    >>> local_path("file:///run/trace.json"), local_path("s3://bucket/run")
    (PosixPath('/run/trace.json'), None)
    """
    scheme, _, path = url.partition("://")
    return Path(path) if scheme in ("file", "local") and path else None


def remote_files(url: str) -> list[RemoteFile]:
    """Return what may be a trace at a URL: the file itself, a folder of parts, or what lies in a run folder.

    Raises:
        TraceReadError: there is nothing, or no access. MemtraceError: fsspec, or what it needs for this URL, is absent.
    """
    with _told(url):
        system, root = _file_system(url)
        entry = system.info(root)
        if entry["type"] == "file":
            return [RemoteFile(url=url, size_bytes=_size_bytes(entry))]
        if entry["type"] != "directory":
            # A pipe or a device of a machine that is reached through another file system.
            raise TraceReadError(f"{url}: not a regular file", hint="copy it to a file first", slug="wrong-kind")
        children = [(_base_name(entry), entry) for entry in system.ls(root, detail=True)]
        if any(name.endswith(PART_SUFFIX) for name, _ in children):
            return [RemoteFile(url=url, size_bytes=0)]
        return [
            RemoteFile(url=f"{url.rstrip('/')}/{name}", size_bytes=_size_bytes(entry))
            for name, entry in sorted(children, key=lambda child: child[0])
            if not name.startswith(".") and (entry["type"] == "file" or name.endswith(PARTS_SUFFIX))
        ]


def read_remote(url: str) -> Trace:
    """Return the trace in a file, or a folder of parts, at a URL.

    Raises:
        TraceReadError: it cannot be read. TraceVersionError: a newer memtrace wrote it.
        MemtraceError: fsspec, or what it needs for this URL, is absent.
    """
    with _told(url):
        system, root = _file_system(url)
        if system.isdir(root):
            with tempfile.TemporaryDirectory(prefix="memtrace-") as folder:
                for entry in system.ls(root, detail=True):
                    if entry["type"] == "file":
                        system.get_file(entry["name"], str(Path(folder) / _base_name(entry)))
                return read_file(Path(folder), where=url)
        with system.open(root, "rb") as file:
            return read_stream(file, where=url, size_bytes=_size_bytes(system.info(root)))


def _file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MemtraceError(
            f"{url}: URLs are read with fsspec, which is not installed",
            hint="pip install 'memtrace[cluster]'",
            slug="extra-missing",
        ) from None
    system, root = url_to_fs(url)
    return system, root


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn whatever a file system raises into an error that names the URL: each has exceptions of its own."""
    try:
        yield
    except (MemtraceError, MemoryError):
        raise
    except FileNotFoundError:
        raise TraceReadError(f"{url}: there is no such file or folder", slug="no-trace") from None
    except ImportError as error:
        # fsspec says which package it wants: "Install s3fs to access S3".
        raise MemtraceError(
            f"{url}: {error}", hint="install it here, and on the workers of a cluster", slug="extra-missing"
        ) from None
    except Exception as error:
        what = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise TraceReadError(f"{url}: {what}", slug="file-unreachable") from error


def _base_name(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _size_bytes(entry: dict[str, Any]) -> int:
    return int(entry.get("size") or 0)
