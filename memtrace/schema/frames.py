"""Which frames of a stack say who asked for memory: the program's own ones, not those of libraries or of C++."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Cells of a notebook are files in Jupyter, and have a name like <ipython-input-3-0123abcd> in a terminal.
_PYTHON = re.compile(r"(?:\.py|^<ipython-input-[^>]*>):\d+(?: |$)")
_LIBRARY = re.compile(
    r"(?:^|[/\\])(?:(?:site-packages|dist-packages|torch|memtrace[/\\]integrations)|lib[/\\]python3[^/\\]*)[/\\]"
    r"|^<(?!ipython-input-)"
)
# How the recorder walked the stack, which is the same for every allocation.
_RECORDER = re.compile(r"torch::unwind|CapturedTraceback|gather_with_cpp|CachingAllocator")


def own_frames(frames: Sequence[str]) -> list[str]:
    """Return the program's own frames, innermost first; else those in Python, else all but the recorder's.

    >>> own_frames(["?? torch::unwind()", "/env/site-packages/torch/nn/functional.py:2 linear", "train.py:7 forward"])
    ['train.py:7 forward']
    >>> own_frames(["?? torch::unwind()", "/env/site-packages/torch/nn/functional.py:2 linear"])
    ['/env/site-packages/torch/nn/functional.py:2 linear']
    >>> own_frames(["<ipython-input-3-0123abcd>:2 <module>", "memtrace/integrations/jupyter.py:9 _run"])
    ['<ipython-input-3-0123abcd>:2 <module>']
    """
    python = [frame for frame in frames if is_python(frame)]
    return [frame for frame in python if not _LIBRARY.search(frame)] or python or _of_cpp(frames)


def is_python(frame: str) -> bool:
    """Return whether a frame is one of Python code."""
    return _PYTHON.search(frame) is not None


def frame_class(frame: str) -> int:
    """Return how much a frame says about who asked: 3 the program's own, 2 of a library, 1 of C++, 0 of the recorder.

    The innermost of the frames with the highest number is the first of `own_frames`.

    >>> frame_class("train.py:7 forward")
    3
    """
    if is_python(frame):
        return 2 if _LIBRARY.search(frame) else 3
    return 0 if _RECORDER.search(frame) else 1


def short_place(place: str) -> str:
    """Return a frame with the last two parts of its path.

    >>> short_place("/home/me/project/models/gpt.py:30 forward")
    'models/gpt.py:30 forward'
    """
    path, space, function = place.partition(" ")
    return "/".join(re.split(r"[/\\]", path)[-2:]) + space + function


def _of_cpp(frames: Sequence[str]) -> list[str]:
    return [frame for frame in frames if not _RECORDER.search(frame)] or list(frames)
