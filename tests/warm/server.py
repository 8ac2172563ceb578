"""Runs programs of the tests in forks of a process that has imported torch, as Python would run them.

`python server.py SOCKET` listens until its stdin ends. A fork has the environment, folder, streams and arguments of the
command that asked for it. What runs at Python's start-up runs first, `sitecustomize` among it: under `memtrace record`
that is memtrace's own, which finds torch imported before it, as where a .pth file did so. No part of memtrace is loaded
here. The modules of torch that an optimizer imports are there as well; those that a program changes are its own.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import types
import warnings
from typing import Any, NoReturn

NUM_STREAMS = 3
MOST_DESCRIPTORS = 4096
ENDS_IN_FULL = "WARM_ENDS_IN_FULL"
"""A variable with which a program, and what it forks, ends as Python itself does: by `exit` of the C library."""


def serve(path: str) -> dict[str, Any]:
    """Listen until stdin ends; return only in the forks, each with what it is to run."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(path)
    listening.listen(64)
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in readable:
            os._exit(0)
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            return attend(connection)
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def attend(connection: socket.socket) -> dict[str, Any]:
    """Return in a fork that is to run the program; in this process, wait for it and say how it ended."""
    _, streams, _, _ = socket.recv_fds(connection, 1, NUM_STREAMS)
    request: dict[str, Any] = json.loads(connection.makefile("rb").read())
    program = os.fork()
    if program == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(NUM_STREAMS, MOST_DESCRIPTORS)
        return request
    for stream in streams:
        os.close(stream)
    # The client sends no more: what can be heard of it now is that it is gone, and its program goes with it.
    gone = select.poll()
    gone.register(connection, select.POLLHUP)
    ended = os.pidfd_open(program)
    gone.register(ended, select.POLLIN)
    if ended not in {descriptor for descriptor, _ in gone.poll()}:
        os.kill(program, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(str(status).encode())
    os._exit(0)


def become(request: dict[str, Any], base_path: list[str]) -> list[str]:
    """Make this fork what Python would be before it runs the program; return the words that name the program."""
    os.environ.clear()
    os.environ.update(request["environ"])
    os.chdir(request["cwd"])
    os.setpgid(0, 0)
    sys.orig_argv[:] = request["argv"]
    words = options(request["argv"][1:])
    python_path = os.environ.get("PYTHONPATH", "")
    sys.path[:] = [*(python_path.split(os.pathsep) if python_path else ()), *base_path]
    sys.path_importer_cache.clear()
    sys.modules["__main__"] = types.ModuleType("__main__")
    with contextlib.suppress(ImportError):
        import sitecustomize  # noqa: F401
    return words


def options(words: list[str]) -> list[str]:
    """Do as the options of Python say that the tests use; return what follows them."""
    while words[0] in ("-u", "-W"):
        option, *words = words
        if option == "-u":
            sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        else:
            sys.warnoptions.append(words.pop(0))
            warnings.simplefilter(sys.warnoptions[-1])  # type: ignore[arg-type]
    return words


def run(words: list[str]) -> None:
    """Run a module or a script as `__main__`."""
    if words[0] == "-m":
        sys.argv[:] = words[1:]
        sys.path.insert(0, os.getcwd())
        runpy._run_module_as_main(words[1])  # type: ignore[attr-defined]
        return
    path = os.path.abspath(words[0])
    sys.argv[:] = words
    sys.path.insert(0, os.path.dirname(path))
    main = sys.modules["__main__"]
    main.__dict__.update(__file__=path, __builtins__=__builtins__)
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    exec(code, main.__dict__)


def status_of(words: list[str]) -> int:
    """Run the program and return its exit status; what it raises is shown without the frames of this file."""
    try:
        run(words)
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException as error:
        below = error.__traceback__
        while below is not None and below.tb_frame.f_code.co_filename == __file__:
            below = below.tb_next
        sys.excepthook(type(error), error.with_traceback(below), below)
        return 1
    return 0


def end(status: int) -> NoReturn:
    """End as Python does, but for taking every module apart: where that matters a program asks for it."""
    if os.environ.get(ENDS_IN_FULL):
        sys.exit(status)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status & 0xFF)


if __name__ == "__main__":
    import torch._dynamo  # noqa: F401 (what an optimizer imports)

    # A collection in a fork, of which there are some at its end, would copy all of torch: that takes a second.
    gc.collect()
    gc.freeze()

    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
    path_of_all = list(sys.path)
    end(status_of(become(serve(sys.argv[1]), path_of_all)))
