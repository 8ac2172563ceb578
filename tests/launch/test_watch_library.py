"""The compiled watch: made once, kept, and done without where it cannot be had."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from memtrace.errors import MemtraceError
from memtrace.launch.watch_library import compiled_watch, watch_library

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder for caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "memtrace" / "watch"


@needs_compiler
@pytest.mark.process
def test_it_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = watch_library()
    assert library is not None
    assert [str(path) for path in cache.iterdir()] == [library]
    # There is no compiler any more, and none is needed.
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert watch_library() == library


def test_without_a_compiler_there_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert watch_library() is None
    with pytest.raises(MemtraceError, match="no C compiler"):
        compiled_watch()
    assert not cache.exists()


@pytest.mark.process
def test_a_compiler_that_fails_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "cc"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'watch.c:1: error: no such header' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(broken.parent))
    assert watch_library() is None
    with pytest.raises(MemtraceError, match="no such header"):
        compiled_watch()
    assert list(cache.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert watch_library() is None


def test_other_systems_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert watch_library() is None
