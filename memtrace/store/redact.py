"""Dropping paths: stacks keep file names, not the folders they lie in. What installed packages are called stays."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace

_INSTALLED = re.compile(r".*[/\\](?:site|dist)-packages[/\\]")


def without_paths(rank: RankTrace) -> RankTrace:
    """Return the trace with every file of its stacks under its bare name."""
    files = np.unique(rank.table("frames")["file"])
    strings = list(rank.strings)
    for string_id in files[files != NULL].tolist():
        strings[string_id] = bare_name(strings[string_id])
    return replace(rank, strings=tuple(strings))


def bare_name(file: str) -> str:
    """Return a file without the folders that tell where somebody works.

    >>> bare_name("/home/me/secret/train.py"), bare_name("/opt/lib/site-packages/torch/nn/functional.py")
    ('train.py', 'torch/nn/functional.py')
    >>> bare_name("torch/optim/adam.py"), bare_name("src/secret/model.py"), bare_name("<frozen os>")
    ('torch/optim/adam.py', 'model.py', '<frozen os>')
    """
    installed = _INSTALLED.match(file)
    if installed is not None:
        return file[installed.end() :]
    if file.startswith(("torch/", "<")):
        return file
    return re.split(r"[/\\]", file)[-1]
