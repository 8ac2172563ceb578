"""Which engine `memtrace predict` takes, what it is told, and what it says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group
from memtrace.errors import MemtraceError
from memtrace.forecast.gpus import GPUS, gpu_named
from memtrace.forecast.prediction.judge import placed_trace, usable_bytes
from memtrace.schema.cuda_context import USUAL_CONTEXT
from memtrace.schema.options import PredictOptions
from memtrace.schema.predicted import DRIVERLESS, META
from memtrace.store.trace import Trace
from tests.forecast.predicted_run import MIB, PARAMETER, RULE, predicted_trace

ACTIVATION = 60 * MIB
NEEDED = PARAMETER + ACTIVATION + RULE
COMMAND = ("--", "python", "train.py")
MISSING = "torch 2.13.0 in /env is not built for CUDA"
SMALL = gpu_named(f"{NEEDED + USUAL_CONTEXT.predicted_bytes - 2 * MIB}B")


def invoke(*args: str) -> Result:
    return CliRunner().invoke(group, ["predict", "--force", *args])


class Runs:
    """Stands for the program: what each run was told, and whether its Python has CUDA."""

    def __init__(self) -> None:
        self.has_cuda = True
        self.told: list[tuple[PredictOptions, dict[str, str] | None]] = []

    def devices(self, _command: Any, gpu: Any, *, num_devices: int = 1, without_end: bool = False) -> dict[str, str]:
        if not self.has_cuda:
            raise MemtraceError(MISSING, hint="another torch")
        if gpu.is_amd:
            raise MemtraceError(f"{gpu.name} is not NVIDIA's")
        return {"MEMORY": "endless" if without_end else str(gpu.memory_bytes), "DEVICES": str(num_devices)}

    def predict(self, command: Any, path: Path, gpu: PredictOptions, **options: Any) -> Trace:
        self.told.append((gpu, options["variables"] or None))
        made = predicted_trace(ACTIVATION)
        if gpu.engine == META:
            return Trace(header={"command": list(command)}, ranks=made.ranks, path=str(path))
        # What torch leaves has addresses and segments, as the model gives them, and ends where memory does.
        endless = (options["variables"] or {})["MEMORY"] == "endless"
        placed, verdict = placed_trace(made, gpu_named("500GiB" if endless else f"{gpu.gpu_bytes}B"))
        status = 0 if verdict.fits else 1
        return Trace(header={"command": list(command), "exit_status": status}, ranks=placed.ranks, path=str(path))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    found = Runs()
    monkeypatch.setattr("memtrace.cli.predicting.engine.devices", found.devices)
    monkeypatch.setattr("memtrace.launch.prediction.predict", found.predict)
    monkeypatch.chdir(tmp_path)
    return found


@pytest.mark.parametrize(("has_cuda", "expected"), [(True, DRIVERLESS), (False, META)])
def test_auto_takes_torchs_own_code_where_it_can_and_says_why_not(runs: Runs, has_cuda: bool, expected: str) -> None:
    runs.has_cuda = has_cuda
    document = json.loads(invoke("--json", *COMMAND).stdout)
    (told,) = runs.told
    assert document["engine"] == told[0].engine == expected
    assert (told[1] is None) == (expected == META)
    assert has_cuda or document["engine_reason"] == MISSING
    header = json.loads(Path("predicted.json").read_text(encoding="utf-8"))["ranks"][0]["header"]["prediction"]
    assert (header["engine"], header["engine_reason"]) == (expected, document["engine_reason"])
    assert f"Engine {expected}: " in invoke(*COMMAND).stdout


def test_why_names_no_folder_where_that_is_not_to_be_seen(runs: Runs) -> None:
    runs.has_cuda = False
    document = json.loads(invoke("--redact", "--json", *COMMAND).stdout)
    assert "/env" not in document["engine_reason"]
    assert "is not built for CUDA" in document["engine_reason"]
    assert "/env" not in Path("predicted.json").read_text(encoding="utf-8")


def test_meta_is_taken_where_it_is_asked_for(runs: Runs) -> None:
    document = json.loads(invoke("--engine", META, "--json", *COMMAND).stdout)
    assert document["engine"] == META
    assert "--engine meta" in document["engine_reason"]


def test_driverless_where_it_cannot_run_is_refused_before_anything_runs(runs: Runs) -> None:
    runs.has_cuda = False
    result = invoke("--engine", DRIVERLESS, *COMMAND)
    assert result.exit_code == 1
    assert MISSING in result.stderr
    assert "another torch" in result.stderr
    assert not runs.told


def test_what_runs_out_of_memory_is_run_again_to_say_what_it_needs(runs: Runs) -> None:
    result = invoke("--gpu", SMALL.name, "--json", *COMMAND)
    assert result.exit_code == 3, result.output
    document = json.loads(result.stdout)
    assert [devices["MEMORY"] for _, devices in runs.told if devices] == [str(SMALL.memory_bytes), "endless"]
    assert document["peak_allocated_bytes"] == NEEDED
    assert document["failed"]["request_bytes"] == RULE
    assert document["failed"]["allocated_bytes"] == NEEDED - RULE
    assert document["failed"]["step"] == 1


def test_a_smaller_gpu_is_run_only_where_it_makes_a_difference(runs: Runs) -> None:
    names = f"{SMALL.name},a100-40gb,a100-80gb,mi300x-192gb"
    document = json.loads(invoke("--gpus", names, "--json", *COMMAND).stdout)
    fits = {one["gpu"]: one["fits"] for one in document["gpus"]}
    assert fits == {SMALL.name: False, "a100-40gb": True, "a100-80gb": True}
    assert [one["gpu"] for one in document["not_predicted"]] == ["mi300x-192gb"]
    ran = [gpu.gpu_name for gpu, _ in runs.told]
    # First the one of --gpu; then the largest of the kind, and the small one, once more without end.
    assert ran == ["h100-80gb", "a100-80gb", SMALL.name, SMALL.name]
    for one in document["gpus"]:
        assert one["headroom_bytes"] == usable_bytes(GPUS.get(one["gpu"], SMALL)) - NEEDED


def test_a_rank_of_many_sees_the_gpus_of_its_node(runs: Runs) -> None:
    invoke("--world-size", "64", *COMMAND)
    ((options, devices),) = runs.told
    assert options.world_size == 64
    assert (devices or {}).get("DEVICES") == "8"
