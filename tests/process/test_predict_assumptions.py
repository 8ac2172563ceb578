"""What a prediction assumed stands in its output and in every report of it; where nothing is sound, there is none."""

from __future__ import annotations

from pathlib import Path

from memtrace.analysis.report import analyze
from memtrace.store.reading.read import read_trace
from tests.process.test_predict import memtrace
from tests.warm.start import warm_python

PROGRAM = """\
import contextlib, torch
torch.cuda.set_per_process_memory_fraction(0.75)
library = torch.library.Library("mine", "DEF")
library.define("scale(Tensor(a!) x) -> Tensor(a!)")
library.define("make(Tensor x) -> Tensor")
for name in ("scale", "make"):
    library.impl(name, lambda x: x, "CPU")
model = torch.nn.Linear(64, 64).cuda()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
while True:
    out = model(torch.randn(32, 64, device="cuda"))
    found = out[out > 0]
    torch.ops.mine.scale(out.detach())
    REFUSED
    found.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    print(found.sum().item())
"""
BOUND = PROGRAM[: PROGRAM.index("found = ")].count("\n") + 1


def predict(folder: Path, source: str, *, status: int) -> tuple[str, str]:
    (folder / "train.py").write_text(source)
    done = memtrace("predict", "--", warm_python(), "train.py", cwd=folder, status=status)
    return done.stdout, done.stderr


def test_each_assumption_is_said_with_its_line(tmp_path: Path) -> None:
    said, _ = predict(tmp_path, PROGRAM.replace("REFUSED", "pass"), status=0)
    report = analyze(read_trace([tmp_path / "predicted.json"]))
    notes = {(note.slug, note.message) for rank in report.ranks for note in rank.warnings}
    # The elements of a mask and of what it picks: a row and a column of int64, and a float32, for each.
    excess = f"up to {32 * 64 * (2 * 8 + 4) / 1024:.1f} KiB too much (3 times)"
    expected = {
        "predicted-bound": (f"train.py:{BOUND}: ", excess),
        "predicted-operator": (f"train.py:{BOUND + 1}: mine::scale", "nothing else (3 times)"),
        "predicted-values": (f"train.py:{BOUND + 6}: ", "times)"),
        "predicted-settings": ("", "per_process_memory_fraction:0.75"),
    }
    for slug, (start, end) in expected.items():
        found = [message for one, message in notes if one == slug and message.startswith(start)]
        assert any(message.endswith(end) for message in found), (slug, notes)
        assert any(message in said for message in found)


def test_an_operator_about_which_nothing_is_known_ends_it(tmp_path: Path) -> None:
    source = PROGRAM.replace("REFUSED", "\n    with contextlib.suppress(BaseException): torch.ops.mine.make(out)")
    _, said = predict(tmp_path, source, status=1)
    assert f"train.py:{BOUND + 3}: the operator mine::make does not say which shapes it makes" in said
    assert not (tmp_path / "predicted.json").exists()


def test_attention_that_is_compiled_ends_it(tmp_path: Path) -> None:
    attend = "torch.nn.attention.flex_attention.flex_attention(*[out[None, None]] * 3)"
    source = PROGRAM.replace("import contextlib, torch", "import torch.nn.attention.flex_attention")
    _, said = predict(tmp_path, source.replace("REFUSED", attend), status=1)
    assert f"train.py:{BOUND + 2}: flex_attention is compiled by Triton" in said
