"""The estimates of others beside ours and a recording: accelerate's `estimate-memory`, DeepSpeed's model states.

    python benchmarks/accuracy_peers.py [--keep FOLDER] [--deepspeed SDIST_FOLDER]

Needs `accelerate`, which is no dependency of memtrace. Of DeepSpeed only one function is run, taken from the source
file of an unpacked release, since the package itself needs a compiler and a GPU. The configurations are those of GPT-2
and Llama in `accuracy_estimate.py`, and so are the recordings. Writes `benchmarks/results/accuracy-peers-<date>.md`.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
sys.path.insert(0, str(ROOT))

from benchmarks.accuracy_estimate import (  # noqa: E402
    Case,
    config_of,
    error_pct,
    estimated,
    fixed_cases,
    measured,
    name_of,
)

DEEPSPEED_FILE = "deepspeed/runtime/zero/stage_1_and_2.py"
DEEPSPEED_FUNCTION = "estimate_zero2_model_states_mem_needs"
Peer = Callable[[Case], int]


def accelerate_estimate(case: Case) -> int:
    """Return what `accelerate estimate-memory` prints as "Training w/ Adam"; it knows neither batch nor sequence."""
    import torch
    import transformers
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes

    settings = config_of(case)
    config = transformers.CONFIG_MAPPING[settings.pop("model_type")](**settings)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    total, _ = calculate_maximum_sizes(model)
    precision = "float32" if case["precision"] == "fp32" else "bfloat16"
    return int(max(estimate_training_usage(total, precision).values()))


def deepspeed_estimate(folder: Path) -> Peer:
    """Return DeepSpeed's estimate of the model states on one GPU, which is for 16-bit mixed precision."""
    tree = ast.parse((folder / DEEPSPEED_FILE).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == DEEPSPEED_FUNCTION]
    names: dict[str, Callable[..., tuple[float, float]]] = {}
    exec(compile(ast.Module(found, type_ignores=[]), DEEPSPEED_FILE, "exec"), names)

    def peer(case: Case) -> int:
        from memtrace.forecast.model.config import read_config
        from memtrace.forecast.model.parameters import num_parameters

        _, gpu = names[DEEPSPEED_FUNCTION](num_parameters(read_config(config_of(case))), 1, 1, cpu_offload=False)
        return int(gpu)

    return peer


def main() -> int:
    """Compare and write; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "memtrace-estimate-accuracy")
    parser.add_argument("--deepspeed", type=Path, help="an unpacked source release")
    args = parser.parse_args()
    args.keep.mkdir(parents=True, exist_ok=True)
    peers: dict[str, Peer] = {"memtrace": lambda case: estimated(case)["total"]}
    try:
        import accelerate  # noqa: F401

        peers["accelerate"] = accelerate_estimate
    except ImportError:
        print("accelerate is not installed: left out")
    if args.deepspeed is not None:
        peers["DeepSpeed, model states"] = deepspeed_estimate(args.deepspeed)
    cases = [case for case in fixed_cases() if case["kind"] != "sample"]
    errors: dict[str, list[float]] = {name: [] for name in peers}
    lines = [f"| configuration | {' | '.join(peers)} |", "|" + "---|" * (len(peers) + 1)]
    for case in cases:
        truth = measured(case, args.keep)["total"]
        for name, peer in peers.items():
            errors[name].append(error_pct(peer(case), truth))
        lines.append(f"| {name_of(case)} | {' | '.join(f'{errors[name][-1]:+.1f} %' for name in peers)} |")
    summary = [
        f"- {name}: median {statistics.median(map(abs, found)):.1f} %, worst {max(found, key=abs):+.1f} %"
        for name, found in errors.items()
    ]
    text = "\n".join(
        [
            f"# Estimates of the total peak beside recordings, {datetime.date.today()}",
            "",
            "Signed errors; a minus is an under-estimate. accelerate's figure is for a batch of one and leaves out",
            "activations, DeepSpeed's is for the states of 16-bit mixed precision alone: neither claims more.",
            "",
            *summary,
            "",
            *lines,
            "",
        ]
    )
    print(text)
    (RESULTS / f"accuracy-peers-{datetime.date.today()}.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
