"""Where a recording may go, decided before the program is started."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memtrace.errors import OutputError
from memtrace.launch.output import (
    LAUNCHER_FILE,
    Output,
    default_path,
    is_running,
    merged_path,
    outer_rank,
    plan_output,
    read_launcher,
    script_name,
    write_launcher,
)


def plan(path: Path | None, *, force: bool = False, **environ: str) -> Output:
    return plan_output(path, ["python", "train.py"], force=force, environ=environ)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python src/train.py --data x.py", "train"),
        ("torchrun --nproc-per-node 2 train.py", "train"),
        ("python -m pkg.train", "pkg.train"),
        ("torchrun -m pkg.train", "pkg.train"),
        ("./launch.sh", "launch"),
        ("python -c 'print(1)'", "python"),
        ("'my script.py'", "my_script"),
        ("python ../..py", "run"),
    ],
)
def test_names_come_from_the_script(command: str, name: str) -> None:
    import shlex

    assert script_name(shlex.split(command)) == name


def test_a_default_name_is_free(tmp_path: Path) -> None:
    command = ["python", "train.py"]
    assert default_path(command, folder=tmp_path).name == "memtrace-train.json"
    (tmp_path / "memtrace-train.json").touch()
    (tmp_path / "memtrace-train-2.json.parts").mkdir()
    assert default_path(command, folder=tmp_path).name == "memtrace-train-3.json"
    assert default_path(command, folder=tmp_path, is_folder=True).name == "memtrace-train"


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({}, None),
        ({"RANK": "3", "LOCAL_RANK": "3"}, None),
        ({"SLURM_PROCID": "3"}, 3),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0"}, 3),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}, None),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "4294967290", "SLURM_JOB_ID": "1"}, None),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}, None),
        ({"OMPI_COMM_WORLD_RANK": "2"}, 2),
        ({"PMI_RANK": "0"}, 0),
        ({"PMI_RANK": "none"}, None),
    ],
)
def test_only_several_launchers_share_a_folder(environ: dict[str, str], rank: int | None) -> None:
    assert outer_rank(environ) == rank


def test_one_launcher_keeps_its_parts_beside_the_output(tmp_path: Path) -> None:
    output = plan(tmp_path / "t.json")
    assert output.parts_dir == tmp_path / "t.json.parts"
    assert output.parts_dir.is_dir()
    assert not output.path.exists()


def test_launchers_that_share_a_folder_keep_their_parts_in_it(tmp_path: Path) -> None:
    first, second = (plan(tmp_path / "run", SLURM_PROCID=rank) for rank in ("0", "1"))
    assert first.parts_dir == tmp_path / "run" / "launcher-00000.parts"
    assert second.parts_dir == tmp_path / "run" / "launcher-00001.parts"


def test_a_rank_that_ended_already_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rank-00000.json.gz").touch()
    plan(tmp_path / "run", SLURM_PROCID="1")
    with pytest.raises(OutputError, match=r"rank-00000\.json\.gz: exists already"):
        plan(tmp_path / "run", SLURM_PROCID="0")
    plan(tmp_path / "run", force=True, SLURM_PROCID="0")


def test_an_existing_file_or_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.json").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("t.json", "dangling"):
        with pytest.raises(OutputError, match="exists already"):
            plan(tmp_path / name)
    plan(tmp_path / "t.json", force=True)
    with pytest.raises(OutputError, match="a folder with other things in it"):
        plan(tmp_path, force=True)
    with pytest.raises(OutputError, match="several launchers need a folder"):
        plan(tmp_path / "t.json", SLURM_PROCID="0")


def test_an_empty_folder_becomes_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert plan(tmp_path / "run").path.is_dir()


def test_parts_of_a_recording_that_broke_off_are_kept_unless_forced(tmp_path: Path) -> None:
    output = plan(tmp_path / "t.json")
    part = output.parts_dir / "process-a-1-ff.jsonl"
    part.touch()
    with pytest.raises(OutputError, match="parts of an earlier recording") as caught:
        plan(tmp_path / "t.json")
    assert caught.value.hint is not None
    assert "memtrace merge" in caught.value.hint
    assert part.exists()
    plan(tmp_path / "t.json", force=True)
    assert not part.exists()


def test_a_recording_that_runs_is_named(tmp_path: Path) -> None:
    output = plan(tmp_path / "t.json")
    write_launcher(output, {"header": {"command": ["python"]}})
    launcher = read_launcher(output.parts_dir)
    assert launcher["header"] == {"command": ["python"]}
    for force in (False, True):
        with pytest.raises(OutputError, match=rf"another recording is writing it \(process {os.getpid()}\)"):
            plan(tmp_path / "t.json", force=force)
    assert read_launcher(output.parts_dir) == launcher


def test_parts_whose_process_number_went_to_another_may_be_replaced(tmp_path: Path) -> None:
    output = plan(tmp_path / "t.json")
    write_launcher(output, {"start_ticks": 1})
    plan(tmp_path / "t.json", force=True)
    assert read_launcher(output.parts_dir) == {}


@pytest.mark.parametrize(("age_s", "is_refused"), [(0, True), (3600, False)])
def test_parts_of_another_host_may_be_replaced_once_they_stand_still(
    tmp_path: Path, age_s: int, is_refused: bool
) -> None:
    output = plan(tmp_path / "t.json")
    write_launcher(output, {"host": "another-host"})
    then = time.time() - age_s
    os.utime(output.parts_dir / LAUNCHER_FILE, (then, then))
    if is_refused:
        with pytest.raises(OutputError, match="another recording is writing it"):
            plan(tmp_path / "t.json", force=True)
    else:
        plan(tmp_path / "t.json", force=True)


def test_launchers_that_start_together_take_different_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    num_threads, num_each = 8, 10
    ready = threading.Barrier(num_threads)

    def claim(_number: int) -> list[Path]:
        ready.wait()
        return [plan(None).path for _ in range(num_each)]

    with ThreadPoolExecutor(num_threads) as pool:
        taken = [path for found in pool.map(claim, range(num_threads)) for path in found]
    assert len(set(taken)) == num_threads * num_each


@pytest.mark.parametrize("content", [None, "", "[]", "{", '{"pid": "1"}', '{"pid": -1}'])
def test_a_launcher_file_that_says_nothing(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / LAUNCHER_FILE).write_text(content)
    assert not is_running(read_launcher(tmp_path))


def test_a_process_that_ended_does_not_run(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert not is_running({"pid": child, "host": socket.gethostname()})
    assert is_running({"pid": child, "host": "another-host"})  # which cannot be asked


def test_merged_path_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert merged_path(Path(".")) == tmp_path.with_name(f"{tmp_path.name}.json.gz")


def test_the_launcher_file_is_json(tmp_path: Path) -> None:
    output = plan(tmp_path / "t.json")
    write_launcher(output, {})
    content = json.loads((output.parts_dir / LAUNCHER_FILE).read_text())
    assert isinstance(content.pop("start_ticks"), int)
    assert content == {"pid": os.getpid(), "host": socket.gethostname()}
    assert [path.name for path in output.parts_dir.iterdir()] == [LAUNCHER_FILE]
