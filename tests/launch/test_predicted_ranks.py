"""Which processes are the rank that a prediction was asked for, and what each rank is told of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from memtrace.errors import RecordError
from memtrace.launch import prediction
from memtrace.schema.options import PredictOptions
from tests.builders import rank_trace

WORLD, ON_A_MACHINE = 10, 4


def options(rank: int) -> PredictOptions:
    return PredictOptions(
        gpu_name="a100-40gb",
        gpu_bytes=1 << 35,
        capability=(8, 0),
        num_steps=3,
        world_size=WORLD,
        gpus_per_node=ON_A_MACHINE,
        rank=rank,
    )


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of the program; its processes say the ranks that `ran` names."""
    found: dict[str, str] = {}

    def run(_command: Any, _options: Any, environ: Mapping[str, str], **_kwargs: Any) -> int:
        found.update(environ)
        return 0

    monkeypatch.setattr(prediction, "run_command", run)
    monkeypatch.setattr(prediction, "part_names", lambda _folder: ["a part"])
    return found


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, wanted: int, *ran: int | None) -> list[int | None]:
    ranks = [rank_trace(header={"rank": one}) for one in ran]
    monkeypatch.setattr(prediction, "read_parts", lambda _folder: (ranks, []))
    path = folder / "predicted.json"
    trace = prediction.predict(["python", "train.py"], path, options(wanted), force=True, allow_writes=True)
    return [one.rank for one in trace.ranks]


@pytest.mark.parametrize("rank", range(WORLD))
def test_a_rank_is_told_what_a_launcher_of_full_machines_tells(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], tmp_path: Path, rank: int
) -> None:
    assert run(monkeypatch, tmp_path, rank, rank) == [rank]
    machines = [list(range(WORLD))[first : first + ON_A_MACHINE] for first in range(0, WORLD, ON_A_MACHINE)]
    (here,) = (machine for machine in machines if rank in machine)
    expected = {
        "RANK": rank,
        "ROLE_RANK": rank,
        "LOCAL_RANK": here.index(rank),
        "GROUP_RANK": machines.index(here),
        "LOCAL_WORLD_SIZE": len(here),
        "GROUP_WORLD_SIZE": len(machines),
        "WORLD_SIZE": WORLD,
    }
    assert {name: int(told[name]) for name in expected} == expected


def test_of_processes_that_a_program_starts_itself_those_of_the_rank_count(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], tmp_path: Path
) -> None:
    assert run(monkeypatch, tmp_path, 2, 0, 1, 2, None) == [2, None]
    with pytest.raises(RecordError, match="ran as rank 2, but as 0, 1"):
        run(monkeypatch, tmp_path, 2, 1, 0)
