"""Libraries that bind private symbols of a CUDA build when they are imported, and compile what nobody calls."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.fake.cuda.api import cuda_version  # noqa: E402
from tests.process.predicted_programs import notes, predict  # noqa: E402

PROGRAM = Path(__file__).parent / "programs" / "library_at_import.py"


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has what others lack")
def test_a_library_that_binds_private_symbols_is_imported(tmp_path: Path) -> None:
    predict(tmp_path, PROGRAM.read_text(encoding="utf-8"))
    assert "predicted-eager" not in notes(tmp_path)


@pytest.mark.parametrize(
    ("torch_version", "expected"), [("2.13.0+cpu", "13.0"), ("2.10.0", "12.8"), ("2.6.0+cpu", "12.4"), ("3.0", "13.0")]
)
def test_cuda_is_that_of_the_usual_build(torch_version: str, expected: str) -> None:
    assert cuda_version(torch_version) == expected
