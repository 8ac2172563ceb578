"""What lies where a file is expected and is none: pipes, devices, links that lead in circles or nowhere, folders."""

from __future__ import annotations

import os
import random
import shutil
import socket
from pathlib import Path

LINKS = ("/dev/zero", "/dev/null", "/dev/full", "/dev/stdin", "/proc/self/environ", "nowhere", ".", "")
"""What links lead to; the last to themselves."""


def put_special_file(random_: random.Random, path: Path) -> str:
    """Put something that is no regular file at a path, in place of what is there, and return what it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    kind = random_.choice(("pipe", "socket", "folder", "empty", *["link"] * 4))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        _bind(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    else:
        target = random_.choice(LINKS)
        path.symlink_to(target or path.name)
        kind = f"link to {target or 'itself'}"
    return kind


def _bind(path: Path) -> None:
    """Make a socket; its name may be too long for one, so it is bound from within its folder."""
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("socket")
        os.rename("socket", path.name)
    finally:
        os.fchdir(before)
        os.close(before)
