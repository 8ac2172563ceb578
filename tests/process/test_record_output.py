"""Where a recording goes, and what happens when it cannot go there: the program always runs to its own end."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from memtrace.store.reading.read import read_trace


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_started_if_the_output_exists(work, python):
    (work.folder / "t.json").write_text("precious")
    ran = work.record(python, "-c", "print('started')")
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr == b"error: t.json: exists already\nhint: choose another name, or add --force\n"
    assert (work.folder / "t.json").read_text() == "precious"
    assert names(work.folder) == ["t.json"]


def test_force_replaces_it_only_once_there_is_something(work, python):
    (work.folder / "t.json").write_text("precious")
    work.record(python, "-c", "pass", options=["-o", "t.json", "--force"])
    assert (work.folder / "t.json").read_text() == "precious"
    work.write("train.py", "train(1)")
    work.record(python, "train.py", options=["-o", "t.json", "--force"])
    assert work.rank().complete


@pytest.mark.parametrize("output", ["file/t.json", "missing/t.json", "/proc/t.json"])
def test_nothing_is_started_if_it_cannot_be_written(work, python, output):
    (work.folder / "file").touch()
    ran = work.record(python, "-c", "print('started')", options=["-o", output])
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr.decode().startswith(f"error: {output}: cannot be written: ")


def test_default_names_never_collide(work, python):
    work.write("train.py", "train(1)")
    for _ in range(2):
        assert work.record(python, "train.py", options=[]).returncode == 0
    assert names(work.folder) == ["memtrace-train-2.json", "memtrace-train.json", "train.py"]


def test_quiet_says_the_name_of_the_trace_alone(work, python):
    work.write("train.py", "train(1)")
    ran = work.record(python, "train.py", options=["-o", "t.json"])
    assert [line.partition(" (")[0] for line in ran.said.splitlines()] == ["Wrote t.json"]


def test_compressed_by_suffix_and_the_next_command_can_be_typed(work, python):
    work.write("train.py", "train(1)")
    work.quiet = False
    ran = work.record(python, "train.py", options=["-o", "a b.json.gz"])
    with gzip.open(work.folder / "a b.json.gz") as file:
        assert json.load(file)["header"]["command"] == [python, "train.py"]
    assert "\nNext: " in ran.said
    assert ran.said.endswith(" report 'a b.json.gz'\n")


@pytest.mark.parametrize(
    ("ending", "returncode", "said"),
    [
        (
            "raise ValueError('no such luck')",
            1,
            "✗ The run died of ValueError at {folder}/train.py:{line} after step 2: no such luck.",
        ),
        ("import os; os.kill(os.getpid(), 9)", -9, "✗ The run was killed by the signal SIGKILL after step 2."),
    ],
)
def test_a_recording_ends_with_the_card_of_how_the_run_died(work, python, ending, returncode, said):
    program = work.write("train.py", f"train(2)\n{ending}\n")
    line = 1 + program.read_text().splitlines().index(ending)
    work.quiet = False
    ran = work.record(python, "train.py")
    assert ran.returncode == returncode
    headline, *rest = ran.said.splitlines()[1:]
    assert " ".join([headline, rest[0].strip()]).startswith(said.format(line=line, folder=work.folder.name))
    assert any(one.startswith("peak ") for one in rest)
    assert rest[-1].startswith("Next: ")


MUCH = """
layers = torch.nn.ModuleDict({f"layer_{'x' * 200}_{n}": torch.nn.Linear(16, 16) for n in range(150)})
def call(step):
    for layer in layers.values():
        layer(torch.ones(1, 16)).sum().backward()
train(3, at=call)
"""
"""Much to record: the names of many modules, each of them called in every step."""


def test_the_disk_fills_while_training(work, python):
    """A limit on file sizes: real failing writes in the program's process, from the first chunk on."""
    work.write("train.py", "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n" + MUCH)
    bare, recorded = work.bare(python, "train.py"), work.record(python, "train.py")
    assert (recorded.stdout, recorded.returncode) == (bare.stdout, 0)
    assert recorded.stderr.decode().splitlines() == [
        "memtrace: the recording stopped, its folder cannot be written: File too large"
    ]
    assert "write-failed" in {warning.slug for warning in work.rank().warnings}


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_the_disk_is_too_small_for_the_recording(work, python, small_disk):
    work.write("train.py", MUCH)
    bare, recorded = work.bare(python, "train.py"), work.record(python, "train.py", options=["-o", "disk/t.json"])
    assert (recorded.stdout, recorded.returncode) == (bare.stdout, 0)
    lines = recorded.stderr.decode().splitlines() + recorded.said.splitlines()
    assert len([line for line in lines if "No space left" in line and "the recording stopped" in line]) == 1
    assert not [name for name in names(small_disk) if name.endswith(".tmp")]


def test_parts_stay_if_the_output_cannot_be_written_at_the_end(work, python):
    source = "import os\ntrain(1)\nos.mkdir('t.json')\nopen('t.json/other', 'w').close()\nsys.exit(3)"
    work.write("train.py", source)
    ran = work.record(python, "train.py")
    assert ran.returncode == 3
    assert "merge" in ran.said or "Wrote" in ran.said, ran
    assert (work.folder / "t.json" / "other").exists()


def test_four_launchers_share_a_run_folder(work, python):
    work.write("train.py", "train(2)")
    processes = [
        work.start(python, "train.py", options=["-o", "run"], SLURM_PROCID=str(rank), SLURM_NTASKS="4")
        for rank in range(4)
    ]
    said = [process.communicate(timeout=200)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert names(work.folder / "run") == [f"rank-0000{rank}.json.gz" for rank in range(4)]
    trace = work.trace("run")
    assert [(rank.rank, rank.header["world_size"], rank.complete) for rank in trace.ranks] == [
        (rank, 4, True) for rank in range(4)
    ]
    assert not trace.warnings
    again = work.record(python, "train.py", options=["-o", "run"], SLURM_PROCID="2", SLURM_NTASKS="4")
    assert again.returncode == 1
    assert "rank-00002.json.gz: exists already" in again.stderr.decode()


def test_a_batch_script_of_slurm_is_no_parallel_run(work, python):
    slurm = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "77"}
    work.write("train.py", "train(1)")
    work.record(python, "train.py", **slurm)
    assert (work.folder / "t.json").is_file()
    assert work.rank().rank is None


def test_redacted(work, python):
    source = (
        "import os\nassert os.path.exists('train.py')\ntrain(2, at=lambda s: open('/no/secret-file') if s == 2 else 0)"
    )
    work.write("train.py", source)
    work.record(python, "train.py", "--token", "secret-token", options=["-o", "t.json", "--redact"])
    text = (work.folder / "t.json").read_text()
    trace = read_trace(work.folder / "t.json")
    assert trace.header["redacted"] is True
    assert trace.header["command"] is None
    assert trace.ranks[0].header["exception"]["type"] == "FileNotFoundError"
    for secret in ("secret", str(work.folder), os.uname().nodename, str(Path(python).parent)):
        assert secret not in text, secret


def test_trigger_asks_for_the_next_steps(work, python, run_memtrace):
    work.write("train.py", "train(400, at=lambda step: __import__('time').sleep(0.05))")
    process = work.start(python, "train.py", options=["-o", "t.json", "--steps", "1"])
    for line in process.stdout:
        if line.startswith(b"4 "):
            break
    missing = run_memtrace("trigger", "other.json", cwd=work.folder)
    asked = run_memtrace("trigger", "t.json", "--steps", "3", cwd=work.folder)
    # A request is read at the end of a step; a second one before that would take its place.
    for _ in range(8):
        process.stdout.readline()
    by_pid = run_memtrace("trigger", str(process.pid), "--steps", "1", cwd=work.folder)
    at = 0
    for line in process.stdout:
        at = at or int(line.split()[0])
        if int(line.split()[0]) > at + 8:
            break
    process.terminate()
    process.communicate(timeout=60)
    assert missing.returncode == 1
    assert "no recording is there" in missing.stderr
    assert asked.returncode == 0, asked.stderr
    assert by_pid.returncode == 0, by_pid.stderr
    kept = [row["step"] for row in work.rank().table("steps").rows() if row["recorded"] and row["step"]]
    assert kept[0] == 1
    assert len(kept) >= 4
    ended = run_memtrace("trigger", "t.json", cwd=work.folder)
    assert ended.returncode == 1
