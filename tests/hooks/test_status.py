"""The status file: always whole, always the same size, and never a reason to fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from memtrace.hooks.parts.as_imported import system
from memtrace.hooks.parts.owner_rows import OwnerLayout, Sweep
from memtrace.hooks.parts.status import Status
from memtrace.schema.names import Phase
from memtrace.schema.status import STATUS_BYTES, STATUS_SUFFIX

SECOND = 10**9


def owned(*rows: tuple[int, int, str, str]) -> Sweep:
    """Return a sweep that found these: address, size, category and device of each."""
    lasting = [(device, size, size, category, "name", "float32", "4", None, None) for _, size, category, device in rows]
    return Sweep(OwnerLayout(lasting), [address for address, *_ in rows], now_ns=0, step=1)


def read(folder: Path) -> dict[str, object]:
    """Return what the file says, which is always of one size."""
    content = (folder / f"p{STATUS_SUFFIX}").read_bytes()
    assert len(content) == STATUS_BYTES
    assert content.endswith(b"\n")
    return dict(json.loads(content))


def test_phases_and_steps_are_written_at_once(tmp_path: Path) -> None:
    status = Status(str(tmp_path), "p", levels=lambda: {"device": "cpu", "allocated_bytes": 30})
    status.phase(Phase.FORWARD, 5)
    assert read(tmp_path) == {"step": 0, "phase": "forward", "since_ns": 5, "ended_step": None}
    status.step_ended(0, owned((1, 8, "parameter", "cpu"), (2, 16, "gradient", "cpu")), SECOND)
    status.phase(Phase.BACKWARD, SECOND + 7)
    assert read(tmp_path) == {
        "step": 1,
        "phase": "backward",
        "since_ns": SECOND + 7,
        "ended_step": 0,
        "measured_step": 0,
        "device": "cpu",
        "allocated_bytes": 30,
        "categories_step": 0,
        "by_category": {"parameter": 8, "gradient": 16},
    }


def test_measuring_takes_a_hundredth_of_the_time_at_most(tmp_path: Path) -> None:
    now, spent = [10 * SECOND], [0]

    def levels() -> dict[str, object]:
        now[0] += 3_000_000
        spent[0] += 3_000_000
        return {"device": "cpu", "allocated_bytes": spent[0]}

    status = Status(str(tmp_path), "p", levels=levels, clock=lambda: now[0])
    measured = set()
    for step in range(1000):
        now[0] += 10_000_000
        status.step_ended(step, None, now[0])
        measured.add(read(tmp_path)["measured_step"])
    elapsed = now[0] - 10 * SECOND
    assert 0.5 * elapsed / 100 < spent[0] <= elapsed / 100 + 3_000_000
    assert measured >= {0}
    assert read(tmp_path)["ended_step"] == 999


def test_an_optimizer_in_backward_does_not_write_for_each_parameter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(system, "pwrite", lambda _file, data, _at: written.append(len(data)))
    status = Status(str(tmp_path), "p", levels=dict)
    for at in range(5000):
        status.phase(Phase.OPTIMIZER if at % 2 else Phase.BACKWARD, at)
    assert len(written) < 100
    status.step_ended(1, None, SECOND)
    status.phase(Phase.FORWARD, SECOND + 1)
    assert len(written) < 102


def test_a_storage_counts_once_and_on_its_device_only() -> None:
    sweep = owned(
        *((1, 100, "communication", "cpu"), (1, 100, "gradient", "cpu")),
        # At an address on another device.
        *((2, 7, "optimizer_state", "cuda:0"), (2, 40, "parameter", "cpu"), (3, 40, "parameter", "cpu")),
    )
    assert sweep.bytes_by_category("cpu") == {"communication": 100, "parameter": 80}
    assert sweep.bytes_by_category("cuda:0") == {"optimizer_state": 7}
    assert sweep.bytes_by_category(None) == {}


def test_an_allocator_that_cannot_be_asked_costs_the_bytes_only(tmp_path: Path) -> None:
    asked: list[int] = []

    def levels() -> dict[str, object]:
        asked.append(1)
        raise RuntimeError("no device")

    status = Status(str(tmp_path), "p", levels=levels)
    for step in range(3):
        status.step_ended(step, None, SECOND)
    assert len(asked) == 1
    assert read(tmp_path) == {"step": 3, "phase": "other", "since_ns": SECOND, "ended_step": 2}


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    status = Status(str(tmp_path / "gone"), "p", levels=dict)
    status.phase(Phase.FORWARD, 1)
    status.step_ended(1, None, SECOND)
    status.close()
    assert not (tmp_path / "gone").exists()


def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    status = Status(str(tmp_path), "p", levels=dict)
    status.phase(Phase.FORWARD, 1)
    before = read(tmp_path)
    child = os.fork()
    if child == 0:
        status.phase(Phase.BACKWARD, 2)
        status.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert read(tmp_path) == before
    status.phase(Phase.DATA, 3)
    assert read(tmp_path)["phase"] == "data"
