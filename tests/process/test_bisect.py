"""`memtrace bisect` with real predictions: the planted regression of a small repository, down to its line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.warm.start import warm_python

MODEL = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(256, 1024), nn.Linear(1024, 256)
    def forward(self, x):
HIDDEN
        return self.second(hidden)
"""
BEFORE = "        hidden = torch.relu_(self.first(x))"
AFTER = "        hidden = self.first(x)\n        hidden = hidden * torch.sigmoid(hidden)"
TRAIN = """
import torch
from project.model import Block
assert open("data/size.txt").read() == "64"
model = Block().cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
while True:
    model(torch.randn(512, 256, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def test_the_guilty_commit_and_its_line_are_found(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        named = ["git", "-c", "user.email=a@b.c", "-c", "user.name=A", *words]
        return subprocess.run(named, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "project").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "size.txt").write_text("64", encoding="utf-8")
    (tmp_path / ".gitignore").write_text("data\n", encoding="utf-8")
    (tmp_path / "train.py").write_text(TRAIN, encoding="utf-8")
    names = []
    for number, hidden in enumerate((BEFORE, BEFORE, AFTER, AFTER)):
        text = f"# version {number}\n" + MODEL.replace("HIDDEN", hidden)
        (tmp_path / "project" / "model.py").write_text(text, encoding="utf-8")
        git("add", "--all")
        git("commit", "--quiet", "--message", f"version {number}")
        names.append(git("rev-parse", "HEAD"))
    words = ("bisect", "--engine", "meta", "--steps", "2", "--link", "data", "--json", names[0], "HEAD")
    command = [sys.executable, "-m", "memtrace", *words, "--", warm_python(), "train.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["guilty"] == {"name": names[2], "subject": "version 2"}
    lines = (tmp_path / "project" / "model.py").read_text(encoding="utf-8").splitlines()
    culprit = next(number for number, line in enumerate(lines, 1) if "torch.sigmoid" in line)
    assert (found["lines"][0]["path"], found["lines"][0]["line"]) == ("project/model.py", culprit)
    assert found["lines"][0]["function"] == "forward"
    assert found["diff"]["peak"]["delta_by_category"]["activation"] > 0
