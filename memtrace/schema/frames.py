"""Which frames of a stack say who asked for memory: the program's own ones, not those of libraries or of C++."""

from __future__ import annotations

import re
from collections.abc import Sequence

WRAPPER_FILE = "<memtrace importlib._bootstrap>"
"""The name of the file of each function of memtrace that stands in the place of one of torch's.

By its words Python's warnings do not count the frame, and by its brackets tools that look into files, as those that
measure coverage, know that there is no such file.
"""
# Cells of a notebook are files in Jupyter, and have a name like <ipython-input-3-0123abcd> in a terminal.
_PYTHON = re.compile(r"(?:\.py|^<ipython-input-[^>]*>):\d+(?: |$)")
_LIBRARY = re.compile(
    r"(?:^|[/\\])(?:(?:site-packages|dist-packages|torch|memtrace[/\\](?:integrations|hooks))|lib[/\\]python3[^/\\]*)[/\\]"
    r"|^<(?!ipython-input-)"
)
# Frames of C++ that say why memory was asked for: the node of the graph that backward runs, else the operator. One that
# only makes a tensor without values was called by another.
# At a word's beginning alone: from each letter of it on, a long name would take hours.
_NODE = re.compile(r"\b(\w+Backward\d*)(?:::apply|_apply)")
_OPERATOR = re.compile(r"\bat::_ops::(?!(?:new_)?empty)(\w+)::(?:re)?(?:call|dispatch)")
# How the recorder walked the stack, which is the same for every allocation.
_RECORDER = re.compile(r"torch::unwind|CapturedTraceback|gather_with_cpp|CachingAllocator")


OF_PROGRAM = 5
"""The class of a frame of the program's own."""


def own_frames(frames: Sequence[str]) -> list[str]:
    """Return the program's own frames, innermost first; else those in Python, nodes of backward, operators, the rest.

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
    """Return how much a frame says about who asked: 5 the program's own, 4 of a library, then a node of backward, an
    operator, 1 the rest of C++, 0 the recorder.

    The innermost of the frames with the highest number is the first of `own_frames`.

    >>> frame_class("train.py:7 forward"), frame_class("?? at::_ops::mul_Tensor::call(at::Tensor const&)")
    (5, 2)
    """
    if is_python(frame):
        return 4 if _LIBRARY.search(frame) else OF_PROGRAM
    if _NODE.search(frame):
        return 3
    if _OPERATOR.search(frame):
        return 2
    return 0 if _RECORDER.search(frame) else 1


def short_place(place: str) -> str:
    """Return a frame with the last two parts of its path; of C++ what it is called, without its signature.

    >>> short_place("/home/me/project/models/gpt.py:30 forward")
    'models/gpt.py:30 forward'
    >>> short_place("?? torch::autograd::generated::DivBackward0::apply(std::vector<at::Tensor>&&)")
    'DivBackward0'
    >>> short_place("?? at::_ops::mul_Tensor::call(at::Tensor const&)")
    'aten::mul_Tensor'
    >>> short_place("?? c10::(anonymous namespace)::make(std::vector<int>)")
    'c10::(anonymous namespace)::make'
    """
    if "::" in place and not is_python(place):
        return _name_of_cpp(place)
    path, space, function = place.partition(" ")
    return "/".join(re.split(r"[/\\]", path)[-2:]) + space + function


def _name_of_cpp(frame: str) -> str:
    if (node := _NODE.search(frame)) is not None:
        return node[1]
    if (operator := _OPERATOR.search(frame)) is not None:
        return f"aten::{operator[1]}"
    # A signature begins at the first parenthesis that names no namespace.
    return re.split(r"\((?!anonymous namespace\))", frame.removeprefix("?? "), maxsplit=1)[0].strip() or frame


def _of_cpp(frames: Sequence[str]) -> list[str]:
    nodes = [frame for frame in frames if _NODE.search(frame)]
    operators = [frame for frame in frames if _OPERATOR.search(frame)]
    return nodes or operators or [frame for frame in frames if not _RECORDER.search(frame)] or list(frames)
