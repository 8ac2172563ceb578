"""Which allocator is recorded, and when: the CPU's or an accelerator's, with the user's own profiling given way to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from memtrace.hooks.native.allocator_watch import Unwatched
from memtrace.hooks.ownership.module_tree import parameters_in
from memtrace.hooks.parts.chunk import EventBatch
from memtrace.hooks.sources import device
from memtrace.hooks.sources.accelerator_history import HistorySource
from memtrace.hooks.sources.cpu_allocator import WatchedCpuSource
from memtrace.hooks.sources.cpu_profiler import CpuSource
from memtrace.hooks.sources.event_tree import DEVICE as CPU
from memtrace.hooks.sources.high_water import HighWaterMark, HighWaterMarks
from memtrace.hooks.sources.kernels import KernelSource
from memtrace.hooks.sources.remote_calls import spend_warning
from memtrace.schema.options import PredictOptions, RecordOptions
from memtrace.schema.records import KINETO_SUFFIX, SNAPSHOT_SUFFIX

MARKS_ONLY = "marks"
"""Source of a chunk without events."""

NativePath = Callable[[str], str]
"""Gives the path, by suffix, at which a native dump of the chunk being written belongs."""


class Sources:
    """Starts, drains and stops whatever records events. What torch cannot do is a warning, not an error."""

    def __init__(
        self, torch: Any, options: RecordOptions, *, warn: Callable[[str, str], None], on_oom: Callable[[], None]
    ) -> None:
        self._torch = torch
        self._options = options
        self._warn = warn
        self._kind = device.accelerator(torch, options.device)
        self._cpu: CpuSource | WatchedCpuSource | None = None
        self._history: HistorySource | None = None
        self._kernels: KernelSource | None = None
        self._chosen = False
        self._known_devices: set[str] = set()
        self._drained_events = 0
        self._most_in_a_step = 0
        self._cpu_levels: dict[str, Any] = {}
        self._marks = HighWaterMarks()
        self.is_predicted = options.predict is not None
        """Whether the run is a prediction: its events come from a device that is not there."""
        self.profiler_suspended = False
        """Whether the program's own profiler runs now."""
        self.history_suspended = False
        """Whether the program's own memory history runs now."""
        self._fake: Any = None
        self.assumptions: Callable[[], list[tuple[str, str]]] = list
        """Slugs and sentences on what a prediction took for granted, for the end of the recording."""
        self.predicted_facts: Callable[[], dict[str, Any]] = dict
        """Header fields that are known at the end of a prediction."""
        if options.on_meta is not None:
            self._kind = None
            self._cpu = self._fake = self._make_fake(options.on_meta)
        elif self._kind is None:
            self._cpu = self._make("CPU events", self._make_cpu)
        else:
            kind = self._kind
            self._history = self._make("memory history", lambda: self._make_history(kind, on_oom))
            if options.profile:
                self._kernels = self._make("kernels", lambda: KernelSource(torch))
            if options.predict is not None:
                self._predict_driverless(options.predict)

    def _make(self, what: str, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except (AttributeError, TypeError, RuntimeError) as error:
            self._warn("source-missing", f"this torch cannot record {what}: {error}")
            return None

    def _make_fake(self, gpu: PredictOptions) -> Any:
        """Return the memory of a device that is not there, and put that device in place."""
        # Only here: it changes the program, and only a prediction may.
        try:
            from memtrace.hooks.fake.install import FakeDevice

            fake = FakeDevice(gpu, with_stacks=self._options.stacks != "none", warn=self._warn)
            fake.install()
        except Exception as error:
            # Without the fake device the program would train for real, for hours, and predict nothing.
            raise SystemExit(f"memtrace: no prediction with this torch: {type(error).__name__}: {error}") from error
        self.assumptions = fake.assumptions
        self.predicted_facts = fake.facts
        return fake.memory

    def _predict_driverless(self, gpu: PredictOptions) -> None:
        """Put in place what answers for data that no kernel computes, and keeps the user's files."""
        try:
            from memtrace.hooks.driverless.install import DriverlessDevice

            beside = DriverlessDevice(gpu, warn=self._warn)
            beside.install()
        except Exception as error:
            # It might train for real otherwise, or write over the user's files.
            raise SystemExit(f"memtrace: no prediction with this torch: {type(error).__name__}: {error}") from error
        self.assumptions = beside.assumptions
        self.predicted_facts = beside.facts

    def _make_cpu(self) -> CpuSource | WatchedCpuSource:
        """Return the allocator watched, where that can be done and is enough; torch's profiler otherwise."""
        options = self._options
        if options.watch_library is not None and options.stacks != "all" and not options.profile:
            try:
                return WatchedCpuSource(self._torch, options.watch_library, stacks=options.stacks)
            except Unwatched:
                pass
        return CpuSource(self._torch, stacks=options.stacks, profile=options.profile, warn=self._warn)

    @property
    def _watched(self) -> WatchedCpuSource | None:
        return self._cpu if isinstance(self._cpu, WatchedCpuSource) else None

    @property
    def _profiled(self) -> CpuSource | None:
        return self._cpu if self._fake is None and isinstance(self._cpu, CpuSource) else None

    def _make_history(self, kind: str, on_oom: Callable[[], None]) -> HistorySource:
        options = self._options
        return HistorySource(self._torch, kind, stacks=options.stacks, max_entries=options.max_entries, on_oom=on_oom)

    def described(self) -> dict[str, str | None]:
        """Return which sources there are, for the header."""
        events = self._cpu or self._history
        kernels = self._kernels or (self._cpu if self._options.profile else None)
        return {"events": events.name if events else None, "kernels": "profiler" if kernels else None}

    @property
    def fake_memory(self) -> Any:
        """The memory of a GPU that is not there; `None` where it is there."""
        return self._fake

    @property
    def recording(self) -> bool:
        """Whether events are being recorded now."""
        return any(source is not None and source.running for source in (self._cpu, self._history))

    @property
    def sees_all_threads(self) -> bool:
        """Whether what each thread allocates is recorded: torch's profiler sees the thread that it began on alone."""
        return self._profiled is None

    @property
    def has_frames_on(self) -> bool:
        """Whether Python frames are being recorded now."""
        return self._cpu is not None and self._cpu.running and self._cpu.frames

    def choose(self, module: Any) -> None:
        """Record the CPU after all, where training runs on the CPU of a machine that has an accelerator.

        Where it runs on a device that torch records no history of, say so.
        """
        if self._chosen or self._fake is not None:
            return
        _, first = next(parameters_in(module), ("", None))
        if first is None:
            return
        self._chosen = True
        if first.device.type not in ("cpu", self._kind or "cpu"):
            message = f"training runs on {first.device.type}, whose allocations are not recorded"
            self._warn("device-not-recorded", message)
        if self._kind is None or self._options.device != "auto" or first.device.type != "cpu":
            return
        if device.is_initialized(self._torch, self._kind):
            return
        self._kind = self._history = self._kernels = None
        self._cpu = self._make("CPU events", self._make_cpu)
        self._warn("cpu-late", "training runs on the CPU beside an accelerator: CPU events begin at the first step")
        self.start()

    def start(self, *, frames: bool = False) -> None:
        """Record from now on, unless the program's own profiling runs."""
        if self._cpu is not None and not self._gives_way:
            self._cpu.start(frames=frames)
        if self._history is not None and not self.history_suspended and not self._history.running:
            self._history.start()
        if self._kernels is not None and not self.profiler_suspended and self._is_initialized():
            # Before the program has initialised the device, its profiler would do so.
            self._kernels.start()

    def pause(self) -> None:
        """Record nothing until the next `start`: the steps to come are not wanted."""
        if self._history is not None and not self.history_suspended:
            self._history.stop()

    def drain(self, path: NativePath, *, keep: bool, final: bool) -> EventBatch:
        """Return what was recorded since the last drain. The CPU source stops and must be started again.

        `keep` says that the step is kept for good: an accelerator's history is then written and emptied. Otherwise it
        stays in torch's own ring, which holds the last steps, until `final`.
        """
        if self._cpu is not None:
            return self._drain_cpu(self._cpu, path)
        if self._kernels is not None:
            self._kernels.save(path(KINETO_SUFFIX))
        if self._history is None or not self._history.has_begun or self._is_capturing():
            return EventBatch(MARKS_ONLY)
        if keep or final or self._ring_is_filling(self._history):
            batch = self._history.dump(path(SNAPSHOT_SUFFIX))
            self._after_dump(self._history, keep=keep)
            return batch
        return EventBatch(MARKS_ONLY)

    @property
    def _gives_way(self) -> bool:
        """Whether the CPU source is silent while the program's own profiler runs."""
        return self.profiler_suspended and self._watched is None

    def _drain_cpu(self, cpu: CpuSource | WatchedCpuSource, path: NativePath) -> EventBatch:
        # While the program's own runs, on another thread, it would be stopped together with ours.
        if not cpu.running or self.cannot_switch() or self._gives_way:
            return EventBatch(MARKS_ONLY)
        batch = cpu.stop()
        if self._watched is None:
            self._note_cpu_levels(batch)
        else:
            self._ask_levels(self._watched)
        if cpu.result is not None:
            cpu.result.save(path(KINETO_SUFFIX))
            cpu.result = None
        return batch

    def _note_cpu_levels(self, batch: EventBatch) -> None:
        """Take from events what the CPU's allocator said last, and at most."""
        totals = batch.columns.get("total_bytes")
        known = [total for total in totals if total is not None] if isinstance(totals, (list, tuple)) else []
        if known:
            self._saw_levels(CPU if self._fake is None else self._fake.device, known[-1], max(known))

    def _ask_levels(self, watched: WatchedCpuSource) -> None:
        """Take from the watch, which knows living blocks at all times, what is handed out and was at most."""
        self._saw_levels(CPU, *watched.levels())

    def _saw_levels(self, name: str, allocated: int, highest: int) -> None:
        """Note what a device has handed out, and the most since this was last noted."""
        peak = max(self._cpu_levels.get("peak_allocated_bytes", 0), highest)
        self._cpu_levels = {"device": name, "allocated_bytes": allocated, "peak_allocated_bytes": peak}
        self._marks.saw(highest)

    def levels(self) -> dict[str, Any]:
        """Return device, allocated, peak and reserved bytes; empty where nothing tells.

        Of the CPU they are those of the last events that were drained, unless its allocator is watched.
        """
        if self._watched is not None:
            self._ask_levels(self._watched)
        if self._cpu is not None:
            return self._cpu_levels
        if self._kind is None or not self._is_initialized() or self._is_capturing():
            return {}
        return device.device_levels(self._torch, self._kind)

    @property
    def counts_marks(self) -> bool:
        """Whether a counter tells marks, of an accelerator or the watch; else events do, once they are drained."""
        return self._cpu is None or self._watched is not None

    @property
    def dumps_history(self) -> bool:
        """Whether what is kept of a step has to be dumped for it, as an accelerator's history; else it is there."""
        return self._cpu is None

    def take_mark(self) -> HighWaterMark:
        """Return what was the most since this was last asked. Of torch's profiler, by events that were drained."""
        if self._watched is not None:
            self._ask_levels(self._watched)
        elif self._cpu is None:
            self._marks.counter_says(self.levels().get("peak_allocated_bytes"))
        return self._marks.take(device.peak_host_rss_bytes())

    def _after_dump(self, history: HistorySource, *, keep: bool) -> None:
        if self.history_suspended:
            return
        events = history.num_events()
        if keep:
            self._most_in_a_step = max(self._most_in_a_step, events - self._drained_events)
        self._drained_events = events
        history.clear()

    def shrink_ring(self, num_steps: int) -> None:
        """Make torch's ring as small as the rolling window needs, so that the dump at the end is quick."""
        if self._history is not None and self._history.has_begun and not self.history_suspended:
            wanted = 2 * (num_steps + 1) * self._most_in_a_step
            self._history.start(max_entries=min(wanted, self._options.max_entries))

    def _ring_is_filling(self, history: HistorySource) -> bool:
        return history.num_events() - self._drained_events >= history.max_entries * 3 // 4

    def _is_initialized(self) -> bool:
        return self._kind is not None and device.is_initialized(self._torch, self._kind)

    def _is_capturing(self) -> bool:
        """Return whether a CUDA graph is being captured, during which the device must not be asked for anything."""
        capturing = getattr(self._torch.cuda, "is_current_stream_capturing", None)
        return self._kind == "cuda" and self._is_initialized() and capturing is not None and bool(capturing())

    def dump_history(self, path: NativePath) -> EventBatch:
        """Write the history at an out-of-memory and keep it: inside the allocator's callback it cannot be emptied."""
        if self._history is None:
            return EventBatch(MARKS_ONLY)
        return self._history.dump(path(SNAPSHOT_SUFFIX))

    def should_switch(self, frames: bool) -> bool:
        """Return whether the CPU source runs with the wrong setting of Python frames."""
        cpu = self._cpu
        return cpu is not None and cpu.running and cpu.can_switch and cpu.frames != (frames and cpu.has_frames)

    def cannot_switch(self) -> bool:
        """Return whether the CPU source runs and may not be stopped here, so that a drain leaves its events in it."""
        return self._cpu is not None and self._cpu.running and not self._cpu.can_switch

    def may_stop_anywhere(self) -> bool:
        """Return whether the CPU source runs and may be stopped whatever the program is doing: no call is observed."""
        cpu = self._cpu if self._fake is None else None
        return cpu is not None and cpu.running and cpu.can_switch and not cpu.observes_calls

    def tell_of_many_events(self, function: Callable[[], None] | None) -> None:
        """Have a function called each time that the CPU source holds very many more events, if it can; `None`: no more.

        It is called in the main thread, between any two steps of the interpreter.
        """
        if self._watched is not None:
            self._watched.tell_of_many(function)

    def blocks_fork(self) -> bool:
        """Return whether a profiler of this thread runs, which a forked child would crash with."""
        return any(source.can_switch for source in self._running_profilers())

    def leave_operators(self) -> bool:
        """Record no operators of the CPU from the next start on; return whether they are recorded now."""
        return self._profiled is not None and self._profiled.leave_operators()

    def discard(self) -> None:
        """Stop the CPU source, if it may be, and forget what it recorded."""
        if self._cpu is not None:
            self._cpu.stop()

    def stop(self) -> None:
        """Stop everything for good; what was not drained is lost."""
        if self._history is not None and not self.history_suspended:
            self._history.stop()
        self.end_watch()
        if self._cpu is not None:
            self._cpu.stop()
        if self._kernels is not None:
            self._kernels.stop()

    def end_watch(self) -> None:
        """Leave torch's CPU allocator as it was, where it is watched."""
        if self._watched is not None:
            self._watched.end()

    def suspend_history(self) -> None:
        """Leave torch's memory history to the program."""
        self.history_suspended = True
        if self._history is not None:
            self._history.running = False

    def other_profiler_begins(self) -> None:
        """The program is about to prepare a profiler of its own."""
        if self._profiled is not None:
            self._profiled.other_begins()

    def other_profiler_began(self) -> None:
        """It is prepared."""
        if self._profiled is not None:
            self._profiled.other_began()

    def remote_calls_begin(self) -> None:
        """The program can call other processes from now on, at which torch would tell of a profiler."""
        if self._profiled is not None:
            spend_warning(self._torch, self._profiled)

    def uses_profiler(self) -> bool:
        """Return whether a profiler of ours runs, which the program's own would silently empty."""
        return bool(self._running_profilers())

    def holds_events(self) -> bool:
        """Return whether events are held in memory, the more the longer it takes to the next drain."""
        return any(source is not None and source.running for source in (self._cpu, self._kernels))

    def _running_profilers(self) -> list[Any]:
        sources = (None if self._watched else self._cpu, self._kernels)
        return [source for source in sources if source is not None and source.running]

    def history_module(self) -> Any:
        """Return the module that holds the memory history which the program might call itself, if there is one."""
        if self.is_predicted:
            # The program's own calls do nothing in a prediction, whose history it all hangs on.
            return None
        return getattr(self._torch, self._kind).memory if self._kind and self._history else None

    def totals(self) -> dict[str, int | None]:
        """Return what the device says now, empty on the CPU and before the accelerator is initialised."""
        if self._kind is None or not self._is_initialized() or self._is_capturing():
            return {}
        return device.device_totals(self._torch, self._kind)

    def new_devices(self) -> Iterator[dict[str, Any]]:
        """Yield the facts of each device once, as soon as the program has initialised it."""
        gpu = self._options.on_meta
        if gpu is not None and not self._known_devices:
            self._known_devices.add(gpu.gpu_name)
            yield {"name": self._fake.device, "kind": gpu.gpu_name, "capacity_bytes": gpu.gpu_bytes}
        if self._kind is None or not self._is_initialized():
            return
        for record in device.device_records(self._torch, self._kind):
            if record["name"] not in self._known_devices:
                self._known_devices.add(record["name"])
                yield record
