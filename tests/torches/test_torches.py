"""What memtrace does with the torch that is there. `make test-torches` runs this on old and new ones.

torch itself is the judge: `witness.py` runs the same program bare. This process imports no torch.
"""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memtrace.launch.watch_library import watch_library
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace
from tests.builders import snapshot
from tests.conftest import RunMemtrace
from tests.torches.versions import FIRST_SUPPORTED, FIRST_WITH_PREDICTIONS, FIRST_WITH_WALK, release

HERE = Path(__file__).parent
PROGRAM = HERE / "train.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything that this torch wrote lies."""
    return tmp_path_factory.mktemp("torch")


@pytest.fixture(scope="module")
def account(folder: Path) -> dict[str, Any]:
    """What torch says of the program."""
    line = [sys.executable, str(HERE / "witness.py"), str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "account.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def trace(folder: Path, run_memtrace: RunMemtrace) -> Path:
    """A recording of the program."""
    path = folder / "trace.json"
    done = run_memtrace("record", "-o", path, "--", sys.executable, PROGRAM)
    assert done.returncode == 0, done.stderr
    assert "Wrote" in done.stderr
    return path


@pytest.fixture(scope="module")
def rank(trace: Path) -> RankTrace:
    """The only process of the recording."""
    (found,) = read_trace(trace).ranks
    return found


@pytest.fixture(scope="module")
def report(trace: Path, run_memtrace: RunMemtrace) -> dict[str, Any]:
    """The report as JSON, of the only rank."""
    return reported(trace, run_memtrace)


def reported(path: Path, run_memtrace: RunMemtrace) -> dict[str, Any]:
    done = run_memtrace("report", "--json", path)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["ranks"]
    return dict(found)


def test_a_recording_is_whole(account: dict[str, Any], rank: RankTrace) -> None:
    assert rank.complete
    assert rank.header["versions"]["torch"] == account["version"]
    assert rank.header["sources"]["events"] == ("cpu_allocator" if watch_library() else "cpu_profiler")
    steps = [row["step"] for row in rank.table("steps").rows() if row["recorded"]]
    # Step 0 is what comes before training.
    assert steps == list(range(len(account["owned"]) + 1))
    phases = {rank.text(row["phase"]) for row in rank.table("phases").rows()}
    assert {"forward", "backward", "optimizer"} <= phases


def test_bytes_of_owners_are_those_of_the_model_itself(account: dict[str, Any], report: dict[str, Any]) -> None:
    ends = [step["end"]["by_category"] for step in report["steps"]]
    assert [{name: end.get(name) for name in owned} for end, owned in zip(ends, account["owned"], strict=True)] == (
        account["owned"]
    )
    assert min(account["owned"][-1].values()) > 0


def test_stacks_name_lines_of_the_program_and_no_addresses(rank: RankTrace) -> None:
    frames = [(rank.text(row["file"]) or "", rank.text(row["function"])) for row in rank.table("frames").rows()]
    assert {function for file, function in frames if file.endswith(PROGRAM.name)} >= {"train", "<module>"}
    assert [function for _, function in frames if re.search(r" at 0x", function or "")] == []


def test_what_autograd_keeps_is_exact_where_this_torch_shows_it(account: dict[str, Any], rank: RankTrace) -> None:
    kept = [0] * len(account["kept"])
    for row in rank.table("saved").rows():
        kept[row["step"] - 1] += row["size_bytes"]
    assert account["shows_saved"] == (release(account["version"]) >= FIRST_WITH_WALK)
    assert kept == (account["kept"] if account["shows_saved"] else [0] * len(kept))
    assert min(account["kept"]) > 0


def test_a_trace_and_its_report_say_that_the_graph_was_not_walked(
    account: dict[str, Any], rank: RankTrace, report: dict[str, Any], trace: Path, run_memtrace: RunMemtrace
) -> None:
    text = run_memtrace("report", trace, "--full").stdout
    assert rank.header["sources"]["saved"] == ("graph_walk" if account["shows_saved"] else None)
    assert ("saved-missing" in {note["slug"] for note in report["warnings"]}) != account["shows_saved"]
    assert ("[saved-missing]" in text) != account["shows_saved"]
    at_backward = report["saved_for_backward"]
    assert len(at_backward) == len(account["kept"])
    assert all((one["inferred_bytes"] > 0) != account["shows_saved"] for one in at_backward)


def test_a_profile_of_this_torch_is_read(account: dict[str, Any], folder: Path, run_memtrace: RunMemtrace) -> None:
    found = reported(folder / "profile.json", run_memtrace)
    assert found["source"] == "kineto"
    assert found["peak"]["requested_bytes"] == account["profiled_bytes"]


def test_a_snapshot_of_this_torch_is_read_with_a_history_in_it(account: dict[str, Any], folder: Path) -> None:
    if not account["built_for_cuda"]:
        pytest.skip("this torch is built without CUDA, and makes no snapshots")
    written = pickle.loads((folder / "snapshot.pickle").read_bytes())
    history = snapshot().live_before(0x1000, 512).alloc(0x2000, 1024).alloc(0x4000, 2048).free(0x2000).build()
    path = folder / "with_history.pickle"
    # Without a GPU torch writes every field of its format but no segments: those are of the tests' own.
    path.write_bytes(pickle.dumps({**written, **{name: history[name] for name in ("segments", "device_traces")}}))
    (rank,) = read_trace(path).ranks
    actions = [(rank.text(row["action"]), row["size_bytes"]) for row in rank.table("events").rows()]
    assert actions == [("alloc", 1024), ("alloc", 2048), ("free_requested", 1024), ("free_completed", 1024)]
    # Beside what torch wrote stands whether its events name their pool: those of the tests' own do not.
    assert rank.header["allocator_settings"] == {**written["allocator_settings"], "events_name_pool": False}
    assert rank.warnings == ()


def test_this_torch_reads_the_snapshot_that_a_trace_is_exported_to(
    trace: Path, rank: RankTrace, folder: Path, run_memtrace: RunMemtrace
) -> None:
    path = folder / "exported.pickle"
    assert run_memtrace("export", trace, "--to", "memory-viz", "-o", path).returncode == 0
    line = [sys.executable, "-W", "ignore", "-m", "torch.cuda._memory_viz", "trace", str(path)]
    said = subprocess.run(line, capture_output=True, text=True, timeout=240, check=True).stdout
    allocated = [row["address"] for row in rank.table("events").rows() if rank.text(row["action"]) == "alloc"]
    assert [int(address) for address in re.findall(r"= MEM\[(\d+):", said)] == allocated


def test_a_prediction_runs_or_says_that_it_cannot(
    account: dict[str, Any], folder: Path, run_memtrace: RunMemtrace
) -> None:
    path = folder / "predicted.json"
    done = run_memtrace("predict", "--gpu", "h100-80gb", "-o", path, "--", sys.executable, PROGRAM, "cuda")
    if release(account["version"]) < FIRST_WITH_PREDICTIONS:
        assert done.returncode != 0
        assert re.search("no prediction with this torch|the program cannot be predicted", done.stderr)
        return
    assert done.returncode == 0, done.stderr
    (predicted,) = read_trace(path).ranks
    parameters = sum(
        row["size_bytes"]
        for row in predicted.table("owners").rows()
        if row["step"] == len(account["owned"]) and predicted.text(row["category"]) == "parameter"
    )
    assert parameters == account["owned"][-1]["parameter"]


def test_the_readme_names_the_torches_at_which_something_begins(repo_root: Path) -> None:
    _, _, table = (repo_root / "README.md").read_text(encoding="utf-8").partition("| torch |")
    table, _, _ = table.partition("\n\n")
    rows = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    begins = [FIRST_SUPPORTED, FIRST_WITH_PREDICTIONS, FIRST_WITH_WALK]
    assert [release(row.split()[0]) for row in rows] == begins
