"""What a prediction allocates and keeps for backward is what the same program really does on the CPU, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.hooks import fake_oracle  # noqa: E402
from tests.hooks.fake_oracle import BATCH, PROGRAMS, ROWS, WIDTH  # noqa: E402

LOOPS = [
    "adamw", "adamw_loop", "adamw_fused", "sgd_momentum", "adafactor", "rmsprop", "clipped",
    "scaler", "bfloat16", "checkpoint", "checkpoint_reentrant",
]  # fmt: skip
SCALAR = 8
"""Bytes up to which something is a number: on the host, AdamW counts its steps in some, and scalars become tensors."""
STATISTICS = BATCH * ROWS
"""Rows over which a layer norm has a mean and a deviation."""

Runs = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What all programs did, in a process of their own."""
    done = subprocess.run(
        [sys.executable, fake_oracle.__file__],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["programs"].keys() == PROGRAMS.keys()
    return found


@pytest.fixture(scope="module")
def runs(told: dict[str, Any]) -> Runs:
    return dict(told["programs"])


def element_bytes(name: str) -> int:
    return 2 if name == "bfloat16" else 4


def saved(runs: Runs, name: str, device: str) -> list[Counter[tuple[Any, ...]]]:
    return [Counter(map(tuple, rows)) for rows in runs[name][device]["saved"]]


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "bfloat16"])
def test_autograd_keeps_the_same(runs: Runs, name: str) -> None:
    real, fake = (saved(runs, name, device) for device in ("cpu", "cuda"))
    assert real
    assert all(sum(found.values()) > 3 for found in real)
    assert fake == real


def test_a_layer_norm_of_16_bits_keeps_its_statistics_in_32_on_a_gpu(runs: Runs) -> None:
    for real, fake in zip(saved(runs, "bfloat16", "cpu"), saved(runs, "bfloat16", "cuda"), strict=True):
        of_host = ("NativeLayerNormBackward0", "bfloat16", f"{BATCH}x{ROWS}x1", 2 * STATISTICS)
        of_gpu = ("NativeLayerNormBackward0", "float32", f"{BATCH}x{ROWS}x1", 4 * STATISTICS)
        norms = 3
        assert real - fake == Counter({of_host: 2 * norms})
        assert fake - real == Counter({of_gpu: 2 * norms})


@pytest.mark.parametrize("name", LOOPS)
def test_each_request_of_a_step_is_the_same_and_in_the_same_order(told: dict[str, Any], name: str) -> None:
    # The host keeps its random state for a recomputation, and its layer norm backward adds up in scratch memory.
    scratch = 2 * WIDTH * element_bytes(name)
    host_only = {told["random_state"], scratch}
    both = {device: told["programs"][name][device]["phases"] for device in ("cpu", "cuda")}
    names = [phase for phase, _ in both["cpu"]]
    assert names == [phase for phase, _ in both["cuda"]]
    assert names.count("optimizer") == fake_oracle.STEPS
    assert sum(both["cpu"][0][1]) == sum(both["cuda"][0][1])
    for (phase, real), (_, fake) in list(zip(both["cpu"], both["cuda"], strict=True))[1:]:
        expected = list(_widened(real, name))
        assert requests(fake) == requests(expected, without=host_only), phase
        assert scratch not in map(abs, fake)


def _widened(sizes: list[int], name: str) -> Iterator[int]:
    for size in sizes:
        is_statistic = name == "bfloat16" and abs(size) == 2 * STATISTICS
        yield 2 * size if is_statistic else size


def requests(sizes: list[int], without: set[int] = frozenset()) -> list[int]:  # type: ignore[assignment]
    return [size for size in sizes if abs(size) > SCALAR and abs(size) not in without]


def test_autocast_casts_as_it_says(runs: Runs) -> None:
    phases = zip(runs["autocast"]["cpu"]["phases"], runs["autocast"]["cuda"]["phases"], strict=True)
    for (phase, real), (_, fake) in phases:
        # The host's kernels copy where types are mixed, and CUDA's softmax multiplies gradient and output first;
        # nothing else differs, neither what stays nor the peak.
        product = 4 * BATCH * ROWS * ROWS
        allowed = Counter([product, -product]) if phase == "backward" else Counter()
        assert Counter(fake) - Counter(real) == allowed, phase
        assert sum(fake) == sum(real)
        assert max(accumulate(fake), default=0) == max(accumulate(real), default=0)
