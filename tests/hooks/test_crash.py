"""The crash watch: sees how a program ends, and what the program prints about it stays the same."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from memtrace.hooks.failure import crash
from memtrace.hooks.failure.tracebacks import strip_exception

Seen = list[tuple[type[BaseException], str]]


@pytest.fixture
def seen() -> Seen:
    return []


@pytest.fixture
def uninstall(seen: Seen) -> Iterator[Callable[[], None]]:
    before = sys.excepthook, threading.excepthook
    uninstall = crash.install(lambda kind, error, tb: seen.append((kind, str(error))), lambda: None)
    yield uninstall
    uninstall()
    sys.excepthook, threading.excepthook = before


def caught(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


def test_the_hook_that_was_there_is_called_after_ours_and_comes_back(seen: Seen, monkeypatch: Any) -> None:
    printed: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, tb: printed.append(f"{error} after {len(seen)}"))
    theirs = sys.excepthook
    uninstall = crash.install(lambda kind, error, tb: seen.append((kind, str(error))), lambda: None)
    error = caught(lambda: [][0])
    sys.excepthook(type(error), error, error.__traceback__)
    assert seen == [(IndexError, "list index out of range")]
    assert printed == ["list index out of range after 1"]
    uninstall()
    assert sys.excepthook is theirs
    uninstall()  # twice does no harm


def test_a_hook_chained_onto_ours_stays_and_ours_only_passes_on(
    seen: Seen, uninstall: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = sys.excepthook

    def chained(kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
        ours(kind, error, tb)

    sys.excepthook = chained
    uninstall()
    assert sys.excepthook is chained
    sys.excepthook(ValueError, ValueError("later"), None)
    assert seen == []
    assert "ValueError: later" in capsys.readouterr().err


def test_a_failing_callback_does_not_hide_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    uninstall = crash.install(lambda *_: 1 / 0, lambda: None)  # type: ignore[arg-type,return-value]
    try:
        sys.excepthook(ValueError, ValueError("the user's"), None)
    finally:
        uninstall()
    assert capsys.readouterr().err.splitlines()[-1] == "ValueError: the user's"


def test_exceptions_of_threads_are_seen_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    described: list[dict[str, Any]] = []
    printed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    uninstall = crash.install(lambda *exception: described.append(crash.describe(*exception)), lambda: None)
    try:
        for target in (lambda: {}["missing"], sys.exit):
            thread = threading.Thread(target=target, name="loader")
            thread.start()
            thread.join()
    finally:
        uninstall()
    assert [(one["type"], one["message"], one["thread"]) for one in described] == [("KeyError", "'missing'", "loader")]
    assert [args.exc_type for args in printed] == [KeyError, SystemExit]


def own_frame(function: Callable[[], object]) -> Callable[[], object]:
    """Return a function that looks as if it were one of memtrace's hooks."""
    namespace: dict[str, Any] = {"function": function}
    folder = Path(crash.__file__).parents[1]
    exec(compile("def wrapper():\n    function()\n", str(folder / "patches.py"), "exec"), namespace)
    return namespace["wrapper"]  # type: ignore[no-any-return]


def test_frames_of_memtrace_are_left_out_everywhere() -> None:
    def user() -> None:
        raise ValueError("bad")

    def chained() -> None:
        try:
            own_frame(user)()
        except ValueError as error:
            raise RuntimeError("worse") from error

    error = caught(own_frame(own_frame(chained)))
    assert "patches.py" in "".join(traceback.format_exception(error))
    strip_exception(error)
    shown = "".join(traceback.format_exception(error))
    assert "patches.py" not in shown
    assert shown.count("in user") == 1
    assert shown.count("in chained") == 2
    stack = crash.describe(type(error), error, error.__traceback__)["stack"]
    assert [frame["function"] for frame in stack] == ["chained", "caught"]


def test_describe_redacted_keeps_no_message_and_no_folder() -> None:
    error = caught(lambda: Path("/home/someone/secret").read_text())
    described = crash.describe(type(error), error, error.__traceback__, redact=True)
    assert described["type"] == "FileNotFoundError"
    assert described["message"] is None
    assert {frame["file"] for frame in described["stack"]} >= {"test_crash.py"}
    assert not any("/" in frame["file"] for frame in described["stack"])


def test_the_sizes_in_an_out_of_memory_message_are_kept() -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    error = OutOfMemoryError("Tried to allocate 2.00 GiB")
    assert crash.describe(type(error), error, None, redact=True)["message"] == "Tried to allocate 2.00 GiB"


def test_a_deep_recursion_is_cut() -> None:
    def deeper() -> None:
        deeper()

    error = caught(deeper)
    assert len(crash.describe(type(error), error, error.__traceback__)["stack"]) <= crash.MAX_FRAMES


def run_program(source: str) -> subprocess.CompletedProcess[str]:
    prelude = """import sys
from memtrace.hooks.failure import crash
print = lambda *a: sys.stdout.write(' '.join(a) + '\\n')
"""
    program = prelude + textwrap.dedent(source)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


INSTALL = "crash.install(lambda k, e, t: print('saw', k.__name__), lambda: print('exit'))\n"


@pytest.mark.parametrize(
    ("ending", "expected", "returncode"),
    [
        ("", "exit\n", 0),
        ("1 / 0", "saw ZeroDivisionError\nexit\n", 1),
        ("sys.exit(3)", "exit\n", 3),
        ("raise KeyboardInterrupt", "saw KeyboardInterrupt\nexit\n", -2),
        ("import os; sys.stdout.flush(); os._exit(4)", "", 4),
        ("sys.excepthook = lambda *a: print('theirs'); 1 / 0", "theirs\nsaw ZeroDivisionError\nexit\n", 1),
        ("import os; os.fork() or sys.exit(5); os.wait()", "exit\n", 0),
    ],
    ids=["end", "error", "exit", "interrupt", "_exit", "replaced", "fork"],
)
def test_ends_of_programs(ending: str, expected: str, returncode: int) -> None:
    result = run_program(INSTALL + ending)
    assert (result.stdout, result.returncode) == (expected, returncode)


def test_the_traceback_on_stderr_is_that_of_a_bare_run() -> None:
    ending = (
        "def f():\n    raise ValueError('x')\ntry:\n    f()\nexcept ValueError as e:\n    raise KeyError(1) from e\n"
    )
    assert run_program(INSTALL + ending).stderr == run_program("\n" + ending).stderr


def test_uninstall_takes_the_exit_callback_along() -> None:
    result = run_program("crash.install(lambda *a: None, lambda: print('exit'))()\nprint('end')")
    assert result.stdout == "end\n"
