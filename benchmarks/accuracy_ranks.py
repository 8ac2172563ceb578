"""Estimates against recordings of several ranks: what DDP and FSDP2 leave on each of them, to the byte.

    python benchmarks/accuracy_ranks.py [--only WORD …]

`benchmarks/programs/train.py` is recorded on the CPU with 2 and 4 gloo ranks. Parameters, gradients and states at the
end of the last step, and under DDP the buckets, are compared with the estimate, rank by rank. The table goes to
docs/estimate-ranks.md. Exit status 1: something is not exact.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

# Before torch is loaded: several ranks share this machine.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.matrix.runs import import_everything, record  # noqa: E402
from memtrace.forecast.estimation.rank_states import fsdp_states  # noqa: E402
from memtrace.forecast.memory.kept_by_kernels import PLAIN  # noqa: E402
from memtrace.forecast.memory.layout import Layout, Run  # noqa: E402
from memtrace.forecast.memory.optimizers import OPTIMIZERS  # noqa: E402
from memtrace.forecast.memory.sharding import rank_model  # noqa: E402
from memtrace.forecast.model.config import read_config  # noqa: E402
from memtrace.forecast.model.precision import PRECISIONS  # noqa: E402
from memtrace.forecast.model.spec import ModelSpec  # noqa: E402

PAGE = ROOT / "docs" / "estimate-ranks.md"
STEPS = 4
HIDDEN, LAYERS, HEADS, SEQUENCE, VOCABULARY = 64, 2, 2, 32, 131
"""Sizes of the models of `benchmarks/programs/train.py`; a test holds the two together."""
OF_PROGRAM = {"adamw": "adamw-foreach"}
"""What the program calls an optimizer, where that is not our name for it."""
CATEGORIES = ("parameter", "gradient", "optimizer_state", "communication")


@dataclass(frozen=True, slots=True)
class Case:
    """One way to train on several ranks."""

    model: str
    optimizer: str
    precision: str
    parallel: str
    num_ranks: int

    @property
    def name(self) -> str:
        """The case in words."""
        return f"{self.model} {self.optimizer} {self.precision} {self.parallel} {self.num_ranks} ranks"

    def arguments(self, steps: int) -> list[str]:
        """Return the program's arguments."""
        optimizer = OF_PROGRAM.get(self.optimizer, self.optimizer)
        precision = "bf16" if self.precision == "autocast" else self.precision
        given = {"model": self.model, "optimizer": optimizer, "precision": precision, "parallel": self.parallel}
        return [*(word for name, value in given.items() for word in (f"--{name}", value)), "--steps", str(steps)]


def cases() -> list[Case]:
    """Return all cases: torch's Adafactor cannot be used on sharded parameters."""
    ways = [("adamw", "fp32"), ("adamw", "autocast"), ("sgd-momentum", "fp32"), ("adafactor", "fp32")]
    every = product(("gpt", "gpt2", "llama"), ways, ("ddp", "ddp-views", "fsdp2"), (2, 4))
    return [
        Case(model, *way, parallel, num_ranks)
        for model, way, parallel, num_ranks in every
        if not (parallel == "fsdp2" and way[0] == "adafactor")
    ]


def spec_of(model: str) -> ModelSpec:
    """Return the description of a model of the program."""
    if model == "gpt":
        return ModelSpec(
            name="gpt",
            architecture=PLAIN,
            num_layers=LAYERS,
            hidden=HIDDEN,
            num_heads=HEADS,
            num_kv_heads=HEADS,
            head_dim=HIDDEN // HEADS,
            ffn=4 * HIDDEN,
            vocabulary=VOCABULARY,
            learned_positions=SEQUENCE,
        )
    if model == "gpt2":
        sizes = {"n_positions": SEQUENCE, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS}
        return read_config({"model_type": "gpt2", "vocab_size": VOCABULARY, **sizes})
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_hidden_layers": LAYERS}
    sizes |= {"num_attention_heads": HEADS, "num_key_value_heads": 1, "max_position_embeddings": SEQUENCE}
    return read_config({"model_type": "llama", "vocab_size": VOCABULARY, **sizes})


def estimated(case: Case, rank: int) -> dict[str, int]:
    """Return what the estimate says of one rank, by category."""
    spec, is_sharded = spec_of(case.model), case.parallel == "fsdp2"
    run = Run(
        precision=PRECISIONS[case.precision],
        optimizer=OPTIMIZERS[case.optimizer],
        backend="cpu",
        micro_batch=4,
        sequence=SEQUENCE,
    )
    layout = Layout(dp=case.num_ranks, zero=3 if is_sharded else 0, bucket_view=case.parallel != "ddp")
    model = rank_model(spec, run, layout, is_last=False)
    states = fsdp_states(spec, run, layout, rank) if is_sharded else int(model.states)
    return {
        "parameter": int(model.weights),
        "gradient": int(model.gradients),
        "optimizer_state": states,
        "communication": int(model.buckets),
    }


def recorded(case: Case, folder: Path) -> list[Mapping[str, int]]:
    """Return what each rank held at the end of the last step, by category; of communication what it keeps."""
    from memtrace.analysis.report import analyze
    from memtrace.store.reading.read import read_trace

    found = []
    for path in record(case, folder, STEPS):
        (rank,) = analyze(read_trace(path)).ranks
        ends = [dict(step.end.by_category) for step in rank.steps if step.end is not None]
        assert len(ends) == STEPS
        found.append({**ends[-1], "communication": kept(ends)})
    return found


def kept(ends: Sequence[Mapping[str, int]]) -> int:
    """Return the bytes of communication that outlive a step, from what each step's end holds.

    The threads of gloo say that a collective is done before they let go of its tensors. On a busy machine an optimizer
    can end its step in between, and the end then truly holds a buffer that nothing keeps.

    >>> kept([{"communication": 512}, {"communication": 512 + 42_496}, {"communication": 512}])
    512
    >>> kept([{"parameter": 4}, {"communication": 42_496}])
    0
    """
    return min(end.get("communication", 0) for end in ends)


def errors_of(case: Case, found: Sequence[Mapping[str, int]]) -> list[dict[str, int]]:
    """Return for each rank the categories in which the estimate is off, with bytes; too much is positive."""
    pairs = [(estimated(case, rank), truth) for rank, truth in enumerate(found)]
    return [
        {name: estimate[name] - truth.get(name, 0) for name in CATEGORIES if estimate[name] != truth.get(name, 0)}
        for estimate, truth in pairs
    ]


def row(case: Case, found: Sequence[Mapping[str, int]], errors: Sequence[Mapping[str, int]]) -> str:
    """Return a row of the table."""
    cells = [case.name]
    for name in CATEGORIES:
        sizes = [one.get(name, 0) for one in found]
        cells.append(f"{sizes[0]:,}" if len(set(sizes)) == 1 else ", ".join(f"{size:,}" for size in sizes))
    wrong = [f"rank {rank}: {name} {size:+,}" for rank, one in enumerate(errors) for name, size in one.items()]
    return f"| {' | '.join([*cells, '; '.join(wrong) or 'exact'])} |"


def document(rows: Sequence[str], num_ranks: int, num_exact: int) -> str:
    """Return the page."""
    head = "| configuration | parameters | gradients | states | buckets | estimate |\n|---|---|---|---|---|---|"
    summary = f"{num_exact} of {num_ranks} ranks of {len(rows)} runs are exact to the byte in all four columns."
    return "\n".join([INTRODUCTION, summary, "", head, *rows]) + "\n"


INTRODUCTION = """<!-- Generated by benchmarks/accuracy_ranks.py. Do not edit. -->

# Estimates of several ranks against recordings

Small models on 2 and 4 ranks of the CPU (gloo), recorded by memtrace. Bytes are those of each rank at the end of the
fourth step, after the optimizer's; one number where all ranks have the same. The models have an odd vocabulary, so that
no number of ranks divides them evenly.

- `ddp` keeps all gradients once more in its buckets; with `ddp-views` (`gradient_as_bucket_view=True`) they are the
  same memory, which counts as gradients.
- `fsdp2` cuts each tensor by rows. Parameters and gradients are padded to the same size on every rank, states are not:
  the last rank has less. `memtrace estimate` is of the first rank, which has the most; the column compares each rank
  with its own shard (`memtrace/forecast/estimation/rank_states.py`).
- Activations are not in this table: they do not depend on the ranks, and [another page](estimate-accuracy.md) has them.
  What FSDP2 gathers for a moment (a layer's weights and gradients, whole) is gone at the end of a step.
"""


def main() -> int:
    """Run, write the table, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=(), help="words that a configuration's name must hold")
    only = set(parser.parse_args().only)
    import_everything()
    rows, num_ranks, num_exact = [], 0, 0
    for case in cases():
        if not only <= set(case.name.split()):
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = recorded(case, Path(folder))
        errors = errors_of(case, found)
        num_ranks, num_exact = num_ranks + len(errors), num_exact + sum(not one for one in errors)
        rows.append(row(case, found, errors))
        print(rows[-1], flush=True)
    if not only:
        PAGE.write_text(document(rows, num_ranks, num_exact), encoding="utf-8")
    print(f"{num_exact} of {num_ranks} ranks exact")
    return 0 if num_exact == num_ranks else 1


if __name__ == "__main__":
    sys.exit(main())
