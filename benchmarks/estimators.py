"""Estimates of other tools beside ours, for the same configurations, against recordings: accelerate's and DeepSpeed's.

    python benchmarks/estimators.py [--python OTHER] [--no-write]

OTHER is a Python whose environment has torch, transformers, accelerate and DeepSpeed, which memtrace does not depend
on; without one, recordings and our own estimates are shown. Those tools estimate weights, gradients and states and
nothing else, so nothing else is compared. The result goes to benchmarks/results/estimators-DATE.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.accuracy_estimate import Case, config_of, error_pct, estimated, fixed_cases, measured  # noqa: E402

DEEPSPEED_PROGRAM = ROOT / "benchmarks" / "programs" / "train_deepspeed.py"
STATES = ("parameter", "gradient", "optimizer_state")

OTHERS = """
import json, sys
import importlib.metadata, torch, transformers
from accelerate.commands.estimate import estimate_training_usage
from accelerate.utils import calculate_maximum_sizes
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs, model_to_params
from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

found = {"versions": {name: importlib.metadata.version(name) for name in ("accelerate", "deepspeed", "torch")}}
for name, text in json.load(sys.stdin).items():
    config = transformers.CONFIG_MAPPING[text.pop("model_type")](**text)
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(config)
    size, _ = calculate_maximum_sizes(empty)
    total, largest = model_to_params(transformers.AutoModelForCausalLM.from_config(config))
    found[name] = {
        "fp32": max(estimate_training_usage(size, "float32").values()),
        "autocast": max(estimate_training_usage(size, "float16").values()),
        "zero2": estimate_zero2_model_states_mem_needs(total, 1, 1, cpu_offload=False)[1],
        "zero3": estimate_zero3_model_states_mem_needs(
            total, largest, 1, 1, cpu_offload=False, cpu_offload_params=False
        )[1],
    }
print("RESULT " + json.dumps(found))
"""
"""Asks the tools' own functions, on a model made from its configuration: their commands would download it."""


def compared_cases() -> list[Case]:
    """Return models of `transformers`, each in two sizes and two precisions; a large vocabulary makes tying count."""
    models = [case for case in fixed_cases() if case["kind"] != "sample" and case["layers"] in (2, 4)]
    plain = {"attention": "sdpa", "dropout": 0.0, "checkpointing": False, "accumulation": 1}
    chosen = []
    for case in models:
        if all(case[name] == value for name, value in plain.items()) and case["precision"] in ("fp32", "autocast"):
            chosen.append(case)
    return chosen


def ask(python: str, program: str, text: str = "", *arguments: str) -> dict[str, Any]:
    """Return what a program, run by another Python, prints after the word RESULT."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [python, "-W", "ignore", *(["-c", program] if "\n" in program else [program]), *arguments]
    ran = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, timeout=300)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise RuntimeError(f"{program[:60]!r} printed no result:\n{ran.stderr[-2000:]}")
    return dict(json.loads(lines[-1].removeprefix("RESULT ")))


def title(case: Case) -> str:
    """Return a case in words."""
    return f"{case['kind']} {case['layers']}×{case['hidden']}, vocabulary {case['vocabulary']}, {case['precision']}"


def torch_rows(cases: list[Case], others: dict[str, Any], folder: Path) -> list[str]:
    """Return rows of torch's own AdamW on one device: what a step ends with, ours, accelerate's."""
    rows = []
    for case in cases:
        truth, ours = (sum(found[name] for name in STATES) for found in (measured(case, folder), estimated(case)))
        theirs = others.get(title(case), {}).get(case["precision"])
        cells = [title(case), f"{truth:,}", f"{error_pct(ours, truth):+.2f} %", _error(theirs, truth)]
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def deepspeed_rows(python: str, cases: list[Case], others: dict[str, Any], folder: Path) -> list[str]:
    """Return rows of DeepSpeed's engine on one process: between passes, and within the optimizer's step."""
    rows = []
    # What DeepSpeed holds for a parameter does not depend on the sizes of the model: one size each.
    for case in (one for one in cases if one["precision"] == "fp32" and one["layers"] == 4):
        for stage in (2, 3):
            config = json.dumps(config_of(case))
            held = ask(python, str(DEEPSPEED_PROGRAM), "", "--config", config, "--stage", str(stage))
            peak = recorded_states(python, config, stage, folder)
            theirs, number = others[title(case)][f"zero{stage}"], held["num_parameters"]
            cells = [f"{title(case).rpartition(',')[0]}, ZeRO-{stage}"]
            for truth in (held["held_bytes"], peak):
                cells += [f"{truth:,}", *(_error(one, truth) for one in (*ours_of(number), theirs))]
            rows.append(f"| {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    return rows


def ours_of(num_parameters: int) -> tuple[int, int]:
    """Return our figures for recipes with a float32 master copy: with 16-bit gradients, and with float32 ones too."""
    from memtrace.forecast.model.precision import PRECISIONS

    recipes = [PRECISIONS[name] for name in ("bf16-mixed", "bf16-mixed-fp32-grad")]
    first, second = (
        num_parameters
        * (one.weight_bytes + one.gradient_bytes + one.master_bytes + one.adam_state_bytes + one.accumulation_bytes)
        for one in recipes
    )
    return first, second


def recorded_states(python: str, config: str, stage: int, folder: Path) -> int:
    """Return the bytes of weights, gradients and states at the steady-state peak of DeepSpeed's engine."""
    from memtrace.analysis.report import analyze
    from memtrace.store.reading.read import read_trace

    trace = folder / "deepspeed.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "memtrace", "record", "--force", "--stacks", "none", "-o", str(trace), "--"]
    command += [python, str(DEEPSPEED_PROGRAM), "--config", config, "--stage", str(stage)]
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)
    peak = analyze(read_trace((trace,))).ranks[0].steady_state_peak
    assert peak is not None
    return sum(peak.by_category.get(name, 0) for name in STATES)


def _error(estimate: int | None, truth: int) -> str:
    return "–" if estimate is None else f"{error_pct(estimate, truth):+.2f} %"


def document(with_torch: list[str], with_deepspeed: list[str], versions: dict[str, str]) -> str:
    """Return the page."""
    made_with = ", ".join(f"{name} {one}" for name, one in versions.items()) or "no other tool was there"
    lines = [
        f"# Estimates of other tools, {datetime.date.today().isoformat()}",
        "",
        f"{made_with}. Python {platform.python_version()}, {platform.system()} {platform.machine()}.",
        "",
        INTRODUCTION,
        "## torch's AdamW, one device",
        "",
        "| configuration | recorded bytes | memtrace | accelerate |",
        "|---|---|---|---|",
        *with_torch,
        "",
    ]
    if with_deepspeed:
        lines += [
            DEEPSPEED,
            "| configuration | between passes | memtrace, 16 bytes | memtrace, 20 bytes | DeepSpeed "
            "| within the step | memtrace, 16 bytes | memtrace, 20 bytes | DeepSpeed |",
            "|---|---|---|---|---|---|---|---|---|",
            *with_deepspeed,
            "",
        ]
    return "\n".join(lines)


INTRODUCTION = """Weights, gradients and optimizer states only: other tools estimate nothing else. They leave out
activations, logits, temporaries of the optimizer, communication buffers and the allocator; memtrace's figures for
activations and the total are in docs/estimate-accuracy.md. Errors are signed; a minus is an under-estimate.

accelerate's figure is the column "Training using Adam" of `accelerate estimate-memory`: the largest of four figures
(model, gradients, optimizer, step). In float32 `step` is the sum of the others; in float16, which it means as mixed
precision, it is not.
"""
DEEPSPEED = """## DeepSpeed's engine, bf16 with a float32 master copy, one process

Two truths, since the engine makes float32 gradients only within the optimizer's step: all tensors after the backward
pass, counted by the program, and weights, gradients and states at the peak of the step, as memtrace recorded them. Our
recipes are `bf16-mixed` (16 bytes a parameter) and `bf16-mixed-fp32-grad` (20). DeepSpeed's figure is that of
`estimate_zero2_…` and `estimate_zero3_model_states_mem_needs` for one GPU without offloading; with ZeRO-3 it adds the
largest layer, gathered in float32.

The engine ran on the CPU, with torch's AdamW. Within its step it holds 18 bytes a parameter: no recipe of memtrace has
just that. Temporaries of AdamW come on top, in neither tool's figures here.
"""


def main() -> int:
    """Measure, ask, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="a Python whose environment has the other tools")
    parser.add_argument("--no-write", action="store_true", help="print the page instead of writing it")
    args = parser.parse_args()
    cases, others = compared_cases(), dict[str, Any]()
    if args.python:
        others = ask(args.python, OTHERS, json.dumps({title(case): config_of(case) for case in cases}))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with_torch = torch_rows(cases, others, folder)
        with_deepspeed = deepspeed_rows(args.python, cases, others, folder) if args.python else []
    page = document(with_torch, with_deepspeed, others.get("versions", {}))
    if args.no_write or not args.python:
        print(page)
    else:
        path = ROOT / "benchmarks" / "results" / f"estimators-{datetime.date.today().isoformat()}.md"
        path.write_text(page, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
