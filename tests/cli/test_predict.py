"""`memtrace predict` as it is typed, on given runs: its document, many GPUs, what other commands make of its trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group
from memtrace.errors import MemtraceError, RecordError
from memtrace.forecast.gpus import GPUS
from memtrace.launch.asked_ranks import run_as_asked
from memtrace.schema.cuda_context import USUAL_CONTEXT
from memtrace.schema.options import PredictOptions
from memtrace.schema.predicted import ASKED_RANKS
from memtrace.store.trace import LoadWarning, Trace
from tests.forecast.predicted_run import MIB, PARAMETER, RULE, predicted_trace

ACTIVATION = 60 * MIB
NEEDED = PARAMETER + ACTIVATION + RULE
CONTEXT = USUAL_CONTEXT.predicted_bytes
NO_CUDA = "torch 2.13.0 in /env is not built for CUDA"
COMMAND = ("--", "python", "train.py")
BYTES = {"low_bytes", "predicted_bytes", "high_bytes"}
OF_A_GPU = {
    "gpu", "capability", "memory_bytes", "ran_as", "fits", "is_close", "capacity_bytes", "peak_allocated_bytes",
    "max_reserved_bytes", "context_bytes", "headroom_bytes", "failed", "interval", "num_alloc_retries",
}  # fmt: skip
OF_THE_RUN = {
    "format", "version", "command", "trace", "torch", "engine", "engine_reason",
    "num_steps", "world_size", "rank", "ranks", "doubts", "first_step_peak",
    "steady_state_peak", "convolutions", "gpus", "not_predicted", "warnings",
}  # fmt: skip


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[PredictOptions]:
    """The GPUs that runs were told of; on one of capability 9 an activation is twice as large."""
    found: list[PredictOptions] = []

    def simulated(command: tuple[str, ...], path: Path, gpu: PredictOptions, **options: Any) -> Trace:
        found.append(gpu)
        assert options["stdout"] in (None, 2)
        trace = predicted_trace(ACTIVATION * (2 if gpu.capability[0] == 9 else 1), notes=("predicted-values",))
        return Trace(header={"command": list(command)}, ranks=trace.ranks, path=str(path))

    def no_cuda(*_args: Any, **_options: Any) -> dict[str, str]:
        raise MemtraceError(NO_CUDA)

    monkeypatch.setattr("memtrace.launch.prediction.predict", simulated)
    monkeypatch.setattr("memtrace.cli.predicting.engine.devices", no_cuda)
    monkeypatch.chdir(tmp_path)
    return found


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(group, [str(arg) for arg in args])


def test_document_has_what_its_page_names(told: list[PredictOptions], repo_root: Path) -> None:
    result = invoke("predict", "--gpu", "a100-40gb", "--gpus", "24GiB,h100-80gb", "--json", *COMMAND)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document.keys() == OF_THE_RUN | OF_A_GPU
    assert {name: document[name] for name in ("format", "version", "command", "gpu", "ran_as", "fits")} == {
        "format": "memtrace-predict",
        "version": 1,
        "command": ["python", "train.py"],
        "gpu": "a100-40gb",
        "ran_as": "a100-40gb",
        "fits": True,
    }
    assert (document["engine"], document["engine_reason"]) == ("meta", NO_CUDA)
    assert document["interval"].keys() == {"allocated", "reserved", "context", "device"}
    assert all(one.keys() == BYTES for one in document["interval"].values())
    assert document["peak_allocated_bytes"] == document["interval"]["allocated"]["predicted_bytes"] == NEEDED
    assert all(one.keys() == {"slug", "message", "less_bytes", "more_bytes"} for one in document["doubts"])
    unknown = [one["slug"] for one in document["doubts"] if one["less_bytes"] is None]
    assert unknown == ["predicted-values"]
    for name, step in (("first_step_peak", 1), ("steady_state_peak", 2)):
        assert document[name].keys() == {"step", "phase", "allocated_bytes", "reserved_bytes", "by_category"}
        assert (document[name]["step"], document[name]["allocated_bytes"]) == (step, NEEDED)
        assert sum(document[name]["by_category"].values()) == NEEDED
        assert document[name]["by_category"]["parameter"] == PARAMETER
    assert [one.keys() for one in document["gpus"]] == [OF_A_GPU, OF_A_GPU]
    page = (repo_root / "docs" / "predict.md").read_text(encoding="utf-8")
    assert [
        name for name in (*OF_THE_RUN, *OF_A_GPU, *BYTES) if f"`{name}`" not in page and f'"{name}"' not in page
    ] == []


def test_the_program_runs_once_for_each_capability(told: list[PredictOptions]) -> None:
    result = invoke("predict", "--gpu", "l4-24gb", "--gpus", "all", "--json", *COMMAND)
    document = json.loads(result.stdout)
    assert {one["gpu"] for one in document["gpus"]} == GPUS.keys()
    assert told[0].gpu_name == "l4-24gb"
    classes = {(gpu.capability, gpu.is_amd) for gpu in GPUS.values()}
    assert len(told) == 1 + len(classes)
    for one in document["gpus"]:
        expected = NEEDED + (ACTIVATION if one["capability"][0] == 9 else 0)
        assert one["peak_allocated_bytes"] == expected, one["gpu"]
        assert GPUS[one["ran_as"]].capability == GPUS[one["gpu"]].capability
        assert one["headroom_bytes"] == GPUS[one["gpu"]].memory_bytes - one["context_bytes"] - expected
        assert one["context_bytes"] == GPUS[one["gpu"]].context.predicted_bytes
    memory = [one["memory_bytes"] for one in document["gpus"]]
    assert memory == sorted(memory)


def test_text_says_answer_range_doubts_and_a_line_for_each_gpu(told: list[PredictOptions]) -> None:
    short = f"{NEEDED + CONTEXT - 2 * MIB}B"
    result = invoke("predict", "--gpu", short, "--gpus", f"{short},h100-80gb", *COMMAND)
    assert result.exit_code == 0, "one of them fits"
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"Does not fit on {short}: in step 1 a request of 24.0 MiB fails")
    assert "It is close" in lines[0]
    assert any(line.split() == ["allocated", "100", "MiB", "124", "MiB", "148", "MiB"] for line in lines)
    assert any("values of the GPU were made up" in line and line.endswith("(not in the range)") for line in lines)
    assert any(line.split()[:1] == [short] and "too small, close" in line and "-2.00 MiB" in line for line in lines)
    assert any(line.split()[:1] == ["h100-80gb"] and "fits" in line for line in lines)
    assert "once for each compute capability, and was told that its GPU is: " in result.stdout
    alone = invoke("predict", "--force", "--gpu", "h100-80gb", "--gpus", short, *COMMAND)
    assert alone.exit_code == 3, "none of those asked about fits"


def test_a_gpu_that_the_program_refuses_is_named_and_the_others_are_judged(
    told: list[PredictOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    from memtrace.launch import prediction

    simulated = prediction.predict

    def needs_bfloat16(command: tuple[str, ...], path: Path, gpu: PredictOptions, **options: Any) -> Trace:
        if gpu.capability < (8, 0):
            raise RecordError("the program cannot be predicted: it ended with RuntimeError: no bfloat16")
        return simulated(command, path, gpu, **options)

    monkeypatch.setattr("memtrace.launch.prediction.predict", needs_bfloat16)
    names = ("--gpus", "v100-16gb,v100-32gb,a100-40gb")
    document = json.loads(invoke("predict", *names, "--json", *COMMAND).stdout)
    assert [one["gpu"] for one in document["gpus"]] == ["a100-40gb"]
    assert [one["gpu"] for one in document["not_predicted"]] == ["v100-16gb", "v100-32gb"]
    assert all("no bfloat16" in one["reason"] for one in document["not_predicted"])
    only = invoke("predict", "--force", "--gpus", "v100-16gb", *COMMAND)
    assert only.exit_code == 3
    assert "v100-16gb: the program cannot be predicted" in only.stdout


def test_an_unknown_gpu_is_refused_before_anything_runs(told: list[PredictOptions]) -> None:
    result = invoke("predict", "--gpus", "a100-40gb,abacus", *COMMAND)
    assert result.exit_code == 2
    assert "abacus" in result.stderr
    assert not told


@pytest.mark.parametrize("gpu", ["a100-40gb", f"{NEEDED + CONTEXT - 2 * MIB}B"], ids=["fits", "fails"])
def test_every_command_takes_the_trace(told: list[PredictOptions], gpu: str) -> None:
    invoke("predict", "--gpu", gpu, *COMMAND)
    trace = "predicted.json"
    report = invoke("report", trace, "--json")
    assert report.exit_code == 0, report.output
    (rank,) = json.loads(report.stdout)["ranks"]
    assert rank["source"] == "predicted"
    assert "predicted-interval" in {note["slug"] for note in rank["warnings"]}
    assert "predicted, nothing ran on a GPU" in " ".join(invoke("report", trace, "--full").stdout.split())
    whatif = invoke("whatif", trace, "--alloc-conf", "expandable_segments:True", "--json")
    assert whatif.exit_code == 0, whatif.output
    fidelity = json.loads(whatif.stdout)["ranks"][0]["fidelity"]
    assert fidelity["allocations"] == fidelity["allocations_matched"] > 0
    diff = invoke("diff", trace, trace, "--json")
    assert diff.exit_code == 0, diff.output
    assert not any(json.loads(diff.stdout)["peak"]["delta_by_category"].values())
    # A run that ran out of memory passes no check.
    for limit, status in ((f"{NEEDED}B", 0 if gpu == "a100-40gb" else 3), ("1MiB", 3)):
        check = invoke("check", trace, "--budget", f"peak<={limit}", "--json")
        assert check.exit_code == status, check.output
    for target in ("perfetto", "memory-viz", "speedscope", "csv"):
        export = invoke("export", trace, "--to", target)
        assert export.exit_code == 0, export.output
    html = invoke("report", trace, "--html", "report.html")
    assert html.exit_code == 0, html.output
    assert "predicted, nothing ran on a GPU" in Path("report.html").read_text(encoding="utf-8")


def test_what_redaction_leaves_out_is_in_neither_answer_nor_trace(
    told: list[PredictOptions], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = "/home/zuleika/xylophage.py"

    def refused(command: tuple[str, ...], path: Path, gpu: PredictOptions, **_options: Any) -> Trace:
        if gpu.capability < (8, 0):
            raise RecordError(f"{secret}:3: no bfloat16 here", slug="predict-failed")
        rank = predicted_trace(ACTIVATION).ranks[0]
        warned = replace(rank, warnings=(LoadWarning(slug="predicted-values", message="xylophage.py:7: a value"),))
        return Trace(header={"command": list(command)}, ranks=(warned,), path=str(path))

    monkeypatch.setattr("memtrace.launch.prediction.predict", refused)
    options = ("--gpu", "a100-40gb", "--gpus", "t4-16gb,a100-40gb", "--json", "--force", "-o", "predicted.json")
    shown = {}
    for flag in ("", "--redact", "--no-source"):
        result = invoke("predict", *options, *([flag] if flag else []), "--", "python", secret)
        assert result.exit_code == 0, result.output
        shown[flag] = result.stdout + (tmp_path / "predicted.json").read_text()
    assert all(word in shown[""] for word in ("zuleika", "xylophage"))
    assert "zuleika" not in shown["--redact"] + shown["--no-source"]
    assert "xylophage" in shown["--redact"]
    assert "xylophage" not in shown["--no-source"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", 1),
        ("--world-size 2", 2),
        ("--world-size 64", 8),
        ("--world-size 64 --gpus-per-node 4", 4),
        ("--gpus-per-node 3", 3),
    ],
)
def test_a_rank_sees_the_gpus_of_its_machine(told: list[PredictOptions], options: str, expected: int) -> None:
    assert invoke("predict", "--gpu", "a100-40gb", *options.split(), *COMMAND).exit_code == 0
    assert told[0].gpus_per_node == expected


def test_each_rank_has_a_trace_and_the_fullest_is_the_answer(
    told: list[PredictOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    activations = {0: 50 * MIB, 3: 90 * MIB, 7: 60 * MIB}

    def simulated(command: tuple[str, ...], path: Path, gpu: PredictOptions, **_options: Any) -> Trace:
        told.append(gpu)
        rank = predicted_trace(activations[gpu.rank], rank=gpu.rank, world_size=gpu.world_size).ranks[0]
        return Trace(header={"command": list(command)}, ranks=(rank,), path=str(path))

    monkeypatch.setattr("memtrace.launch.prediction.predict", simulated)
    options = ("--gpu", "a100-40gb", "--world-size", "8", "--ranks", "7,0,3", "--force")
    document = json.loads(invoke("predict", *options, "--json", *COMMAND).stdout)
    needs = {rank: PARAMETER + size + RULE for rank, size in activations.items()}
    assert {one["rank"]: one["peak_allocated_bytes"] for one in document["ranks"]} == needs
    assert [one.keys() for one in document["ranks"]] == [OF_A_GPU | {"rank", "trace"}] * 3
    fullest = max(needs, key=needs.__getitem__)
    assert (document["rank"], document["peak_allocated_bytes"]) == (fullest, needs[fullest])
    assert document["trace"] == f"predicted.rank{fullest}.json"
    assert f"rank {fullest}, the fullest of the 3 that ran" in invoke("predict", *options, *COMMAND).stdout
    traces = [one["trace"] for one in document["ranks"]]
    report = json.loads(invoke("report", *traces, "--json").stdout)
    assert [one["rank"] for one in report["ranks"]] == sorted(activations)
    between = f"{needs[fullest] + CONTEXT - MIB}B"
    too_small = invoke("predict", "--gpu", between, *options[2:], *COMMAND)
    assert too_small.exit_code == 3, "one of them does not fit"
    told.clear()
    alone = invoke("predict", "--rank", "3", "--world-size", "8", "--force", *COMMAND)
    assert "It ran as rank 3 of 8." in alone.stdout
    assert [one.rank for one in told] == [3]


@pytest.mark.parametrize("num_layers", [1, 30])
def test_layers_whose_scratch_raises_the_peak_are_listed_the_largest_first(
    told: list[PredictOptions], monkeypatch: pytest.MonkeyPatch, num_layers: int
) -> None:
    over = [number * MIB for number in range(-2, num_layers - 2)]
    noted = [
        {"time_ns": number, "workspace_bytes": 100 * MIB + number, "level_bytes": NEEDED + size}
        for number, size in enumerate(over)
    ]

    def simulated(command: tuple[str, ...], path: Path, gpu: PredictOptions, **_options: Any) -> Trace:
        trace = predicted_trace(ACTIVATION, convolutions=noted)
        return Trace(header={"command": list(command)}, ranks=trace.ranks, path=str(path))

    monkeypatch.setattr("memtrace.launch.prediction.predict", simulated)
    document = json.loads(invoke("predict", "--gpu", "a100-40gb", "--json", *COMMAND).stdout)
    found = document["convolutions"]
    assert [one["more_bytes"] for one in found] == sorted((max(size, 0) for size in over), reverse=True)
    assert {one["workspace_bytes"] for one in found} == {one["workspace_bytes"] for one in noted}
    text = invoke("predict", "--gpu", "a100-40gb", "--force", *COMMAND).stdout
    raising = [size for size in over if size > 0]
    if not raising:
        assert "the scratch of the convolution fits under the peak" in text
        return
    listed = text.partition("scratch of")[2].splitlines()[1:]
    shown = next(at for at, line in enumerate(listed) if line.strip().startswith("and "))
    assert listed[0].endswith(f"{(num_layers - 3)}.0 MiB more")
    assert (
        listed[shown].strip()
        == f"and {len(raising) - shown} more, {len(over) - len(raising)} of which none raises the peak"
    )


@pytest.mark.parametrize("options", ["--rank 2", "--ranks 0,2", "--ranks 1,x", "--rank 1 --ranks all", "--ranks ,"])
def test_ranks_that_are_not_there_are_wrong_usage(told: list[PredictOptions], options: str) -> None:
    result = invoke("predict", "--world-size", "2", *options.split(), *COMMAND)
    assert result.exit_code == 2
    assert not told


def test_ranks_that_tell_what_one_waits_for_run_before_it(told: list[PredictOptions]) -> None:
    """Rank 3 waits for 0 and 2, and rank 2 for 1; each tells it when it has run."""
    waits, has_run = {3: [0, 2], 2: [1]}, set()

    def run(gpu: PredictOptions) -> Trace:
        told.append(gpu)
        missing = [one for one in waits.get(gpu.rank, []) if one not in has_run]
        if missing:
            (Path(str(gpu.told_dir)) / ASKED_RANKS).write_text(json.dumps(missing), encoding="utf-8")
            raise RecordError("it waits")
        has_run.add(gpu.rank)
        return Trace(header={"rank": gpu.rank}, ranks=(), path="")

    options = PredictOptions(
        gpu_name="a100-40gb", gpu_bytes=1, capability=(8, 0), num_steps=3, world_size=4, rank=3, told_dir="."
    )
    assert run_as_asked(run, options).header["rank"] == 3
    assert [one.rank for one in told] == [3, 0, 2, 1, 2, 3]
    waits[3] = [3, 0]
    has_run.clear()
    with pytest.raises(RecordError, match="it waits"):
        run_as_asked(run, options)
