"""The command that programs of the tests are run with: ask the server beside this file to run them, and end as they do.

It is a `python` to whoever starts it, and takes a few milliseconds where a real one takes seconds to import torch. It
runs isolated and imports little: under `memtrace record` the program is to be recorded, not this.
"""

import json
import os
import resource
import signal
import socket
import sys


def ask(words):
    """Have the server run Python with these words; return its exit status (negative: a signal)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(os.path.join(os.path.dirname(os.path.abspath(__file__)), "socket"))
        request = {"argv": [__file__, *words], "cwd": os.getcwd(), "environ": dict(os.environ)}
        socket.send_fds(connection, [b"!"], [0, 1, 2])
        connection.sendall(json.dumps(request).encode())
        connection.shutdown(socket.SHUT_WR)
        return int(connection.makefile().read())


def end(status):
    """End this process as the program ended."""
    if status >= 0:
        sys.exit(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if -status not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)


if __name__ == "__main__":
    end(ask(sys.argv[1:]))
