"""Start the server that runs programs without the seconds that it takes to import torch."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


@functools.cache
def warm_python() -> str:
    """Return the path of a Python that runs programs in forks of one process, which has imported torch.

    It takes a tenth of the time. Tests of how a program is started, signalled and ended use `sys.executable`, and so
    do all where the system has no way to wait for two things of which one is a process.
    """
    if not hasattr(os, "pidfd_open"):
        return sys.executable
    # Not below pytest's folders: the path of a socket has at most 108 letters.
    folder = Path(tempfile.mkdtemp(prefix="warm"))
    python = folder / "python"
    python.write_text(f"#!{sys.executable} -IS\n{(HERE / 'client.py').read_text()}")
    python.chmod(0o755)
    # The programs bring their own path; what the tests' own brings must not be found by them.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [sys.executable, HERE / "server.py", folder / "socket"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        start_new_session=True,
    )
    atexit.register(_stop, server, folder)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return str(python)


def _stop(server: subprocess.Popen[bytes], folder: Path) -> None:
    """Close the server's stdin, upon which it ends, and leave nothing of it."""
    server.communicate(timeout=30)
    shutil.rmtree(folder)
