"""`memtrace fit` as it is typed: with simulated runs, with runs that end badly, and with real ones of a sample."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import memtrace.cli.fitting.recorded
from memtrace.cli import group
from memtrace.cli.fitting.recorded import measure_run
from memtrace.forecast.fitting.measure import measure
from memtrace.forecast.fitting.results import Measured
from memtrace.launch.trial import Trial
from tests.conftest import RunMemtrace
from tests.warm.start import warm_python

COMMAND = ("--", "python", "train.py", "--batch-size={mbs}")
MIB = 1024**2


def peak_of(size: int) -> Measured:
    peak = 10 * MIB + 3 * MIB * size
    return Measured(
        peak_bytes=peak, needed_bytes=peak, first_step_peak_bytes=9 * MIB, device_bytes=None, out_of_memory=False
    )


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that were run, each of which needs 10 MiB and 3 MiB a row; the working folder is empty."""
    commands: list[list[str]] = []

    def simulated(command: list[str], size: int, num_steps: int, *, log: Path) -> Measured:
        commands.append(command)
        return peak_of(size)

    monkeypatch.setattr(memtrace.cli.fitting.recorded, "measure_run", simulated)
    monkeypatch.chdir(tmp_path)
    return commands


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(group, ["fit", *map(str, args)])


def test_document_has_what_the_contract_names(ran: list[list[str]]) -> None:
    result = invoke("--capacity", "32MiB", "--json", *COMMAND)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert {name: document[name] for name in ("format", "version", "micro_batch", "capacity_bytes")} == {
        "format": "memtrace-fit",
        "version": 1,
        "micro_batch": 7,
        "capacity_bytes": 32 * MIB,
    }
    assert document["steady_state_peak_bytes"] == 31 * MIB
    assert [(run["micro_batch"], run["peak_bytes"], run["fits"], run["source"]) for run in document["runs"]] == [
        (size, peak_of(size).peak_bytes, size < 8, "recorded") for size in (1, 2, 7, 8)
    ]
    assert ran == [["python", "train.py", f"--batch-size={size}"] for size in (1, 2, 7, 8)]
    assert json.loads(Path("memtrace-fit-train.json").read_text()) == document
    assert [path.name for path in Path().iterdir()] == ["memtrace-fit-train.json"]


def test_text_says_the_answer_and_shows_the_runs(ran: list[list[str]]) -> None:
    result = invoke("--capacity", "32MiB", "-o", "out.json", *COMMAND)
    assert result.stdout.startswith(
        "The largest micro-batch that fits is 7: 31.0 MiB in the steady state, of 32.0 MiB."
    )
    assert "34.0 MiB" in result.stdout
    assert "does not fit" in result.stdout
    assert "\x1b" not in result.output


def test_the_same_command_goes_on_where_it_broke_off(ran: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    simulated: Callable[..., Measured] = memtrace.cli.fitting.recorded.measure_run

    def interrupted(command: list[str], size: int, num_steps: int, *, log: Path) -> Measured:
        if size > 2:
            raise KeyboardInterrupt
        return simulated(command, size, num_steps, log=log)

    with monkeypatch.context() as patch:
        patch.setattr(memtrace.cli.fitting.recorded, "measure_run", interrupted)
        broken = invoke("--capacity", "32MiB", *COMMAND)
    assert broken.exit_code == 130
    assert "2 runs are kept" in broken.stderr
    assert not Path("memtrace-fit-train.json").exists()
    ran.clear()
    assert invoke("--capacity", "35MiB", *COMMAND).exit_code == 0
    assert [command[-1] for command in ran] == ["--batch-size=8", "--batch-size=9"]
    again = invoke("--capacity", "32MiB", *COMMAND)
    assert "exists" in again.stderr
    assert invoke("--capacity", "32MiB", "--force", *COMMAND).exit_code == 0


def test_what_was_measured_for_another_command_is_not_used(ran: list[list[str]]) -> None:
    state = Path("out.json.state")
    invoke("-o", "out.json", *COMMAND)
    assert state.exists(), "on the CPU without a capacity: one run, and no answer"
    other = invoke("-o", "out.json", "--capacity", "32MiB", *COMMAND, "--more")
    assert other.exit_code == 1
    assert "command differ" in other.stderr
    good = state.read_text()
    for text in (
        "",
        "[]",
        '{"runs": 1}',
        good[:40],
        good.replace('"out_of_memory": false', '"out_of_memory": true'),
        good.replace('"needed_bytes": ', '"needed_bytes": -'),
    ):
        state.write_text(text)
        bad = invoke("-o", "out.json", "--capacity", "32MiB", *COMMAND)
        assert bad.exit_code == 1
        assert "no state of a search" in bad.stderr, text
        assert "--force" in bad.stderr
    assert len(ran) == 1


def test_nothing_fits_is_exit_code_3(ran: list[list[str]]) -> None:
    result = invoke("--capacity", "12MiB", *COMMAND)
    assert result.exit_code == 3
    assert "No micro-batch fits in 12.0 MiB" in result.stdout


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--", "python", "train.py"), 2, "the command has no {mbs}"),
        (("--capacity", "1GiB", "--gpu", "h100-80gb", *COMMAND), 2, "give one"),
        (("--gpu", "abacus", *COMMAND), 2, "no GPU"),
        (("--min", "5", "--max", "3", *COMMAND), 1, "no multiple"),
        (("--steps", "2", *COMMAND), 2, "--steps"),
        (("-o", "missing/out.json", *COMMAND), 1, "not a folder"),
        (COMMAND, 1, "on the CPU"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    ran: list[list[str]], args: tuple[str, ...], code: int, message: str
) -> None:
    result = invoke(*args)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (Trial(status=2, was_ended=False, output="usage\nerror: no such file\nWrote t.json (1 KiB)\n"), "no such file"),
        (Trial(status=-11, was_ended=False, output=""), "signal 11"),
        (Trial(status=0, was_ended=False, output="hello"), "nothing was recorded"),
    ],
)
def test_a_run_of_no_use_ends_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trial: Trial, message: str
) -> None:
    monkeypatch.setattr("memtrace.launch.trial.run_trial", lambda *args, **options: trial)
    with pytest.raises(Exception, match=message) as raised:
        measure_run(["python"], 4, 3, log=tmp_path / "log")
    assert "micro-batch 4" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_run_that_says_it_had_no_memory_does_not_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing was recorded: the process may have had no memory for that either."""
    trial = Trial(status=1, was_ended=False, output="torch.OutOfMemoryError: CUDA out of memory. Tried …")
    monkeypatch.setattr("memtrace.launch.trial.run_trial", lambda *args, **options: trial)
    assert measure_run(["python"], 4, 3, log=tmp_path / "log").out_of_memory


PROGRAM = """
import sys, torch
size = int(sys.argv[1])
model = torch.nn.Linear(1000, 10)
optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
for step in range(100_000):
    if size == 3 and step == 2:
        raise torch.OutOfMemoryError("out of memory")
    model(torch.randn(1000 * size, 1000)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def test_a_run_out_of_memory_does_not_fit(tmp_path: Path, run_memtrace: RunMemtrace) -> None:
    pytest.importorskip("torch")
    (tmp_path / "train.py").write_text(PROGRAM)
    done = run_memtrace(
        "fit", "--capacity", "1GiB", "--min", 2, "--max", 3, "--json", "--", warm_python(), "train.py", "{mbs}",
        cwd=tmp_path, env={"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["micro_batch"] == 2
    assert [run["out_of_memory"] for run in document["runs"]] == [False, True]
    assert "memory of this machine" in document["notes"][0]


@pytest.mark.slow
def test_the_largest_micro_batch_of_a_sample_is_that_which_recordings_tell(
    tmp_path: Path, run_memtrace: RunMemtrace, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from memtrace.analysis.report import analyze
    from memtrace.store.reading.read import read_trace

    train = (warm_python(), repo_root / "samples" / "train_gpt.py", "--device", "cpu", "--layers", "1")
    options = {"cwd": tmp_path, "env": {"OMP_NUM_THREADS": "1"}}
    peaks = []
    for size in (5, 6):
        trace = tmp_path / f"{size}.json"
        done = run_memtrace("record", "-o", trace, "--", *train, "--micro-batch", size, "--steps", 3, **options)
        assert done.returncode == 0, done.stderr
        report = analyze(read_trace((trace,)))
        peak = report.ranks[0].steady_state_peak
        assert peak is not None
        assert peak.allocated_bytes is not None
        peaks.append(peak.allocated_bytes)
        assert (measure(report, 3) or peak_of(0)).peak_bytes == peak.allocated_bytes
        assert measure(report, 4) is None

    def short_run(command: list[str], trace: Path, *args: object, **options: object) -> Trial:
        shutil.copy(tmp_path / "5.json", trace)
        return Trial(status=0, was_ended=False, output="")

    with monkeypatch.context() as patch:
        patch.setattr("memtrace.launch.trial.run_trial", short_run)
        with pytest.raises(click.UsageError, match="ended after 3 optimizer steps and 4 are needed"):
            measure_run(["python"], 5, 4, log=tmp_path / "log")
    found = run_memtrace(
        "fit", "--capacity", f"{peaks[1] - 1}B", "--min", 3, "--json", "-o", "fit.json",
        "--", *train, "--steps", 100_000, "--micro-batch", "{mbs}", **options,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout)
    assert document["micro_batch"] == 5
    assert document["steady_state_peak_bytes"] == peaks[0]
    assert {run["micro_batch"]: run["peak_bytes"] for run in document["runs"]}[6] == peaks[1]
    assert [run["micro_batch"] for run in document["runs"]] == [3, 6, 5], "two small runs, and what a line tells"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5.json", "6.json", "fit.json"]
