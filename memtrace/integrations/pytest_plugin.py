"""A plugin for pytest: a test fails if it needs more memory than it is marked with.

    @pytest.mark.limit_accelerator_memory("2 GiB")
    def test_training_fits(): ...

The body of a marked test is recorded and analysed; a test without the mark costs a look at its marks. pytest finds this
file by its entry point.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

MARK = "limit_accelerator_memory"
_DEVICES = ("auto", "cpu", "cuda", "xpu")
_NOT_RECORDED = frozenset({"device-not-recorded", "cpu-late", "caching-off", "cuda-malloc-async"})
"""Notes of a recording that say that memory was used and not seen."""


@dataclass(frozen=True, slots=True)
class _Limit:
    num_bytes: int
    device: str


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known, so that `--strict-markers` accepts it and `--markers` shows it."""
    config.addinivalue_line(
        "markers",
        f'{MARK}(size, device="auto"): fail the test if what its body allocates takes more than this on an '
        'accelerator, or on the CPU where there is none; size as in "2 GiB", device auto, cpu, cuda or xpu.',
    )


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Record the body of a marked test, and fail it where it needs too much. A test that fails anyway is let be."""
    mark = item.get_closest_marker(MARK)
    if mark is None:
        return (yield)
    limit = _limit(mark)
    from memtrace import api

    with tempfile.TemporaryDirectory(prefix="memtrace-") as folder:
        # Every step is kept: the peak may lie in any.
        api.start(Path(folder) / "trace.json", steps="0-", early_stacks=True, device=limit.device)
        try:
            result = yield
        finally:
            written = api.stop()
        if written is None:
            _warn(item, "this process is recorded already, so its limit is not checked")
            return result
        message = _broken(item, written, limit)
    if message is not None:
        pytest.fail(message, pytrace=False)
    return result


def _limit(mark: pytest.Mark) -> _Limit:
    """Return what a mark asks for; fails the test where that makes no sense."""
    from memtrace.errors import MemtraceError
    from memtrace.units import parse_bytes

    how = f'write it as @pytest.mark.{MARK}("2 GiB") or @pytest.mark.{MARK}("2 GiB", device="cuda")'
    device = mark.kwargs.get("device", "auto")
    if len(mark.args) != 1 or set(mark.kwargs) - {"device"} or device not in _DEVICES:
        pytest.fail(f"{MARK} takes one size, and a device ({', '.join(_DEVICES)}): {how}", pytrace=False)
    try:
        return _Limit(parse_bytes(str(mark.args[0])), device)
    except MemtraceError as error:
        wrong = error.message
    pytest.fail(f"{MARK}: {wrong}: {how}", pytrace=False)


def _broken(item: pytest.Item, path: Path, limit: _Limit) -> str | None:
    """Return why a recorded test fails, for the device that needs most; `None` where every one keeps the limit."""
    from memtrace.analysis.asked.peak_of_own_allocations import own_peak
    from memtrace.analysis.report import analyze
    from memtrace.report.answers.limit import limit_text
    from memtrace.store.reading.read import read_trace

    report = analyze(read_trace([path]), with_map=True)
    # Where there is an accelerator, what the host holds is not what the limit is about.
    ranks = [rank for rank in report.ranks if rank.device != "cpu"] or list(report.ranks)
    for note in {note.slug: note for rank in report.ranks for note in rank.warnings}.values():
        if note.slug in _NOT_RECORDED:
            _warn(item, f"not all memory was seen: {note.message} [{note.slug}]")
    maps = [(rank.device, rank.allocation_map) for rank in ranks if rank.allocation_map is not None]
    found = [(device, own_peak(one, is_outside=_is_of_pytest)) for device, one in maps]
    device, peak = max(found, key=lambda one: one[1].num_bytes, default=("", None))
    if peak is None or peak.num_bytes <= limit.num_bytes:
        return None
    return limit_text(item.nodeid, device, peak, limit.num_bytes)


def _is_of_pytest(frame: str) -> bool:
    """Return whether a frame is of what calls the test."""
    return frame.startswith("_pytest/") or "/_pytest/" in frame


def _warn(item: pytest.Item, message: str) -> None:
    warnings.warn(pytest.PytestWarning(f"{item.nodeid}: {MARK}: {message}"), stacklevel=2)
