"""Pickles from strangers: only plain dicts, lists, texts and numbers come out, nothing is ever executed.

A pickle runs code by naming a function or class and calling it. Here naming anything is refused, so there is nothing to
call. What remains is memory: a few bytes can ask for a table of gigabytes (LONG_BINPUT), so it is capped while loading;
and hashing a tuple that is nested a million deep overflows the C stack, so such a file is loaded on a larger one.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, NoReturn

from memtrace.errors import TraceReadError
from memtrace.printable import escaped

_MEMORY_FACTOR = 200
"""Most memory that loading may take, as a multiple of the file. A dict (64 bytes) takes one byte of pickle."""
_MEMORY_FLOOR_BYTES = 2 * 1024**3


class RefusedError(pickle.UnpicklingError):
    """The pickle names something outside itself."""


class _PlainUnpickler(pickle.Unpickler):
    """Builds plain values only: every other way to make an object ends here."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise RefusedError(f"{module}.{name}"[:200])

    def persistent_load(self, pid: Any) -> NoReturn:
        raise RefusedError("a persistent id")


def load_plain_pickle(file: IO[bytes], *, size_bytes: int, where: str) -> Any:
    """Return the plain value in an open pickle.

    Raises:
        TraceReadError: truncated, damaged, too large when expanded, or not plain data.
    """
    try:
        return _on_stack(_stack_bytes(file), lambda: _load(file, size_bytes))
    except RefusedError as error:
        raise TraceReadError(
            f"{where}: refused: this pickle would run code (it names {escaped(str(error))}); nothing was executed",
            hint="a memory snapshot of torch holds plain data only; where does this file come from?",
            slug="pickle-refused",
        ) from None
    except EOFError:
        raise TraceReadError(
            f"{where}: the pickle is cut off", hint="copy or record it again", slug="file-truncated"
        ) from None
    except MemoryError:
        raise TraceReadError(
            f"{where}: the pickle asks for more memory than its size can justify", slug="file-too-large"
        ) from None
    # A damaged pickle surfaces as almost any error of the values it builds: it is data, so all of them are.
    except Exception as error:
        cut = "truncated" in str(error) or "ran out" in str(error)
        raise TraceReadError(
            f"{where}: {'the pickle is cut off' if cut else 'not a readable pickle'} ({escaped(str(error))[:120]})",
            hint="copy or record it again",
            slug="file-truncated" if cut else "file-damaged",
        ) from None


def _load(file: IO[bytes], size_bytes: int) -> Any:
    with _memory_cap(_MEMORY_FLOOR_BYTES + _MEMORY_FACTOR * size_bytes):
        return _PlainUnpickler(file).load()


_TUPLE_OPCODES = b"\x85\x86\x87t"
_DEEP = 10_000
"""Tuples that any thread's stack can hold inside each other."""
_STACK_BYTES_A_TUPLE = 512
"""Stack that hashing one more level may take; measured below 80."""
_MAX_STACK_BYTES = 8 * 1024**3
"""Only addresses: a stack takes memory as it is used."""


def _stack_bytes(file: IO[bytes]) -> int:
    """Return how much stack the tuples of a pickle could need, were they nested; 0 if any thread has as much."""
    start = file.tell()
    num_tuples = 0
    while piece := file.read(1 << 20):
        num_tuples += len(piece) - len(piece.translate(None, _TUPLE_OPCODES))
    file.seek(start)
    return min(num_tuples * _STACK_BYTES_A_TUPLE, _MAX_STACK_BYTES) if num_tuples > _DEEP else 0


def _on_stack(stack_bytes: int, function: Callable[[], Any]) -> Any:
    """Return what a function returns, run in a thread with so much stack; 0 runs it here."""
    if not stack_bytes:
        return function()
    done: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(function())
        except BaseException as error:
            failed.append(error)

    before = threading.stack_size(stack_bytes)
    try:
        thread = threading.Thread(target=run, name="memtrace-unpickle", daemon=True)
        thread.start()
    except RuntimeError:
        raise MemoryError from None
    finally:
        threading.stack_size(before)
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


@contextlib.contextmanager
def _memory_cap(num_bytes: int) -> Iterator[None]:
    """Let this process grow by at most so many bytes for a while, where the system offers that."""
    try:
        import resource

        with open("/proc/self/statm") as statm:
            in_use = int(statm.read().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        cap = in_use + num_bytes
        for limit in (soft, hard):
            cap = cap if limit == resource.RLIM_INFINITY else min(cap, limit)
        resource.setrlimit(resource.RLIMIT_AS, (cap, hard))
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
