"""Children of a recorded program. Workers started anew (spawn, forkserver) are recorded from when one begins to train.

Most of them load data or serve others, and have nothing to tell, although they run the module level of the program
again. One that makes an optimizer, or runs a backward pass, while its own function runs is a rank or a trainer. Forked
children are not recorded: of those it is told how many trained.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from memtrace.hooks.parts.as_imported import system
from memtrace.hooks.torch_side.patches import Patches, forget_frame, hide_from_warnings, stand_for_builtin
from memtrace.schema.records import UNRECORDED_SUFFIX

_RANK_LAST = -100
"""Of what multiprocessing does when the function of a worker has ended, ours comes last."""


def record_once_it_trains(install: Callable[[], None], end: Callable[[], None]) -> None:
    """Wait for the first sign of training in a worker, here or in what a fork server forks, and call `install` then.

    `end` is called when the worker's function has ended: what a fork server forks runs nothing at its exit.
    """
    optimizer = getattr(sys.modules.get("torch.optim.optimizer"), "Optimizer", None)
    autograd = sys.modules.get("torch.autograd")
    rank_functions = sys.modules.get("torch.multiprocessing.spawn")
    waiting = _Waiting(install, end, _is_in_function_of_worker)
    waiting.for_call(optimizer, "__init__")
    waiting.for_call(autograd, "backward")
    # A rank of torch's own `spawn` is recorded from its start. Children find its wrapper by its name.
    waiting.for_call(rank_functions, "_wrap")


def record_thread_that_trains(install: Callable[[], None], *, by_profiler: bool) -> None:
    """Wait for the first sign of training in whichever thread, and call `install` there.

    Where torch is imported by another thread than the main one, as ahead of its use, that thread may end, or idle on
    until the process does, and a profiler that was started on it would end the process in a segmentation fault.
    `by_profiler` says that it would be recorded by one.
    """
    if by_profiler:
        _settle_profiler()
    waiting = _Waiting(install, None, lambda: True)
    waiting.for_call(getattr(sys.modules.get("torch.optim.optimizer"), "Optimizer", None), "__init__")
    waiting.for_call(sys.modules.get("torch.autograd"), "backward")


def _settle_profiler() -> None:
    """Let the profiler's library begin on the thread that imported torch, or it complains on stderr of another."""
    from memtrace.hooks.sources.cpu_profiler import CpuSource

    try:
        CpuSource(sys.modules["torch"], stacks="none", profile=False, warn=lambda _slug, _message: None)
    except (AttributeError, TypeError, RuntimeError):
        # The recorder says so, if it comes to that.
        return


def when_thread_ends(call: Callable[[], None]) -> Any:
    """Let the calling thread call a function when it ends; what is returned must be kept until then."""
    kept = threading.local()
    kept.end = _End(call)
    return kept


class _End:
    """What a thread drops when it ends."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def __del__(self) -> None:
        self._call()


def tell_of_training(torch: Any, parts_dir: str) -> None:
    """In a forked child, which is not recorded: leave a file in the folder of parts once an optimizer has stepped."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    is_compiling = torch.compiler.is_compiling
    told: set[int] = set()

    def stepped(*_args: Any) -> None:
        if is_compiling() or system.getpid() in told:
            return
        told.add(system.getpid())
        try:
            path = os.path.join(parts_dir, f"{system.getpid()}{UNRECORDED_SUFFIX}")
            system.close(system.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        except OSError:
            # A daemon that outlives the recording.
            return

    register_optimizer_step_post_hook(stepped)


class _Waiting:
    """What was hung onto torch to see training begin."""

    def __init__(
        self, install: Callable[[], None], end: Callable[[], None] | None, is_time: Callable[[], bool]
    ) -> None:
        self._install = install
        self._end = end
        self._is_time = is_time
        self._patches = Patches()

    def for_call(self, owner: Any, name: str) -> None:
        """Take a call of this function, once it is time, for training."""
        original = None if owner is None else getattr(owner, name, None)
        if original is None:
            return

        @functools.wraps(original)
        def first(*args: Any, **kwargs: Any) -> Any:
            following = original
            if self._is_time():
                is_ours = vars(owner).get(name) is first
                self._begin()
                # What the recorder has put in its place by now, unless a wrapper of the program's stands in between.
                following = getattr(owner, name) if is_ours else original
            try:
                return following(*args, **kwargs)
            except BaseException as error:
                forget_frame(error)
                raise

        hide_from_warnings(first)
        self._patches.replace(owner, name, first)
        stand_for_builtin(original, first)

    def _begin(self) -> None:
        self._patches.undo()
        install, self._install = self._install, _nothing
        if install is _nothing:
            return
        try:
            install()
            if self._end is not None:
                _when_function_has_ended(self._end)
        except Exception as error:
            if sys.stderr is not None:
                print(f"memtrace: not recorded: {type(error).__name__}: {error}", file=sys.stderr)


def _is_in_function_of_worker() -> bool:
    """Whether multiprocessing runs a worker's function here, and not the program's module level before it."""
    processes = sys.modules.get("multiprocessing.process")
    return processes is not None and processes.parent_process() is not None


def _when_function_has_ended(end: Callable[[], None]) -> None:
    from multiprocessing.util import Finalize

    pid = system.getpid()
    Finalize(None, lambda: end() if system.getpid() == pid else None, exitpriority=_RANK_LAST)


def _nothing() -> None:
    return None
