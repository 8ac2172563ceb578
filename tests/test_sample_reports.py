"""Each sample's report names its cause first, with the line; without the fault there is no false alarm."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Report
from memtrace.store.reading.read import read_trace
from tests.record_samples import RUNS, SAMPLES

MIB = 1 << 20
CAPACITY_BYTES = {"oom_step_two": 75 * MIB}
"""What the device of a sample has, as samples/README.md says."""

FAULTS = {
    "big_logits": ("large-logits", "F.cross_entropy(logits, targets)"),
    "foreach_peak": ("foreach-temporaries", "optimizer.step()"),
    "fragmented": ("fragmentation", "encoded.append("),
    "leak_losses": ("leak", "held_out_losses.append("),
    "oom_step_two": ("oom", "optimizer.step()"),
}
"""The short name of the first finding, and the line that it points to."""


STILL_TRUE = {
    # What is kept is detached; the variable has the graph through the next step, which peaks with it.
    "leak_losses healthy": ["unused-graph"],
}
"""What is said of a program without its fault, and so."""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    """The folder of the recorded samples."""
    folder = tmp_path_factory.mktemp("samples")
    environment = {**os.environ, "PYTHONPATH": str(repo_root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(repo_root / "tests/record_samples.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(path.stem for path in folder.glob("*.json")) == sorted(RUNS)
    return folder


def report_of(recordings: Path, name: str) -> Report:
    return analyze(read_trace([recordings / f"{name}.json"]), capacity_bytes=CAPACITY_BYTES.get(name.split()[0]))


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_the_first_finding_names_the_cause_and_its_line(recordings: Path, name: str) -> None:
    first = report_of(recordings, name).findings[0]
    slug, code = FAULTS[name]
    assert first.slug == slug
    assert first.where is not None
    lines = (SAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert first.where["file"].endswith(f"{name}.py")
    assert code in lines[first.where["line"] - 1]


@pytest.mark.parametrize("name", sorted(set(RUNS) - set(FAULTS)))
def test_a_run_without_a_fault_raises_no_alarm(recordings: Path, name: str) -> None:
    found = report_of(recordings, name).findings
    assert [finding.slug for finding in found if finding.severity != "info"] == STILL_TRUE.get(name, [])


@pytest.mark.parametrize(
    ("name", "healthy"), [("big_logits", "big_logits healthy"), ("foreach_peak", "foreach_peak healthy")]
)
def test_the_promised_peak_is_that_of_the_healthy_run(recordings: Path, name: str, healthy: str) -> None:
    promised = report_of(recordings, name).findings[0].new_peak_bytes
    peak = report_of(recordings, healthy).ranks[0].peak.requested_bytes
    assert promised is not None
    assert peak is not None
    print(f"{name}: promised {promised}, recorded {peak}: {promised / peak - 1:+.2%}")
    assert promised == pytest.approx(peak, rel=0.02)


def defaults(script: str) -> dict[str, int]:
    """Return the numbers that a sample's options have if they are not given."""
    text = (SAMPLES / f"{script}.py").read_text(encoding="utf-8")
    return {name: int(value) for name, value in re.findall(r'"--([a-z]+)", type=int, default=(\d+)', text)}


def test_the_leak_is_what_the_graph_of_a_loss_holds(recordings: Path) -> None:
    rows, hidden, classes = (defaults("leak_losses")[name] for name in ("batch", "hidden", "classes"))
    (leak,) = report_of(recordings, "leak_losses").ranks[0].leaks
    # Four inputs of layers, three inputs of gelu; the log of the softmax; the loss and the weight it was divided by.
    assert leak.bytes_per_step == 4 * (7 * rows * hidden + rows * classes + 2)
    assert leak.cause == "graph"


def test_what_step_one_left_and_step_two_needs_is_exact(recordings: Path) -> None:
    options = defaults("oom_step_two")
    hidden, layers, classes, rows = (options[name] for name in ("hidden", "layers", "classes", "batch"))
    parameters = layers * (hidden * hidden + 3 * hidden) + hidden * classes + classes
    oom = report_of(recordings, "oom_step_two").ranks[0].oom
    assert oom is not None
    assert oom.needs is not None
    assert (oom.predicted, oom.step, oom.needs.step) == (True, 2, 1)
    # Two moments a parameter and a step count a tensor; the logits and the loss.
    states, outputs = 4 * (2 * parameters + 4 * layers + 2), 4 * (rows * classes + 1)
    assert {one.what: one.num_bytes for one in oom.needs.resident} == {"optimizer_state": states, "outputs": outputs}
    peaks = [one.peak_requested_bytes for one in report_of(recordings, "oom_step_two").ranks[0].steps]
    assert (oom.needs.peak_bytes, oom.needs.next_bytes) == (peaks[0], peaks[1])
    assert peaks[0] < CAPACITY_BYTES["oom_step_two"] < peaks[1]


def test_fragments_are_what_each_chunk_leaves_of_a_temporary(recordings: Path) -> None:
    options = defaults("fragmented")
    chunks, rows, hidden, width = (options[name] for name in ("chunks", "chunk", "hidden", "width"))
    found = report_of(recordings, "fragmented").ranks[0].fragmentation
    assert found is not None
    assert found.is_model
    (large,) = (pool for pool in found.moments[0].pools if pool.pool == "large")
    rests = chunks * 4 * rows * (hidden - width)
    # The last chunk's temporary is not cut yet when reserved memory is largest.
    assert rests - 4 * rows * (hidden - width) <= large.split_bytes <= rests
