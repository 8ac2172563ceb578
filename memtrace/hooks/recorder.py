"""The recording of one process: makes the parts, installs them, and ends them on every path out of the program."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from time import time_ns
from typing import Any

from memtrace.hooks.failure import crash
from memtrace.hooks.loop.main_part import Writer
from memtrace.hooks.loop.training_loop import TrainingLoop
from memtrace.hooks.loop.window import Window
from memtrace.hooks.parts import who_am_i as ranks
from memtrace.hooks.parts.as_imported import system
from memtrace.hooks.parts.own_file import OwnFile
from memtrace.hooks.parts.spool import Spool
from memtrace.hooks.parts.status import Status
from memtrace.hooks.sources.choose import Sources
from memtrace.hooks.sources.kineto_thread import end_thread_before_forks
from memtrace.hooks.torch_side.attach import Attachments
from memtrace.hooks.torch_side.guard import Guard
from memtrace.hooks.torch_side.symbolic import symbolic_check
from memtrace.hooks.torch_side.yield_to_program import Yielding
from memtrace.hooks.workers import tell_of_training, when_thread_ends
from memtrace.schema.names import Source
from memtrace.schema.options import RecordOptions

_current: Recorder | None = None


def install(options: RecordOptions) -> None:
    """Start recording this process. Called once, right after the program's own import of torch has finished."""
    global _current
    if _current is None:
        _current = Recorder(sys.modules["torch"], options)
        _current.start()


def uninstall() -> None:
    """End the recording and remove every hook; nothing happens where there is none."""
    global _current
    recorder, _current = _current, None
    if recorder is not None:
        recorder.finish()


def end_worker() -> None:
    """End the recording of a worker whose function has ended; what it raised is on its way out to multiprocessing."""
    kind, error, tb = sys.exc_info()
    if _current is not None and kind is not None and isinstance(error, Exception):
        _current.on_exception(kind, error, tb)
    uninstall()


def is_recording() -> bool:
    """Return whether this process is being recorded."""
    return _current is not None


def follow_marks() -> None:
    """Let only calls of `mark_step` end steps from now on, without one ending here."""
    if _current is not None:
        _current.follow_marks()


def mark_step() -> None:
    """End the current step here; from now on only such calls end steps. Nothing happens where nothing is recorded."""
    if _current is not None:
        _current.mark_step()


class Recorder:
    """The parts of a recording, in the order in which they depend on one another."""

    def __init__(self, torch: Any, options: RecordOptions) -> None:
        self._torch = torch
        self._options = options
        self._pid = system.getpid()
        self._finished = False
        self._forking = False
        self._start_ns = time_ns()
        self._facts = ranks.rank_facts()
        spool = Spool(options.parts_dir, rank=self._facts["rank"])
        self._writer = Writer(spool, redact=options.redact)
        # The functions of a predicted GPU are such a mode themselves.
        unseen = torch._C.DisableTorchFunction if options.on_meta is None else None
        self._guard = Guard(self._writer.warn, torch.compiler.is_compiling, symbolic_check(torch), unseen)
        # Before a prediction sends all that is opened for writing elsewhere.
        survey_file = _survey_file(options, self._pid)
        with self._guard.quiet():
            self._sources = Sources(torch, options, warn=self._writer.warn, on_oom=self._on_oom)
        self._writer.sources = self._sources
        self._window = Window(options, spool, self._sources, start_ns=self._start_ns, on_lost=self._writer.note_lost)
        self._status = Status(options.parts_dir, spool.name, levels=self._sources.levels)
        self._loop = TrainingLoop(torch, self._window, self._sources, self._writer, self._status, self._start_ns)
        yielding = Yielding(self._window, self._sources, self._writer)
        self._attachments = Attachments(torch, self._guard, self._loop, yielding)
        self._uninstall_crash = _nothing
        self._changed: Any = None
        self._thread_end: Any = None
        if options.survey is not None or options.changes is not None:
            # Only here: like a prediction, it changes the program.
            from memtrace.hooks.changes.change import Changed
            from memtrace.hooks.changes.survey import Survey

            survey = None
            if options.survey is not None and survey_file is not None:
                survey = Survey(torch, options.survey, survey_file, self._sources.fake_memory)
            self._changed = Changed(torch, options.changes, survey, self._guard, self._writer.warn)

    def start(self) -> None:
        """Install every hook and begin to record events."""
        with self._guard.quiet():
            described = self._sources.described()
            described["saved"] = "graph_walk" if self._loop.finds_saved_tensors else None
            source = Source.RECORDED if self._options.predict is None else Source.PREDICTED
            self._writer.header(source=source, facts=self._facts, start_ns=self._start_ns, sources=described)
            self._note_unseen_allocators()
            self._uninstall_crash = crash.install(self.on_exception, self.finish)
            self._attachments.add()
            self._attachments.add_module_hooks()
            if self._changed is not None:
                self._changed.install()
            self._loop.on_window = self._on_window
            self._sources.start(frames=self._options.early_stacks)
            self._writer.flush()
        if threading.current_thread() is not threading.main_thread():
            self._thread_end = when_thread_ends(self.finish)
        end_thread_before_forks(self._torch)
        _watch_forks(self)

    def finish(self) -> None:
        """Write what is left and the end record, and remove every hook. Safe to call twice, and from `atexit`."""
        if self._finished or system.getpid() != self._pid:
            return
        with self._guard.quiet():
            # Each whatever became of the one before: the end record says that the program ended in order.
            for end in (self._break_off, self._take_off, self._write_end, self._status.close, self._window.close):
                try:
                    end()
                except Exception as error:
                    self._guard.report("the end of the recording", error)
        self._uninstall_crash()

    def _take_off(self) -> None:
        self._finished = True
        if self._changed is not None:
            self._changed.finish()
        self._attachments.remove()
        self._sources.stop()

    def _write_end(self) -> None:
        for slug, message in self._sources.assumptions():
            self._writer.warn(slug, message)
        if facts := self._sources.predicted_facts():
            self._writer.facts(**facts)
        if self._options.predict is not None:
            # At the start only torch was imported. What is predicted is what these libraries do, and no others.
            self._writer.facts(versions=ranks.version_facts() | ranks.library_facts())
        self._writer.note_distributed(self._torch)
        self._writer.end()

    def follow_marks(self) -> None:
        """Let only calls of `mark_step` end steps from now on."""
        if not self._finished and self._loop.is_current_thread:
            self._loop.steps.explicit = True

    def mark_step(self) -> None:
        """End the current step here; from now on only such calls end steps."""
        if not self._finished and self._loop.is_current_thread:
            with self._guard.quiet():
                self._loop.steps.explicit = True
                self._loop.steps.mark(time_ns())

    def _on_window(self) -> None:
        self._writer.note_distributed(self._torch)
        if self._window.is_open:
            self._attachments.add_module_hooks()
        else:
            self._attachments.remove_module_hooks()
        ends = (self._options.predict, self._options.survey)
        if any(one is not None and 0 < one.num_steps < self._loop.step for one in ends):
            raise SystemExit(0)

    def _note_unseen_allocators(self) -> None:
        environ = os.environ
        configured = environ.get("PYTORCH_ALLOC_CONF", "") + environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
        if "cudaMallocAsync" in configured:
            self._writer.note("cuda-malloc-async", "the cudaMallocAsync backend makes no events")
        if environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING") == "1":
            self._writer.note("caching-off", "caching is off (PYTORCH_NO_CUDA_MEMORY_CACHING): no events are made")

    def on_exception(self, kind: type[BaseException], error: BaseException, tb: Any) -> None:
        """Note an exception that nobody caught."""
        if self._finished:
            return
        with self._guard.quiet():
            self._writer.facts(exception=crash.describe(kind, error, tb, redact=self._options.redact))
            if self._loop.is_current_thread:
                # What is live now is what the program died with; by the time of exit most of it is freed.
                self._break_off()
            self._writer.flush()

    def _break_off(self) -> None:
        if self._loop.may_be_ended:
            self._loop.break_off()
        self._window.drain("exit", resume=False)
        # Another thread of the program, autograd's say, may free on: what was written is the end of the history.
        self._sources.pause()

    def _on_oom(self) -> None:
        with self._guard.quiet():
            self._loop.before_oom_dump()
            self._window.dump_at_oom()
            self._writer.flush()

    def before_fork(self) -> None:
        """Stop a running profiler: a forked child that inherits one ends in a segmentation fault."""
        if not self._finished and system.getpid() == self._pid and self._sources.blocks_fork():
            with self._guard.quiet():
                self._window.drain("fork", resume=False)
            self._forking = True

    def after_fork_in_parent(self) -> None:
        """Go on recording."""
        if self._forking:
            self._forking = False
            with self._guard.quiet():
                self._sources.start()

    def after_fork_in_child(self) -> None:
        """Switch everything off: forked children, data loading workers mostly, are not recorded."""
        was_recording, self._finished = not self._finished, True
        # Or a child that forks in turn would take itself for the parent, and start a profiler that it never stops.
        self._forking = False
        self._attachments.remove()
        self._uninstall_crash()
        if self._sources.cannot_switch():
            # A fork inside a backward pass: the profiler runs on in the child, and would end it by a fault.
            self._loop.on_span_end = self._sources.discard
        self._sources.end_watch()
        if was_recording:
            tell_of_training(self._torch, self._options.parts_dir)


def _survey_file(options: RecordOptions, pid: int) -> OwnFile | None:
    return None if options.survey is None else OwnFile(os.path.join(options.survey.folder, f"{pid}.json"))


def _watch_forks(recorder: Recorder) -> None:
    # Callbacks at a fork cannot be unregistered, so they hold the recording weakly.
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(recorder)

    def call(name: str) -> None:
        found = reference()
        if found is None:
            return
        try:
            getattr(found, name)()
        except Exception:
            # A fork of the program must not fail because of us.
            return

    os.register_at_fork(
        before=lambda: call("before_fork"),
        after_in_parent=lambda: call("after_fork_in_parent"),
        after_in_child=lambda: call("after_fork_in_child"),
    )


def _nothing() -> None:
    return None
