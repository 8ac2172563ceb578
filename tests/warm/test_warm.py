"""A program that the warm Python runs prints, ends and is recorded as under Python itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from memtrace.store.reading.read import read_trace
from tests.conftest import RunMemtrace
from tests.warm.start import warm_python

LOOK = """
import __main__, os, sys
print(sys.argv, sys.path[:3], os.getcwd(), __main__.__file__, __name__, os.environ.get("OMP_NUM_THREADS"))
print(sys.stdin.read(), "memtrace" in sys.modules, file=sys.stderr)
"""
TRAIN = """
import torch
torch.manual_seed(0)
model = torch.nn.Linear(16, 16)
optimizer = torch.optim.Adam(model.parameters(), foreach=False)
for step in range(3):
    loss = model(torch.randn(4, 16)).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(step, loss.item())
"""
ENDINGS = {
    "looks": "",
    "exits": "sys.exit(3)",
    "exits-with-a-message": "sys.exit('no more')",
    "raises": "def fail(): raise ValueError('of the program')\nfail()",
    "is-killed": "sys.stdout.flush(); os.kill(os.getpid(), 9)",
    "warns": "import warnings; warnings.warn('of the program')",
    "has-work-left": "import atexit, threading; atexit.register(print, 'last'); threading.Thread(target=print).start()",
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("options", [(), ("-u", "-W", "error")], ids=["plain", "options"])
def test_a_program_is_run_as_by_python(tmp_path: Path, ending: str, options: tuple[str, ...]) -> None:
    (tmp_path / "look.py").write_text(LOOK + ending)

    def ended(python: str, *words: str) -> tuple[int, str, str]:
        command = [python, *options, *words, "a", "b c"]
        done = subprocess.run(command, cwd=tmp_path, input="given", capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    assert ended(warm_python(), "look.py") == ended(sys.executable, "look.py")


def test_a_module_is_run_as_by_python(tmp_path: Path) -> None:
    (tmp_path / "look.py").write_text(LOOK)
    warm, real = (
        subprocess.run([python, "-m", "look", "a"], cwd=tmp_path, input="", capture_output=True, text=True, timeout=60)
        for python in (warm_python(), sys.executable)
    )
    assert (warm.returncode, warm.stdout, warm.stderr) == (real.returncode, real.stdout, real.stderr)
    assert warm.returncode == 0


def test_what_is_recorded_is_the_same(tmp_path: Path, run_memtrace: RunMemtrace) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    ranks = []
    for number, python in enumerate((warm_python(), sys.executable)):
        done = run_memtrace("record", "-o", f"{number}.json", "--", python, "train.py", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 3
        (rank,) = read_trace(tmp_path / f"{number}.json").ranks
        ranks.append(rank)
    warm, real = ranks
    assert warm.complete
    for table, columns in {
        "steps": ("step", "recorded", "num_microbatches"),
        "owners": ("step", "category", "size_bytes"),
        "saved": ("step", "size_bytes"),
        "phases": ("step", "phase"),
    }.items():
        rows = [
            [
                tuple(rank.text(row[name]) if name in ("category", "phase") else row[name] for name in columns)
                for row in rank.table(table).rows()
            ]
            for rank in (warm, real)
        ]
        assert rows[0] == rows[1], table
        assert rows[0]


def test_a_program_ends_with_the_command_that_asked_for_it(tmp_path: Path) -> None:
    (tmp_path / "wait.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen([warm_python(), "wait.py"], cwd=tmp_path, stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        assert int(asking.stdout.readline()) != asking.pid
        asking.kill()
        # The program holds the other end of the pipe: it is read to its end once that program is gone.
        assert asking.stdout.read() == b""
