"""The user's files in a prediction: what the program writes it can read again, and nothing of it is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.process.predicted_programs import predict

SIDE = 1000
"""Rows and columns of the weight in the user's own checkpoint."""

FILES = """
import bz2, glob, io, logging, os, pathlib, shutil, sqlite3, tarfile, tempfile
import numpy as np
import torch

# Files that were there are added to, changed, renamed and removed
with open("kept.txt", "a") as file:
    file.write(" and more")
assert open("kept.txt").read() == "kept and more"
os.remove("removed.txt")
assert not os.path.exists("removed.txt") and "removed.txt" not in os.listdir(".")
shutil.rmtree("folder")
assert not os.path.exists("folder/old.txt")
os.makedirs("folder")
assert os.listdir("folder") == []
os.replace("runs/old", "runs/older")
pathlib.Path("runs/new").write_text("1")
assert sorted(os.listdir("runs")) == sorted(one.name for one in os.scandir("runs")) == ["new", "older"]
assert sorted(glob.glob("runs/*")) == ["runs/new", "runs/older"]
assert sorted(name for *_, names in os.walk("runs") for name in names) == ["new", "older"]
os.chmod("touched.txt", 0o600)
os.utime("touched.txt", (0, 0))
pathlib.Path("touched.txt").touch()

# Errors are those of the system, with the path that the program gave
for call, expected in ((lambda: os.mkdir("runs"), FileExistsError), (lambda: open("none/x", "w"), FileNotFoundError),
                       (lambda: os.rmdir("runs"), OSError), (lambda: open("kept.txt", "x"), FileExistsError)):
    try:
        call()
    except expected as error:
        assert "memtrace" not in str(error.filename), error.filename
    else:
        raise AssertionError(expected)

# Ways to write
os.makedirs("a/b")
shutil.copy("kept.txt", "a/b/copy.txt")
shutil.copytree("a", "c")
shutil.move("c", "d")
assert pathlib.Path("d/b/copy.txt").read_text() == "kept and more"
np.save("array.npy", np.ones(3))
assert np.load("array.npy").sum() == 3
connection = sqlite3.connect("base.sqlite")
connection.execute("create table t(x)"); connection.commit(); connection.close()
assert sqlite3.connect("base.sqlite").execute("select count(*) from t").fetchone() == (0,)
with tarfile.open("files.tar", "w") as archive:
    archive.add("kept.txt")
bz2.open("file.bz2", "w").write(b"1")
os.symlink("a", "latest")
assert os.path.exists("latest/b/copy.txt")
os.close(os.open("opened", os.O_CREAT | os.O_WRONLY))
logging.basicConfig(filename="train.log")
logging.error("logged")

# Temporary files are really there, for other languages to open; one that is moved here is not
with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir=folder) as file:
    assert os.listdir(folder) == [os.path.basename(file.name)]
number, name = tempfile.mkstemp(dir=".")
os.write(number, b"1"); os.close(number)
os.replace(name, "atomic.txt")
assert open("atomic.txt").read() == "1"
os.chdir("a")
assert open("../kept.txt").read() == "kept and more" and open("../touched.txt").read() == ""
os.chdir("..")
"""

CHECKPOINTS = """
import copy, io, os, pickle
import torch
from torch import nn

def held():
    return torch.cuda.memory_allocated()

model = nn.Linear(1024, 512, bias=False).cuda()
optimizer = torch.optim.AdamW(model.parameters())
def step():
    model(torch.ones(2, 1024, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
step()
WEIGHT = 4 * 1024 * 512

# A checkpoint of the program's own
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, "checkpoint.pt")
assert os.path.getsize("checkpoint.pt") < WEIGHT // 100
before = held()
checkpoint = torch.load("checkpoint.pt", map_location="cpu")
assert checkpoint["epoch"] == 3 and held() == before and not checkpoint["model"]["weight"].is_cuda
checkpoint = torch.load("checkpoint.pt")
assert held() - before == 3 * WEIGHT
model.load_state_dict(checkpoint["model"])
optimizer.load_state_dict(checkpoint["optimizer"])
del checkpoint
for location in ("cuda:0", torch.device("cuda"), lambda storage, place: storage.cuda(0), {"cpu": "cuda:0"}):
    assert torch.load("checkpoint.pt", map_location=location)["model"]["weight"].is_cuda
step()
torch.save(model, "model.pt")
assert torch.load("model.pt", weights_only=False).weight.is_cuda
one = torch.ones(300, device="cuda")
stream = io.BytesIO()
torch.save({"a": one, "b": one}, stream)
stream.seek(0)
pair = torch.load(stream)
pair["a"].resize_(0)
assert pair["a"].untyped_storage().data_ptr() == pair["b"].untyped_storage().data_ptr()
before = held()
assert pickle.loads(pickle.dumps(one)).is_cuda
assert held() == before
alias = copy.copy(one)
assert held() == before

# The user's own
before = held()
user = torch.load("user.pt")
assert user["weight"][0, 0] == 7 and held() == before
user = torch.load("user.pt", map_location="cuda")
assert held() - before == -(-4 * SIDE * SIDE // 512) * 512
"""

SAFETENSORS = """
import safetensors
from safetensors.torch import load_file, load_model, save_file, save_model
save_file(model.state_dict(), "weights.safetensors", {"format": "pt"})
save_file({"x": torch.ones(3)}, "real.safetensors")
assert load_file("weights.safetensors")["weight"].shape == (512, 1024)
assert load_file("weights.safetensors", device="cuda")["weight"].is_cuda
with safetensors.safe_open("real.safetensors", "pt") as file:
    assert file.get_tensor("x").sum() == 3
save_model(model, "model.safetensors")
load_model(model, "model.safetensors")
"""


def state(folder: Path) -> dict[str, tuple[bytes, float, int]]:
    """Return contents, time and mode of every file in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        stat = os.stat(path)
        found[str(path)] = (path.read_bytes() if path.is_file() else b"", stat.st_mtime, stat.st_mode)
    return found


def test_what_a_program_writes_is_there_for_it_and_gone_afterwards(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("kept.txt", "removed.txt", "touched.txt", "folder/old.txt", "runs/old"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("kept" if name == "kept.txt" else "", encoding="utf-8")
    torch.save({"weight": torch.full((SIDE, SIDE), 7.0)}, project / "user.pt")
    source = FILES + CHECKPOINTS.replace("SIDE", str(SIDE)) + _safetensors() + 'step()\nprint("done")\n'
    before = state(project)
    predict(tmp_path, f"import os\nos.chdir({str(project)!r})\n{source}")
    assert state(project) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predicted.json", "program.py", "project"]


def _safetensors() -> str:
    try:
        import safetensors  # noqa: F401
    except ImportError:
        return ""
    return SAFETENSORS


WRITES = """
import torch
model = torch.nn.Linear(512, 512).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model(torch.ones(2, 512, device="cuda")).sum().backward()
optimizer.step()
torch.save(model.state_dict(), "model.pt")
open("log.txt", "w").write("logged")
print("done")
"""


def test_writes_go_where_the_program_says_if_they_are_allowed(tmp_path: Path) -> None:
    predict(tmp_path, WRITES, "--allow-writes")
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "logged"
    assert (tmp_path / "model.pt").exists()


def test_a_project_in_the_temporary_folder_is_safe_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    predict(project, WRITES)
    assert sorted(path.name for path in project.iterdir()) == ["predicted.json", "program.py"]
