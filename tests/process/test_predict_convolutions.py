"""The scratch of convolutions, layer by layer: named by module and line, with what the shapes allow for."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from memtrace.forecast.prediction.convolution_layers import layers_of
from memtrace.units import format_bytes
from tests.process.predicted_programs import predict, predicted_rank

BATCH, SIDE, STEM = 4, 32, 8
WIDTHS = (8, 16, 32, 64)
CNN = f"""
import torch
import torch.nn.functional as F
from torch import nn

class Block(nn.Module):
    def __init__(self, width, wider, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width, wider, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(wider)
        self.conv2 = nn.Conv2d(wider, wider, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(wider)
        self.down = nn.Conv2d(width, wider, 1, stride, bias=False)

    def forward(self, x):
        y = self.norm1(self.conv1(x)).relu()
        return F.relu(self.norm2(self.conv2(y)) + self.down(x))  # the sum

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.filters = nn.Parameter(torch.randn({STEM}, 3, 7, 7))
        self.layers = nn.Sequential(*[Block(a, b, 2) for a, b in zip({WIDTHS}[:-1], {WIDTHS}[1:])])

    def forward(self, x):
        x = F.conv2d(x, self.filters, padding=3)  # by hand
        return self.layers(x).mean((2, 3))

model = Net().cuda()
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
for _ in range(2):
    model(torch.randn({BATCH}, 3, {SIDE}, {SIDE}, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
print("done")
"""


def unfolded(side: int, channels: int, kernel: int) -> int:
    """Bytes of a convolution's unfolded input, whose output is a square of this side."""
    return BATCH * side * side * channels * kernel * kernel * 4


def test_layers_are_named_with_what_they_may_take(tmp_path: Path) -> None:
    done = predict(tmp_path, CNN, "--gpu", "a100-40gb")
    lines = {text: number for number, line in enumerate(CNN.splitlines(), 1) if (text := line.partition("# ")[2])}
    expected = {"Net": (unfolded(SIDE, 3, 7), lines["by hand"])}
    sum_line = lines["the sum"]
    for at, (width, wider) in enumerate(pairwise(WIDTHS)):
        side = SIDE // 2 ** (at + 1)
        expected |= {
            f"layers.{at}.conv1": (unfolded(side, width, 3), sum_line - 1),
            f"layers.{at}.conv2": (unfolded(side, wider, 3), sum_line),
            f"layers.{at}.down": (unfolded(side, width, 1), sum_line),
        }
    rank = predicted_rank(tmp_path)
    layers = layers_of(rank, 0)
    assert {str(one.module): (one.workspace_bytes, one.line) for one in layers} == expected
    assert {Path(str(one.file)).name for one in layers} == {"program.py"}
    # With a peak of nothing, what each would raise it by is what is held while it runs and its own.
    parameters = 4 * (STEM * 3 * 49 + sum(wider * (9 * width + 9 * wider + width) for width, wider in pairwise(WIDTHS)))
    assert all(one.more_bytes > parameters + one.workspace_bytes for one in layers)
    peak = rank.header["prediction"]["allocated"]["predicted_bytes"]
    raising = [one for one in layers_of(rank, peak) if one.more_bytes]
    assert [one.more_bytes for one in raising] == sorted((one.more_bytes for one in raising), reverse=True)
    shown = done.stdout.partition("scratch of")[2].splitlines()[1:]
    for one, line in zip(raising, shown, strict=False):
        assert line.split()[:2] == [one.module, f"program.py:{one.line}"]
        assert format_bytes(one.workspace_bytes) in line
        assert line.endswith(f"{format_bytes(one.more_bytes)} more")
