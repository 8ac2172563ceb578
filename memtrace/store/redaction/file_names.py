"""What the files of stacks are called where folders, or files themselves, are not to be seen.

What a library is stays to be seen: an analysis tells the program's own lines from those of torch by it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from memtrace.schema.redaction import LIBRARIES, Redaction, hidden_file

_INSTALLED = re.compile(r".*(?:^|[/\\])(?:site|dist)-packages[/\\](?P<rest>.+)", re.DOTALL)
_STANDARD = re.compile(r".*(?:^|[/\\])lib[/\\]python3[^/\\]*[/\\](?P<rest>.+)", re.DOTALL)
_TORCH = re.compile(r".*(?:^|[/\\])torch[/\\](?P<rest>.+)", re.DOTALL)
_OWN = re.compile(r".*(?:^|[/\\])memtrace[/\\]integrations[/\\](?P<rest>.+)", re.DOTALL)
# A folder called torch may be the user's own; what lies in these is in every torch.
_OF_TORCH = re.compile(
    r"(?:(?:__init__|_compile|_jit_internal|_ops|_tensor|_utils|functional|random|serialization|storage)\.py|(?:_C|_dynamo|_inductor|_functorch"
    r"|_higher_order_ops|_prims|_refs|_subclasses|accelerator|amp|ao|autograd|backends|compiler|csrc|cpu|cuda|distributed|export|fft|func|functional|fx|jit|lib"
    r"|library|linalg|masked|mps|multiprocessing|nested|nn|optim|overrides|profiler|random|sparse|special|storage"
    r"|testing|utils|xpu)[/\\].+)"
)


def file_name(redaction: Redaction) -> Callable[[str], str]:
    """Return the function that gives a file its name."""
    return bare_name if redaction is Redaction.PERSONAL else _hidden


def bare_name(file: str) -> str:
    """Return a file without the folders that tell where somebody works.

    >>> bare_name("/home/me/secret/train.py"), bare_name("/opt/lib/site-packages/torch/nn/functional.py")
    ('train.py', 'torch/nn/functional.py')
    >>> bare_name("torch/optim/adam.py"), bare_name("src/secret/model.py"), bare_name("<frozen os>")
    ('torch/optim/adam.py', 'model.py', '<frozen os>')
    >>> bare_name("/home/me/lib/python3.11/threading.py"), bare_name("/home/me/optimizers/lion.py")
    ('lib/python3/threading.py', 'optim/lion.py')
    """
    if not file or file.startswith("<"):
        return file
    library, rest = _library(file)
    if library == "site-packages/" or (library == "torch/" and _OF_TORCH.fullmatch(rest)):
        return library + rest
    base = re.split(r"[/\\]", file)[-1]
    # An optimizer of the program's own is known by its file, or by the folder.
    return library + ("optim/" if "optim" in file.lower() and "optim" not in base.lower() else "") + base


def _hidden(file: str) -> str:
    if not file or (file.startswith("<") and not file.startswith("<ipython-input-")):
        return file
    library, rest = _library(file)
    if library == "torch/" and _OF_TORCH.fullmatch(rest):
        return library + rest
    return hidden_file(file, library=library)


def _library(file: str) -> tuple[str, str]:
    """Return the folder of `LIBRARIES` that a file lies in, and where in it; empty for the program's own."""
    found = _INSTALLED.fullmatch(file)
    if found is not None:
        inner = _TORCH.fullmatch(found["rest"]) if re.match(r"torch[/\\]", found["rest"]) else None
        return ("site-packages/", found["rest"]) if inner is None else ("torch/", found["rest"][len("torch/") :])
    for library, pattern in zip(LIBRARIES[1:], (_STANDARD, _TORCH, _OWN), strict=True):
        found = pattern.fullmatch(file)
        if found is not None:
            return library, found["rest"]
    return "", file
