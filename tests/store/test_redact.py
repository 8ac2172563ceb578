"""Paths are dropped from stacks; in recordings of accelerators every frame has its whole path."""

from __future__ import annotations

import pickle
from pathlib import Path

from memtrace.store.reading.read import read_trace
from memtrace.store.redact import without_paths
from tests.builders import snapshot


def test_stacks_keep_file_names_without_folders(tmp_path: Path) -> None:
    frames = [("/home/me/secret/train.py", 3, "train"), ("/env/lib/site-packages/torch/nn/functional.py", 9, "linear")]
    path = tmp_path / "s.pickle"
    path.write_bytes(pickle.dumps(snapshot().alloc(0x1000, 512, frames=frames).build()))
    (rank,) = read_trace(path).ranks
    redacted = without_paths(rank)
    names = [redacted.text(file) for file in redacted.table("frames")["file"]]
    assert names == ["torch/nn/functional.py", "train.py"] or names == ["train.py", "torch/nn/functional.py"]
    assert not any("secret" in text for text in redacted.strings)
    assert "/home/me/secret/train.py" in rank.strings
