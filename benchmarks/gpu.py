"""Everything that needs a GPU, in one command under ten minutes: `make gpu`, or `PYTHON=… make gpu`.

Runs the GPU tests, measures the overhead, holds predictions against runs, records samples and small programs on the GPU
and compares the reports with what torch itself says. Installs nothing and needs no network; packages that are missing
cost only the parts that use them. Each part has its own time limit, and a part that fails is a line in the results, not
the end.

`make gpu-driverless` runs the same on torch's CUDA code without a GPU (`memtrace/driverless/`): what hangs on the time
of kernels is said not to be measured, and the results are marked.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from memtrace.driverless.environment import VARIABLE as DESCRIBED_DEVICES  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
NOT_MEASURED = RESULTS / "gpu-not-measured.md"
PACKAGES = ("click", "numpy", "orjson", "pandas", "pytest", "rich")
DEADLINE_S = 570
DRIVERLESS_TIMES = 6
"""Without a GPU nobody lends one for ten minutes, and processors do what is left of its work: so many times as long."""
NO_TIMES = (
    "Not measured: no kernel runs on a GPU that is not there, so that a step takes only what its launches take, and "
    "what a recording adds to that says nothing of a GPU."
)
EXPANDABLE = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}

TRAIN = """
import json
import torch
from torch import nn

model = nn.Sequential(nn.Linear(512, 1024), nn.BatchNorm1d(1024), nn.ReLU(), nn.Linear(1024, 512)).cuda()
optimizer = torch.optim.AdamW(model.parameters())


def size(tensors):
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors if tensor.is_cuda)


for _ in range(3):
    model(torch.randn(64, 512, device="cuda")).square().mean().backward()
    optimizer.step()
    stats = torch.cuda.memory_stats()
    print(json.dumps({
        "allocated_bytes": torch.cuda.memory_allocated(),
        "requested_bytes": stats["requested_bytes.all.current"],
        "reserved_bytes": torch.cuda.memory_reserved(),
        "by_category": {
            "parameter": size(model.parameters()),
            "buffer": size(model.buffers()),
            "gradient": size(one.grad for one in model.parameters()),
            "optimizer_state": size(one for state in optimizer.state.values() for one in state.values()),
        },
    }), flush=True)
    optimizer.zero_grad()
"""
"""A program that says at the end of each step what torch says, and what the model owns."""

OUT_OF_MEMORY = """
import torch
torch.cuda.set_per_process_memory_fraction(0.02)
model = torch.nn.Linear(1024, 1024).cuda()
kept = []
for _ in range(100_000):
    kept.append(model(torch.randn(16_384, 1024, device="cuda")))
"""

TWO_STREAMS = """
import torch
model = torch.nn.Linear(1024, 1024).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
side = torch.cuda.Stream()
for _ in range(4):
    with torch.cuda.stream(side):
        batch = torch.randn(512, 1024, device="cuda")
    torch.cuda.current_stream().wait_stream(side)
    batch.record_stream(torch.cuda.current_stream())
    model(batch).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""

CUDA_GRAPH = """
import torch
model = torch.nn.Linear(1024, 1024).cuda()
batch = torch.randn(512, 1024, device="cuda")
side = torch.cuda.Stream()
side.wait_stream(torch.cuda.current_stream())
with torch.cuda.stream(side):
    for _ in range(3):
        model(batch)
torch.cuda.current_stream().wait_stream(side)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    output = model(batch)
for _ in range(5):
    graph.replay()
torch.cuda.synchronize()
"""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program to record on the GPU, and what must come of it."""

    label: str
    command: tuple[str, ...]
    environ: dict[str, str]
    status: int = 0
    is_oom: bool = False
    note: str | None = None
    """Slug that the report must hold."""
    says_totals: bool = False
    """Whether it prints what torch says at the end of each step."""


def programs() -> Iterator[Program]:
    """Yield all programs."""
    gpt = ("samples/train_gpt.py", "--device", "cuda", "--steps", "5")
    resnet = ("samples/train_resnet.py", "--device", "cuda", "--steps", "5")
    for label, command in (("GPT", gpt), ("ResNet", resnet), ("GPT, fp16 autocast", (*gpt, "--precision", "fp16"))):
        yield Program(label=label, command=command, environ={})
    yield Program(label="GPT, expandable segments", command=gpt, environ=EXPANDABLE)
    yield Program(label="totals", command=("-c", TRAIN), environ={}, says_totals=True)
    yield Program(label="totals, expandable segments", command=("-c", TRAIN), environ=EXPANDABLE, says_totals=True)
    yield Program(label="out of memory", command=("-c", OUT_OF_MEMORY), environ={}, status=1, is_oom=True)
    yield Program(label="two streams", command=("-c", TWO_STREAMS), environ={})
    yield Program(label="CUDA graph", command=("-c", CUDA_GRAPH), environ={}, note="cuda-graph")


def differences(said: list[dict[str, Any]], report: dict[str, Any]) -> list[str]:
    """Return where the report differs from what the program said at its step ends; figures that are null are none."""
    ranks = [rank for rank in report["ranks"] if rank["device"].startswith("cuda")]
    if not ranks:
        return ["no CUDA device in the report"]
    steps = {step["step"]: step["end"] for step in ranks[0]["steps"]}
    found = []
    for number, expected in enumerate(said, start=1):
        end = steps.get(number)
        if end is None:
            found.append(f"step {number}: no state at its end")
            continue
        pairs = [(name, value, end[name]) for name, value in expected.items() if name != "by_category"]
        pairs += [(name, value, end["by_category"].get(name, 0)) for name, value in expected["by_category"].items()]
        found += [
            f"step {number} {name}: torch {value}, report {reported}"
            for name, value, reported in pairs
            if reported is not None and reported != value
        ]
    return found


def lines_said(output: str) -> list[dict[str, Any]]:
    """Return the JSON lines that a program printed."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


class Run:
    """The parts, the lines of their results, and the time that is left."""

    def __init__(self, missing: list[str], *, is_driverless: bool) -> None:
        self.missing = missing
        self.is_driverless = is_driverless
        self.lines: list[str] = []
        self._times = DRIVERLESS_TIMES if is_driverless else 1
        self._ends = time.monotonic() + DEADLINE_S * self._times

    def execute(self, command: list[str], *, limit_s: float, **options: Any) -> subprocess.CompletedProcess[str] | str:
        """Run a command within its limit and what is left; return what came of it, or why nothing did."""
        left = min(limit_s * self._times, self._ends - time.monotonic())
        if left <= 1:
            return "not run: no time left"
        options["env"] = {**os.environ, "PYTHONPATH": _python_path(), **options.get("env", {})}
        try:
            return subprocess.run(
                command, capture_output=True, text=True, timeout=left, cwd=ROOT, check=False, **options
            )
        except subprocess.TimeoutExpired:
            return f"not finished within {left:.0f} s"

    def tests(self) -> None:
        """Run the GPU tests."""
        self.lines += ["## Tests", ""]
        if "pytest" in self.missing:
            self.lines += ["Not run: pytest is missing.", ""]
            return
        # Without the project's own settings, which name plugins that may be missing here.
        options = ["-c", os.devnull, "--rootdir", str(ROOT), "-p", "no:cacheprovider", "-q", "-m", "gpu", "-ra"]
        options += ["--disable-warnings"]
        result = self.execute([sys.executable, "-m", "pytest", *options, "tests/gpu"], limit_s=120)
        self.lines += ["```", _tail(result, 12), "```", ""]

    def overhead(self) -> None:
        """Measure the overhead on the GPU."""
        if self.is_driverless:
            self.lines += ["## Overhead", "", NO_TIMES, ""]
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "overhead.md"
            options = ["--device", "cuda", "--seconds", "45", "--start-ups", "0", "--output", str(path)]
            result = self.execute([sys.executable, "benchmarks/overhead.py", *options], limit_s=180)
            if path.exists():
                text = path.read_text(encoding="utf-8").partition("\n## ")[2]
                self.lines += [f"## Overhead: {text}", ""]
            else:
                self.lines += ["## Overhead", "", "```", _tail(result, 12), "```", ""]

    def predictions(self) -> None:
        """Hold predictions against runs; the page with all figures is a file of its own."""
        seconds = str(150 * self._times)
        result = self.execute([sys.executable, "benchmarks/accuracy_gpu.py", "--seconds", seconds], limit_s=220)
        self.lines += ["## Predictions", "", "```", _tail(result, 40), "```", ""]

    def recordings(self) -> None:
        """Record every program and compare."""
        self.lines += ["## Recordings", "", "| program | result |", "|---|---|"]
        for program in programs():
            with tempfile.TemporaryDirectory() as folder:
                try:
                    result = self._record(program, Path(folder))
                except Exception as error:
                    result = f"**failed**: {type(error).__name__}: {error}"
            self.lines.append(f"| {program.label} | {_one_line(result)} |")
        self.lines.append("")

    def _record(self, program: Program, folder: Path) -> str:
        if "click" in self.missing:
            return self._record_parts_only(program, folder)
        trace = folder / "trace.json.gz"
        record = [sys.executable, "-m", "memtrace", "record", "-o", str(trace), "--", sys.executable, *program.command]
        result = self.execute(record, limit_s=60, env=program.environ)
        if isinstance(result, str) or result.returncode != program.status or not trace.exists():
            return f"**failed**: {_tail(result, 4)}"
        report = self.execute([sys.executable, "-m", "memtrace", "report", "--json", str(trace)], limit_s=60)
        if isinstance(report, str) or report.returncode:
            return f"recorded ({trace.stat().st_size} bytes), not reported: {_tail(report, 2)}"
        return judged(program, result.stdout, json.loads(report.stdout))

    def _record_parts_only(self, program: Program, folder: Path) -> str:
        """Record without the command line: what a process writes needs no package."""
        from benchmarks.overhead import recorded_environment

        parts = folder / "parts"
        parts.mkdir()
        environ = recorded_environment({**os.environ, "PYTHONPATH": _python_path(), **program.environ}, parts)
        result = self.execute([sys.executable, *program.command], limit_s=60, env=environ)
        if isinstance(result, str) or result.returncode != program.status:
            return f"**failed**: {_tail(result, 4)}"
        sizes = [path.stat().st_size for path in parts.iterdir()]
        return f"recorded, {len(sizes)} part files of {sum(sizes)} bytes; not reported: click is missing"


def judged(program: Program, output: str, report: dict[str, Any]) -> str:
    """Return the verdict of a report, or what is wrong with it."""
    notes = {note["slug"] for rank in report["ranks"] for note in rank["warnings"]}
    wrong = differences(lines_said(output), report) if program.says_totals else []
    if program.is_oom and not any(rank["oom"] for rank in report["ranks"]):
        wrong.append("the out-of-memory is not in the report")
    if program.note is not None and program.note not in notes:
        wrong.append(f"no note {program.note}")
    if wrong:
        return "**wrong**: " + "; ".join(wrong[:6])
    checked = " Equal to torch's own totals at each step end." if program.says_totals else ""
    return f"{report['verdict']}{checked}"


def _python_path() -> str:
    before = os.environ.get("PYTHONPATH")
    return str(ROOT) + (os.pathsep + before if before else "")


def _tail(result: subprocess.CompletedProcess[str] | str, num_lines: int) -> str:
    if isinstance(result, str):
        return result
    text = (result.stdout + result.stderr).replace(str(ROOT), ".").strip().splitlines()[-num_lines:]
    return "\n".join([*text, f"(exit status {result.returncode})"])


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:600]


def gpu_facts() -> dict[str, str] | None:
    """Return the GPU and versions, found in a process of its own; None where there is none."""
    if importlib.util.find_spec("torch") is None:
        return None
    code = (
        "import json, torch\n"
        "if torch.cuda.is_available():\n"
        "    facts = dict(gpu=torch.cuda.get_device_name(), torch=torch.__version__)\n"
        "    facts['memory'] = f'{torch.cuda.get_device_properties(0).total_memory / 2**30:.1f} GiB'\n"
        "    print(json.dumps(facts))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    found = lines_said(result.stdout)
    return found[0] if found else None


def say_what_is_not_measured() -> None:
    """Write and print what awaits a GPU."""
    text = "\n".join(
        [
            "# Not measured: awaits a GPU",
            "",
            "`make gpu` found no GPU. With one, it replaces this file by dated results of:",
            "",
            "- the tests marked `gpu`: a recording equals torch's own totals and the model's own bytes",
            "- step time recorded against bare, for a GPT of at least 100 M parameters (target ≤ 1.05×)",
            "- predictions against runs of the same programs: peaks allocated and reserved, categories, out-of-memory "
            "verdicts (`benchmarks/accuracy_gpu.py`; its part without a GPU is in `predict-accuracy-DATE.md`)",
            *(f"- recording and report of: {program.label}" for program in programs()),
            "",
        ]
    )
    RESULTS.mkdir(parents=True, exist_ok=True)
    NOT_MEASURED.write_text(text, encoding="utf-8")
    print(text)


def main() -> None:
    """Measure what there is a GPU for, and say what is not measured."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"Missing here, and the parts that need them are left out: {', '.join(missing)}")
    facts = gpu_facts()
    if facts is None:
        say_what_is_not_measured()
        return
    is_driverless = DESCRIBED_DEVICES in os.environ
    run = Run(missing, is_driverless=is_driverless)
    for part in (run.recordings, run.predictions, run.tests, run.overhead):
        part()
    text = "\n".join([*heading(facts, missing, is_driverless=is_driverless), *run.lines])
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = "gpu-driverless" if is_driverless else "gpu"
    (RESULTS / f"{name}-{date.today()}.md").write_text(text, encoding="utf-8")
    if not is_driverless:
        NOT_MEASURED.unlink(missing_ok=True)
    print(text)


def heading(facts: dict[str, str], missing: list[str], *, is_driverless: bool) -> list[str]:
    """Return the first lines of the results."""
    gpu = f"{facts['gpu']}, {facts['memory']}"
    if is_driverless:
        title = f"# `make gpu` without a GPU, {date.today()}"
        gpu = f"As on {gpu}, which was not there: torch's own CUDA code, and no kernel (docs/driverless.md)"
    else:
        title = f"# On a GPU, {date.today()}"
    about = f"{gpu}; torch {facts['torch']}, Python {platform.python_version()}."
    return [title, "", f"{about} Missing packages: {', '.join(missing) or 'none'}.", ""]


if __name__ == "__main__":
    main()
