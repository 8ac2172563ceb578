"""Every way in which people start a training: all are reached, and helpers are left out."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

NOT_THERE = ("click", "orjson", "pandas", "rich")
"""What the other environment lacks: memtrace, and what only memtrace needs."""


def executable(path: Path) -> Path:
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def kept_steps(rank):
    return [row["step"] for row in rank.table("steps").rows() if row["recorded"]]


def test_a_module(work, python):
    work.write("pkg/__init__.py", "", trains=False)
    work.write("pkg/train.py", "train(2)")
    ran = work.record(python, "-m", "pkg.train", options=[])
    assert ran.said.startswith("Wrote memtrace-pkg.train.json ("), ran
    assert {1, 2} <= set(kept_steps(work.rank("memtrace-pkg.train.json")))


def test_a_console_script(work, python):
    work.write("tool.py", "def main():\n    train(2)")
    script = work.write("tool", f"#!{python}\nimport sys\nfrom tool import main\nsys.exit(main())\n", trains=False)
    executable(script)
    ran = work.record("./tool")
    assert ran.returncode == 0, ran
    assert {1, 2} <= set(kept_steps(work.rank()))


def test_a_shell_script_that_starts_python_and_goes_on(work, python):
    work.write("train.py", "train(2)")
    source = f'#!/bin/sh\necho start\n{python} train.py "$@"\necho status $?\nexit 4\n'
    executable(work.write("run.sh", source, trains=False))
    ran = work.record("./run.sh", "--lr", "1")
    assert ran.returncode == 4
    assert ran.stdout.startswith(b"start\n1 ")
    assert ran.stdout.endswith(b"status 0\n")
    assert work.rank().complete


def test_a_program_that_never_imports_torch(work, python):
    ran = work.record(python, "-c", "import sys; print('hello'); sys.exit(5)")
    assert (ran.returncode, ran.stdout, ran.stderr) == (5, b"hello\n", b"")
    assert "never" not in ran.said
    assert ran.said.startswith("memtrace: nothing was recorded: no Python process that imported torch was seen.")
    assert list(work.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "returncode", "message"),
    [
        (["no-such-program"], 127, "error: no-such-program: command not found"),
        (["train.py"], 127, "hint: a script needs its Python: memtrace record -- python train.py"),
        (["./train.py"], 126, "error: ./train.py: cannot be run: Permission denied"),
    ],
)
def test_a_command_that_cannot_be_run(work, command, returncode, message):
    work.write("train.py", "train(1)")
    ran = work.record(*command)
    assert ran.returncode == returncode
    assert message in ran.stderr.decode()
    assert [path.name for path in work.folder.iterdir()] == ["train.py"]


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has torch, but neither memtrace nor what only memtrace needs."""
    folder = tmp_path_factory.mktemp("other") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(NOT_THERE) and "memtrace" not in entry.name:
            (packages / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def test_a_python_of_another_environment(work, other_python):
    program = """
        train(2)
        for name in ("click", "orjson", "pandas"):
            try:
                __import__(name)
            except ImportError as error:
                print(error)
    """
    work.write("train.py", program)
    assert work.bare(other_python, "-c", "import memtrace").returncode == 1
    bare, recorded = work.bare(other_python, "train.py"), work.record(other_python, "train.py")
    assert bare.returncode == 0, bare.stderr
    assert b"No module named 'click'" in bare.stdout
    assert (recorded.stdout, recorded.stderr) == (bare.stdout, bare.stderr)
    assert {1, 2} <= set(kept_steps(work.rank()))


def test_an_own_sitecustomize_and_path(work, python):
    work.write("site/sitecustomize.py", "import os\nos.environ['MARK'] = 'set by sitecustomize'\n", trains=False)
    work.write("site/mine.py", "value = 3", trains=False)
    work.write("train.py", "import os, mine\nprint(os.environ['MARK'], mine.value)\ntrain(1)")
    ran = work.record(python, "train.py", PYTHONPATH=str(work.folder / "site"))
    assert ran.stdout.startswith(b"set by sitecustomize 3\n1 ")
    assert work.rank().complete


LOADER = """
import torch.utils.data

class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return torch.ones(16) * index

if __name__ == "__main__":
    loader = torch.utils.data.DataLoader(Numbers(), batch_size=4, num_workers=2, multiprocessing_context=sys.argv[1])
    for epoch in range(2):
        for batch in loader:
            model(batch).sum().backward()
            optimizer.step()
            print(batch.sum().item())
"""


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_data_loading_workers_are_left_out(work, python, context):
    work.write("train.py", LOADER)
    ran = work.record(python, "train.py", context)
    assert (ran.returncode, ran.stderr) == (0, b""), ran
    assert ran.stdout.split() == [b"96.0", b"352.0"] * 2
    assert work.rank().complete
    assert work.rank().table("steps")["step"].max() >= 4


SPAWN = """
import os
import torch.multiprocessing

def work(rank):
    os.environ["RANK"] = str(rank)
    train(2)

if __name__ == "__main__":
    torch.multiprocessing.spawn(work, nprocs=2)
"""


def test_ranks_that_torch_spawns_are_recorded(work, python):
    work.write("train.py", SPAWN)
    ran = work.record(python, "train.py")
    assert (ran.returncode, ran.stderr) == (0, b""), ran
    trained = [rank for rank in work.trace().ranks if 2 in rank.table("steps")["step"].tolist()]
    assert len(trained) == 2


def test_python_processes_that_the_script_starts_get_a_part_each(work, python):
    work.write("child.py", "train(1)")
    source = "import subprocess\ntrain(1)\nsubprocess.run([sys.executable, 'child.py'], check=True)\n"
    source += "subprocess.run([sys.executable, '-c', 'print(0)'], check=True)\n"
    work.write("train.py", source)
    ran = work.record(python, "train.py")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert "2 processes" in ran.said
    assert [rank.complete for rank in work.trace().ranks] == [True, True]


def test_training_in_a_thread_beside_others(work, python):
    source = """
        import threading
        other = threading.Thread(target=lambda: [torch.ones(100).sum() for _ in range(50)])
        trainer = threading.Thread(target=train, args=(2,))
        for one in (other, trainer):
            one.start()
        for one in (other, trainer):
            one.join()
        print(threading.active_count())
    """
    work.write("train.py", source)
    bare, recorded = work.bare(python, "train.py"), work.record(python, "train.py")
    assert (recorded.stdout, recorded.stderr, recorded.returncode) == (bare.stdout, bare.stderr, 0)
    assert work.rank().complete


DISTRIBUTED = """
import os
import torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()

def meet(step):
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
    if rank == 1 and step == 2 and "fail" in sys.argv:
        raise RuntimeError("rank one has had enough")

train(3, at=meet)
dist.destroy_process_group()
"""

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_torchrun_gives_both_ranks_in_one_output(work, python):
    work.write("train.py", DISTRIBUTED)
    torchrun = Path(python).parent / "torchrun"
    command = [torchrun, *TORCHRUN[2:]] if torchrun.exists() else [python, *TORCHRUN]
    ran = work.record(*command, "train.py")
    assert ran.returncode == 0, ran.stderr.decode()
    trace = work.trace()
    assert [(rank.rank, rank.header["world_size"], rank.complete) for rank in trace.ranks] == [
        (0, 2, True),
        (1, 2, True),
    ]
    assert all({1, 2, 3} <= set(kept_steps(rank)) for rank in trace.ranks)
    assert not trace.warnings


def test_when_one_rank_raises_both_are_kept_up_to_then(work, python):
    work.write("train.py", DISTRIBUTED)
    ran = work.record(python, *TORCHRUN, "train.py", "fail")
    assert ran.returncode == 1
    first, second = work.trace().ranks
    assert 1 in kept_steps(first)
    assert 1 in kept_steps(second)
    assert second.header["exception"]["message"] == "rank one has had enough"
    assert second.complete


def test_the_environment_of_the_program_differs_by_two_variables(work, python):
    work.write("look.py", "import json, os; print(json.dumps(dict(os.environ)))", trains=False)
    import json

    bare = json.loads(work.bare(python, "look.py").stdout)
    recorded = json.loads(work.record(python, "look.py").stdout)
    assert {name for name in bare.keys() | recorded.keys() if bare.get(name) != recorded.get(name)} == {
        "MEMTRACE_RECORD",
        "PYTHONPATH",
    }
    assert shutil.which("python3", path=recorded["PATH"]) == shutil.which("python3", path=os.environ["PATH"])
