"""The collector's tables are asked for tensors only where no other thread may be letting go of one."""

from __future__ import annotations

import gc
import threading
import time
import weakref

from memtrace.hooks.keepers.other_threads import others_run


def until(wanted: bool) -> bool:
    """Return whether `others_run` says so within ten seconds: a thread takes a moment to begin."""
    end = time.monotonic() + 10
    while others_run() is not wanted and time.monotonic() < end:
        time.sleep(0.001)
    return others_run() is wanted


def test_a_thread_that_waits_in_pythons_library_frees_nothing() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert until(False)
    finally:
        over.set()
        thread.join()


def test_a_thread_that_runs_the_program_may() -> None:
    is_over = False

    def run() -> None:
        while not is_over:
            sum(range(1000))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert all(until(True) for _ in range(20))
    finally:
        is_over = True
        thread.join()
    assert until(False)


def test_to_ask_keeps_no_variable_of_a_caller() -> None:
    class Held:
        pass

    def ask() -> weakref.ref[Held]:
        held = Held()
        others_run()
        return weakref.ref(held)

    gc.disable()
    try:
        assert ask()() is None
    finally:
        gc.enable()
