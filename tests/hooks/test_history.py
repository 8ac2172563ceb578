"""The accelerator's source without an accelerator: a fake torch that queues lazy calls and keeps a history."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memtrace.hooks.sources.accelerator_history import HistorySource
from memtrace.hooks.sources.choose import Sources
from memtrace.hooks.torch_side.yield_to_program import Yielding
from memtrace.schema.options import RecordOptions


class FakeMemory:
    """`torch.cuda.memory`: remembers the calls of the recorder, and what it would hold."""

    def __init__(self, cuda: FakeCuda, *, can_clear: bool) -> None:
        self._cuda = cuda
        self.calls: list[dict[str, Any]] = []
        self.history: list[str] | None = None
        self._record_memory_history = self._with_clear if can_clear else self._without_clear

    def _with_clear(
        self,
        enabled: str | None = "all",
        context: str | None = "all",
        stacks: str = "all",
        max_entries: int = 2**63 - 1,
        device: object = None,
        clear_history: bool = False,
    ) -> None:
        call = {"enabled": enabled, "context": context, "stacks": stacks, "max_entries": max_entries}
        self._take({**call, "clear_history": clear_history} if clear_history else call)

    def _without_clear(
        self,
        enabled: str | None = "all",
        context: str | None = "all",
        stacks: str = "all",
        max_entries: int = 2**63 - 1,
        device: object = None,
    ) -> None:
        self._take({"enabled": enabled, "context": context, "stacks": stacks, "max_entries": max_entries})

    def _take(self, call: dict[str, Any]) -> None:
        assert self._cuda.initialized, "torch would have initialised the accelerator here"
        self.calls.append(call)
        if call["enabled"] is None:
            self.history = None
        elif self.history is None or call.get("clear_history"):
            self.history = []

    def _snapshot(self) -> dict[str, Any]:
        assert self._cuda.initialized, "torch would have initialised the accelerator here"
        return {"segments": [], "device_traces": [list(self.history or [])]}

    def change_current_allocator(self, allocator: object) -> None:
        """There to be wrapped."""


class FakeCuda:
    """`torch.cuda`: calls that were queued run when the program initialises it."""

    def __init__(self, *, can_clear: bool = True) -> None:
        self.initialized = False
        self.lazy: list[Callable[[], None]] = []
        self.memory = FakeMemory(self, can_clear=can_clear)
        self.num_allocated = self.num_freed = 0

    def is_initialized(self) -> bool:
        return self.initialized

    def _lazy_call(self, call: Callable[[], None]) -> None:
        if self.initialized:
            call()
        else:
            self.lazy.append(call)

    def initialize(self) -> None:
        self.initialized = True
        while self.lazy:
            self.lazy.pop(0)()

    def allocate(self, count: int = 1) -> None:
        self.num_allocated += count
        if self.memory.history is not None:
            self.memory.history += ["alloc"] * count

    def memory_stats(self) -> dict[str, int]:
        assert self.initialized, "torch would have initialised the accelerator here"
        return {"allocation.all.allocated": self.num_allocated, "allocation.all.freed": self.num_freed}


class FakeTorch:
    """As much of torch as the source touches."""

    def __init__(self, *, can_clear: bool = True) -> None:
        self.cuda = FakeCuda(can_clear=can_clear)
        self.observers: list[Callable[..., None]] = []
        self._C = SimpleNamespace(_cuda_attach_out_of_memory_observer=self._attach)

    def _attach(self, observer: Callable[..., None]) -> None:
        assert self.cuda.initialized, "torch would have initialised the accelerator here"
        self.observers.append(observer)


@pytest.fixture
def torch() -> FakeTorch:
    return FakeTorch()


def make_source(torch: FakeTorch, on_oom: Callable[[], None] = lambda: None, **options: Any) -> HistorySource:
    return HistorySource(torch, "cuda", **{"stacks": "python", "max_entries": 1000, **options}, on_oom=on_oom)


def make_sources(torch: FakeTorch, folder: Path, **options: Any) -> Sources:
    recording = RecordOptions(parts_dir=str(folder), device="cuda", **options)
    return Sources(torch, recording, warn=lambda *_: None, on_oom=lambda: None)


def drain(sources: Sources, folder: Path, *, keep: bool = True, final: bool = False) -> list[str] | None:
    """Return the history that a drain wrote, None if it wrote none."""
    path = folder / "chunk"
    batch = sources.drain(lambda suffix: f"{path}{suffix}", keep=keep, final=final)
    found = next(folder.glob("chunk*"), None)
    assert batch.is_native == (found is not None)
    if found is None:
        return None
    snapshot = pickle.loads(found.read_bytes())
    found.unlink()
    return snapshot["device_traces"][0]  # type: ignore[no-any-return]


def test_nothing_is_called_before_the_program_initialises(torch: FakeTorch, tmp_path: Path) -> None:
    sources = make_sources(torch, tmp_path)
    sources.start()
    assert sources.described()["events"] == "torch_snapshot"
    assert drain(sources, tmp_path) is None
    assert (sources.totals(), list(sources.new_devices())) == ({}, [])
    sources.shrink_ring(2)
    assert not torch.cuda.memory.calls
    assert not torch.observers
    torch.cuda.initialize()
    torch.cuda.allocate()
    assert drain(sources, tmp_path) == ["alloc"]
    assert len(torch.observers) == 1


def test_nothing_begins_when_the_recording_ended_before_the_program_initialised(torch: FakeTorch) -> None:
    source = make_source(torch)
    source.start()
    source.stop()
    torch.cuda.initialize()
    assert torch.cuda.memory.calls == []


@pytest.mark.parametrize(
    ("stacks", "context", "kind"), [("python", "all", "python"), ("all", "all", "all"), ("none", None, "python")]
)
def test_options_of_the_recorder(torch: FakeTorch, stacks: str, context: str | None, kind: str) -> None:
    make_source(torch, stacks=stacks).start()
    torch.cuda.initialize()
    call = torch.cuda.memory.calls[-1]
    assert (call["enabled"], call["context"], call["stacks"], call["max_entries"]) == ("all", context, kind, 1000)


def test_the_ring_is_emptied_by_clear_history_where_torch_has_it(torch: FakeTorch) -> None:
    torch.cuda.initialize()
    source = make_source(torch)
    source.start()
    torch.cuda.allocate(3)
    source.clear()
    assert [call["enabled"] for call in torch.cuda.memory.calls] == ["all", "all"]
    assert all(call["clear_history"] for call in torch.cuda.memory.calls)
    assert torch.cuda.memory.history == []


def test_the_ring_is_emptied_by_switching_off_where_torch_is_older() -> None:
    torch = FakeTorch(can_clear=False)
    torch.cuda.initialize()
    source = make_source(torch)
    source.start()
    torch.cuda.allocate(3)
    source.clear()
    assert [call["enabled"] for call in torch.cuda.memory.calls] == [None, "all", None, "all"]
    assert torch.cuda.memory.history == []


def test_kept_steps_are_written_and_emptied_others_stay_in_the_ring_until_the_end(
    torch: FakeTorch, tmp_path: Path
) -> None:
    torch.cuda.initialize()
    sources = make_sources(torch, tmp_path)
    sources.start()
    torch.cuda.allocate(2)
    assert drain(sources, tmp_path, keep=True) == ["alloc"] * 2
    torch.cuda.allocate(1)
    assert drain(sources, tmp_path, keep=False) is None
    torch.cuda.allocate(1)
    assert drain(sources, tmp_path, keep=False, final=True) == ["alloc"] * 2


def test_a_ring_that_is_three_quarters_full_is_written(torch: FakeTorch, tmp_path: Path) -> None:
    torch.cuda.initialize()
    sources = make_sources(torch, tmp_path, max_entries=100)
    sources.start()
    torch.cuda.allocate(74)
    assert drain(sources, tmp_path, keep=False) is None
    torch.cuda.allocate(1)
    assert drain(sources, tmp_path, keep=False) == ["alloc"] * 75
    torch.cuda.allocate(1)
    assert drain(sources, tmp_path, keep=False) is None


def test_the_ring_shrinks_to_what_the_rolling_window_needs(torch: FakeTorch, tmp_path: Path) -> None:
    torch.cuda.initialize()
    sources = make_sources(torch, tmp_path)
    sources.start()
    torch.cuda.allocate(10_000)
    drain(sources, tmp_path)
    sources.shrink_ring(2)
    # Twice the events of the steps in the window and of the one that runs.
    assert torch.cuda.memory.calls[-1]["max_entries"] == 2 * (2 + 1) * 10_000
    sources.shrink_ring(10**6)
    assert torch.cuda.memory.calls[-1]["max_entries"] == RecordOptions(parts_dir="").max_entries


def test_the_ring_never_shrinks_below_a_useful_size(torch: FakeTorch, tmp_path: Path) -> None:
    torch.cuda.initialize()
    sources = make_sources(torch, tmp_path)
    sources.start()
    drain(sources, tmp_path)
    sources.shrink_ring(1)
    assert torch.cuda.memory.calls[-1]["max_entries"] == 20_000


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_the_observer_writes_and_never_raises(torch: FakeTorch, error: type[BaseException]) -> None:
    written: list[int] = []

    def on_oom() -> None:
        written.append(1)
        raise error

    torch.cuda.initialize()
    source = make_source(torch, on_oom)
    source.start()
    source.clear()
    assert len(torch.observers) == 1, "it cannot be detached, so it must be attached once"
    torch.observers[0](0, 2**30, 2**34, 0)
    assert written == [1]
    source.stop()
    torch.observers[0](0, 2**30, 2**34, 0)
    assert written == [1]


def test_a_history_at_an_oom_is_written_and_kept(torch: FakeTorch, tmp_path: Path) -> None:
    torch.cuda.initialize()
    sources = make_sources(torch, tmp_path)
    sources.start()
    torch.cuda.allocate()
    assert sources.dump_history(lambda suffix: str(tmp_path / f"oom{suffix}")).is_native
    assert [path.name for path in tmp_path.iterdir()] == ["oom.pickle"]
    assert torch.cuda.memory.history == ["alloc"]


def test_a_dump_that_fails_leaves_no_file(torch: FakeTorch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.cuda.initialize()
    source = make_source(torch)
    source.start()
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", lambda: {"cannot": "be pickled", "file": lambda: None})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        source.dump(str(tmp_path / "snapshot.pickle"))
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_torchs_initialisation_stays_ours(torch: FakeTorch, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_source(torch)

    def refuse(**_options: object) -> None:
        raise RuntimeError("no such option")

    monkeypatch.setattr(source, "_record", refuse)
    source.start()
    torch.cuda.initialize()
    assert not source.has_begun


class FakeWindow:
    """A window that only drains."""

    is_open = True

    def __init__(self, sources: Sources, folder: Path) -> None:
        self._sources = sources
        self._folder = folder
        self.written: list[list[str] | None] = []

    def drain(self, _reason: str, *, resume: bool = True) -> None:
        self.written.append(drain(self._sources, self._folder, final=not resume))
        if resume:
            self._sources.start()


def test_the_programs_own_history_is_given_way_to_and_ours_goes_on(torch: FakeTorch, tmp_path: Path) -> None:
    torch.cuda.initialize()
    sources = make_sources(torch, tmp_path)
    window = FakeWindow(sources, tmp_path)
    notes: list[str] = []
    writer: Any = SimpleNamespace(note=lambda slug, _message: notes.append(slug))
    yielding = Yielding(window, sources, writer)  # type: ignore[arg-type]
    record = torch.cuda.memory._record_memory_history
    sources.start()
    torch.cuda.allocate(2)

    yielding.before_history()
    record(max_entries=7)
    yielding.after_history(max_entries=7)
    num_calls = len(torch.cuda.memory.calls)
    assert window.written == [["alloc"] * 2]
    sources.start()
    sources.shrink_ring(2)
    assert not sources.recording
    assert len(torch.cuda.memory.calls) == num_calls, "theirs must not be touched while it runs"
    torch.cuda.allocate(1)
    assert drain(sources, tmp_path) is None

    yielding.before_history(enabled=None)
    record(enabled=None)
    yielding.after_history(enabled=None)
    assert sources.recording
    torch.cuda.allocate(3)
    assert drain(sources, tmp_path) == ["alloc"] * 3
    assert set(notes) == {"user-history"}


def test_a_torch_without_a_recorder_is_a_warning(tmp_path: Path) -> None:
    warned: list[str] = []
    fake = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: False), _C=SimpleNamespace())
    options = RecordOptions(parts_dir=str(tmp_path), device="cuda")
    sources = Sources(fake, options, warn=lambda slug, _message: warned.append(slug), on_oom=lambda: None)
    sources.start()
    assert warned == ["source-missing"]
    assert sources.described()["events"] is None
    sources.stop()
