"""How far estimates are from recordings on the CPU: weights, gradients, states, activations, total peak.

    python benchmarks/accuracy_estimate.py [--drawn 12] [--seed 20261121 --seed 20261122] [--keep FOLDER]

A fixed grid of configurations of samples/train_gpt.py and of GPT-2 and Llama of `transformers`, then configurations
drawn from the printed seed. Each is recorded with `memtrace record` in a process of its own and compared with the
estimate. What was measured is kept in FOLDER and not measured again. The table goes to docs/estimate-accuracy.md. Exit
status 1: a target was missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
PAGE = ROOT / "docs" / "estimate-accuracy.md"
SAMPLE_VOCABULARY = len(set((ROOT / "samples/corpus.txt").read_text(encoding="utf-8")))
EXACT = ("parameter", "gradient", "optimizer_state")
FIXED, TWO_STACKS = "The fixed grid", "An encoder and a decoder"
MEDIAN_PCT, WORST_PCT = 3.0, 8.0
"""Targets of the activations; the median is also that of the total."""
SEEDS = (20261121, 20261122)
"""Of the first draw the errors were looked at, and the formulas changed; the second came after that."""

Case = dict[str, Any]
T5_KINDS = ("t5", "flan-t5", "umt5")
BART_KINDS = ("bart", "mbart")


BASE: Case = {"layers": 4, "hidden": 192, "heads": 4, "sequence": 128, "batch": 4, "precision": "fp32", "dropout": 0.0}
BASE |= {"attention": "sdpa", "checkpointing": False, "accumulation": 1, "vocabulary": 2000, "kv_heads": 2}
CHANGES: list[Case] = [
    {},
    {"attention": "explicit"},
    {"precision": "autocast"},
    {"precision": "autocast", "attention": "explicit", "dropout": 0.1},
    {"dropout": 0.1},
    {"checkpointing": True},
    {"layers": 2, "hidden": 320, "batch": 8},
    {"layers": 6, "hidden": 128, "sequence": 256, "batch": 2},
    {"accumulation": 2},
]


def fixed_cases() -> list[Case]:
    """Return the grid."""
    cases = [{**BASE, "kind": kind, **change} for kind in ("sample", "gpt2", "llama") for change in CHANGES]
    cases += [{**BASE, "kind": kind, "precision": "bf16"} for kind in ("gpt2", "llama")]
    cases += [{**BASE, "kind": kind, "vocabulary": 16000, "layers": 2} for kind in ("gpt2", "llama")]
    return cases


def two_stacks_cases() -> list[Case]:
    """Return configurations of models that are an encoder and a decoder."""
    t5: list[Case] = [
        *CHANGES,
        {"precision": "bf16"},
        {"vocabulary": 16000, "layers": 2},
        {"target": 16},
        {"target": 256, "sequence": 64},
        {"attention": "explicit", "dropout": 0.1},
        {"attention": "explicit", "checkpointing": True},
    ]
    bart: list[Case] = [{}, {"precision": "autocast"}, {"precision": "bf16"}, {"dropout": 0.1}, {"checkpointing": True}]
    cases = [{"target": 96, **BASE, "kind": kind, **change} for change in bart for kind in BART_KINDS]
    cases += [{"target": 96, **BASE, "kind": kind, **change} for change in t5 for kind in T5_KINDS]
    return cases


def drawn_cases(number: int, seed: int) -> list[Case]:
    """Return random configurations."""
    draw, cases = random.Random(seed), []
    while len(cases) < number:
        kind, heads = draw.choice(["sample", "gpt2", "llama"]), draw.choice([2, 4, 8])
        precisions = ["fp32", "autocast"] + (["bf16"] if kind != "sample" else [])
        case = {
            "kind": kind,
            "layers": draw.randint(1, 7),
            "heads": heads,
            "kv_heads": draw.choice([one for one in (1, 2, 4, 8) if heads % one == 0]),
            "hidden": heads * draw.choice([16, 24, 32, 48]),
            "sequence": draw.choice([48, 96, 128, 200, 256]),
            "batch": draw.randint(1, 8),
            "vocabulary": draw.choice([500, 3000, 9000]),
            "precision": draw.choice(precisions),
            "attention": draw.choice(["sdpa", "explicit"]),
            "dropout": draw.choice([0.0, 0.0, 0.1]),
            "checkpointing": draw.random() < 0.25,
            "accumulation": draw.choice([1, 1, 2]),
        }
        if case not in cases:
            cases.append(case)
    return cases


def config_of(case: Case) -> dict[str, Any]:
    """Return the config.json of a case of `transformers`."""
    drop = case["dropout"]
    if case["kind"] == "gpt2":
        return {
            "model_type": "gpt2",
            "n_embd": case["hidden"],
            "n_layer": case["layers"],
            "n_head": case["heads"],
            "vocab_size": case["vocabulary"],
            "n_positions": case["sequence"],
            "embd_pdrop": drop,
            "attn_pdrop": drop,
            "resid_pdrop": drop,
        }
    if case["kind"] in BART_KINDS:
        sizes = {"layers": case["layers"], "attention_heads": case["heads"], "ffn_dim": 4 * case["hidden"]}
        stacks = {f"{name}_{field}": size for name in ("encoder", "decoder") for field, size in sizes.items()}
        common = {"model_type": case["kind"], "d_model": case["hidden"], "vocab_size": case["vocabulary"]}
        dropouts = {"dropout": drop, "attention_dropout": drop, "activation_dropout": drop}
        return {**common, "max_position_embeddings": case["sequence"], **stacks, **dropouts}
    if case["kind"] in T5_KINDS:
        return {
            "model_type": "umt5" if case["kind"] == "umt5" else "t5",
            "d_model": case["hidden"],
            "d_kv": case["hidden"] // case["heads"],
            "d_ff": 4 * case["hidden"],
            "num_layers": case["layers"],
            "num_heads": case["heads"],
            "vocab_size": case["vocabulary"],
            "dropout_rate": drop,
            "feed_forward_proj": "relu" if case["kind"] == "t5" else "gated-gelu",
            "decoder_start_token_id": 0,
        }
    return {
        "model_type": "llama",
        "hidden_size": case["hidden"],
        "num_hidden_layers": case["layers"],
        "num_attention_heads": case["heads"],
        "num_key_value_heads": case["kv_heads"],
        "intermediate_size": 8 * case["hidden"] // 3,
        "vocab_size": case["vocabulary"],
        "max_position_embeddings": case["sequence"],
        "attention_dropout": drop,
    }


def command_of(case: Case) -> list[str]:
    """Return the training command of a case."""
    shape = ["--micro-batch", case["batch"], "--sequence", case["sequence"], "--accumulation", case["accumulation"]]
    shape += ["--steps", 3, *(["--checkpointing"] if case["checkpointing"] else [])]
    if case["kind"] == "sample":
        program, attention = ROOT / "samples/train_gpt.py", case["attention"]
        precision = "bf16" if case["precision"] == "autocast" else case["precision"]
        shape += ["--layers", case["layers"], "--hidden", case["hidden"], "--heads", case["heads"]]
        shape += ["--dropout", case["dropout"], "--device", "cpu"]
    else:
        program, precision = ROOT / "benchmarks/programs/train_transformers.py", case["precision"]
        attention = "eager" if case["attention"] == "explicit" else "sdpa"
        shape += ["--config", json.dumps(config_of(case))]
        shape += ["--target-sequence", case["target"]] if "target" in case else []
    return [sys.executable, *map(str, [program, "--precision", precision, "--attention", attention, *shape])]


def recorded(case: Case, folder: Path) -> dict[str, Any]:
    """Return what a recording of a case says, from the folder if it was measured before."""
    key = hashlib.sha256(json.dumps(case, sort_keys=True).encode()).hexdigest()[:16]
    result = folder / f"{key}.json"
    if not result.exists():
        trace = folder / f"{key}.trace.json"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "memtrace", "record", "--force", "-o", str(trace), "--", *command_of(case)]
        subprocess.run(command, check=True, capture_output=True, env=environment, timeout=600)
        result.write_text(json.dumps(read_recording(trace)))
        trace.unlink()
    return dict(json.loads(result.read_text()))


def read_recording(trace: Path) -> dict[str, Any]:
    """Return the steady-state peak of a recording, what was kept when its last backward began, and its last end."""
    from memtrace.analysis.device.device_history import build_history
    from memtrace.analysis.device.peak import state_at
    from memtrace.analysis.report import analyze
    from memtrace.store.reading.read import read_trace

    read = read_trace((trace,))
    report = analyze(read).ranks[0]
    peak, last = report.steady_state_peak, report.steps[-1]
    assert peak is not None
    assert last.end is not None
    history = build_history(read.ranks[0], report.device, owns_marks=True)
    start = [phase.start_ns for phase in last.phases if phase.phase == "backward"][-1]
    kept = state_at(history, int(np.searchsorted(history.moments.time_ns, start)) - 1)
    return {
        "peak": {"requested_bytes": peak.requested_bytes, "phase": peak.phase, "by_category": dict(peak.by_category)},
        "kept": dict(kept.by_category),
        "end": dict(last.end.by_category),
    }


def estimated(case: Case) -> dict[str, int]:
    """Return the estimate of a case: model, activations when backward begins, total of the steady-state peak."""
    from memtrace.forecast.memory.kept_by_kernels import PLAIN
    from memtrace.forecast.memory.layout import Layout, Run
    from memtrace.forecast.memory.phases import moments
    from memtrace.forecast.memory.sharding import rank_model
    from memtrace.forecast.model.config import read_config
    from memtrace.forecast.model.precision import PRECISIONS
    from memtrace.forecast.model.spec import ModelSpec

    drop = case["dropout"]
    if case["kind"] == "sample":
        spec = ModelSpec(
            name="sample",
            architecture=PLAIN,
            num_layers=case["layers"],
            hidden=case["hidden"],
            num_heads=case["heads"],
            num_kv_heads=case["heads"],
            head_dim=case["hidden"] // case["heads"],
            ffn=4 * case["hidden"],
            vocabulary=SAMPLE_VOCABULARY,
            learned_positions=case["sequence"],
            embedding_dropout=drop,
            attention_dropout=drop,
            hidden_dropout=drop,
        )
    else:
        spec = read_config(config_of(case))
    run = Run(
        micro_batch=case["batch"],
        sequence=case.get("target", case["sequence"]),
        source_sequence=case["sequence"] if "target" in case else None,
        accumulation=case["accumulation"],
        precision=PRECISIONS[case["precision"]],
        attention=case["attention"],
        recompute=2 if case["checkpointing"] else 0,
        backend="cpu",
    )
    points = moments(spec, run, Layout(), is_last=False, steady=True)
    peak = max(points, key=lambda one: one.num_bytes)
    kept = next(one for one in points if one.phase == "backward")
    model = rank_model(spec, run, Layout(), is_last=False)
    return {
        "parameter": model.weights,
        "gradient": model.gradients,
        "optimizer_state": model.states,
        "activation": int(kept.by_category["activation"]),
        "total": int(peak.num_bytes),
    }


def measured(case: Case, folder: Path) -> dict[str, int]:
    """Return what was recorded of the same; gradients and states at the end of the last step, where all are there.

    What the sample holds as input (its corpus) is not the model's and is left out of the total.
    """
    found = recorded(case, folder)
    peak, end = found["peak"]["by_category"], found["end"]
    return {
        "parameter": peak.get("parameter", 0),
        "gradient": end.get("gradient", 0),
        "optimizer_state": end.get("optimizer_state", 0),
        "activation": found["kept"].get("activation", 0),
        "total": found["peak"]["requested_bytes"] - peak.get("input", 0),
    }


def error_pct(estimate: int, truth: int) -> float:
    """Return the signed error in per cent; negative is an under-estimate."""
    return 100 * (estimate - truth) / truth


def name_of(case: Case) -> str:
    """Return a case in words."""
    words = [case["kind"], f"{case['layers']}×{case['hidden']}", f"{case['heads']} heads"]
    target = f" to {case['target']}" if "target" in case else ""
    words += [f"{case['batch']}×{case['sequence']}{target}", case["precision"], case["attention"]]
    words += [f"dropout {case['dropout']}"] if case["dropout"] else []
    words += ["checkpointing"] if case["checkpointing"] else []
    words += [f"accumulation {case['accumulation']}"] if case["accumulation"] > 1 else []
    words += [f"vocabulary {case['vocabulary']}"] if case["kind"] != "sample" else []
    return ", ".join(words)


def section(title: str, cases: list[Case], folder: Path) -> tuple[str, bool]:
    """Return a section of the page and whether its targets are met."""
    lines = ["| configuration | weights, gradients, states | activations | total peak |", "|---|---|---|---|"]
    errors: dict[str, list[tuple[float, str]]] = {"activation": [], "total": []}
    inexact = []
    for number, case in enumerate(cases, start=1):
        print(f"{title} {number}/{len(cases)}: {name_of(case)}", flush=True)
        estimate, truth = estimated(case), measured(case, folder)
        wrong = [name for name in EXACT if estimate[name] != truth[name]]
        inexact += [f"{name_of(case)}: {name} {estimate[name]} for {truth[name]}" for name in wrong]
        for name, found in errors.items():
            found.append((error_pct(estimate[name], truth[name]), name_of(case)))
        cells = [name_of(case), "exact" if not wrong else f"{', '.join(wrong)} differ"]
        cells += [f"{errors[name][-1][0]:+.2f} %" for name in errors]
        lines.append(f"| {' | '.join(cells)} |")
    summary, good = [], not inexact
    for name, found in errors.items():
        sizes = [abs(error) for error, _ in found]
        worst = max(found, key=lambda one: abs(one[0]))
        under = sum(error < 0 for error, _ in found)
        median = statistics.median(sizes)
        good &= median <= MEDIAN_PCT and (name == "total" or max(sizes) <= WORST_PCT)
        summary.append(
            f"- {name}: median {median:.2f} %, worst {worst[0]:+.2f} % ({worst[1]}); {under} of {len(found)} "
            "are under-estimates."
        )
    summary.append(f"- weights, gradients, states: {len(cases) - len({one.split(':')[0] for one in inexact})} of "
                   f"{len(cases)} exact to the byte.")  # fmt: skip
    summary += [f"  - {one}" for one in inexact]
    return f"## {title}\n\n" + "\n".join([*summary, "", *lines]) + "\n", good


def replace_section(title: str, cases: list[Case], folder: Path) -> int:
    """Measure one section, put it in the place of what the page has under its title, return the exit status."""
    part, good = section(title, cases, folder)
    before, *others = PAGE.read_text(encoding="utf-8").split("\n## ")
    found = {one.partition("\n")[0]: f"## {one}".strip() + "\n" for one in others}
    order = [FIXED, TWO_STACKS, *(one for one in found if one not in (FIXED, TWO_STACKS))]
    found[title] = part
    PAGE.write_text(f"{before}\n" + "\n".join(found[one] for one in order if one in found), encoding="utf-8")
    return 0 if good else 1


def main() -> int:
    """Measure, write the page, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawn", type=int, default=12)
    parser.add_argument("--seed", type=int, action="append", help="repeatable")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "memtrace-estimate-accuracy")
    parser.add_argument("--only", choices=[FIXED, TWO_STACKS], help="measure one section, and leave the page's others")
    parser.add_argument("--no-write", action="store_true", help="print the page instead of writing it")
    args = parser.parse_args()
    args.keep.mkdir(parents=True, exist_ok=True)
    named = {FIXED: fixed_cases(), TWO_STACKS: two_stacks_cases()}
    if args.only is not None:
        return replace_section(args.only, named[args.only], args.keep)
    measured_parts = [section(title, cases, args.keep) for title, cases in named.items()]
    parts, good = [part for part, _ in measured_parts], all(is_good for _, is_good in measured_parts)
    for seed in (args.seed or SEEDS) if args.drawn else ():
        print(f"seed {seed}")
        drawn, drawn_good = section(f"Drawn from seed {seed}", drawn_cases(args.drawn, seed), args.keep)
        parts, good = [*parts, drawn], good and drawn_good
    page = INTRODUCTION + "\n".join(parts)
    if args.no_write:
        print(page)
    else:
        PAGE.write_text(page, encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0 if good else 1


INTRODUCTION = """<!-- Generated by benchmarks/accuracy_estimate.py. Do not edit. -->

# Estimates against recordings

Each row is a training run of three steps on the CPU, recorded with `memtrace record`, beside the estimate of the same
configuration. Errors are signed: a minus is an under-estimate. Activations are those that are kept when the backward
pass of the last step begins; the total is that of the steady-state peak. It leaves out what the program holds as input,
which no description of a model tells. Gradients and states are those at the end of a step, where all of them are there.

The grid was there while the formulas were written. The first draw was not: its activations were off by 0.12 % in the
median and by -5.8 % at worst, its totals by 0.19 % and -4.2 %, under autocast with checkpointing; that was then
corrected, and below are its errors since. The second draw came after the correction; nothing was changed for it.

CUDA has not been measured: its formulas share the terms, and differ where kernels do (see
[what an estimate assumes](estimate.md#what-it-assumes)).

"""


if __name__ == "__main__":
    sys.exit(main())
