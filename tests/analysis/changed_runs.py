"""One training program, recorded as it is and once more for each change that advice can propose.

`python changed_runs.py FOLDER`, from the repository root, writes FOLDER/NAME.json for each of `RUNS`. All run in one
process, since starting torch takes longer than training the model.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PLAIN: dict[str, Any] = {
    "micro_batch": 8,
    "accumulation": 1,
    "set_to_none": True,
    "zero_late": False,
    "foreach": False,
    "fused": False,
    "optimizer": "adamw",
    "checkpointing": False,
    "bfloat16": False,
    "chunks": 1,
    "vocabulary": 64,
    "outputs": "inside",
}

RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "half": {"micro_batch": 4, "accumulation": 2},
    "checkpointing": {"checkpointing": True},
    "bfloat16": {"bfloat16": True},
    "zeroed": {"set_to_none": False},
    "late": {"zero_late": True},
    # A batch so small that the optimizer step is the peak.
    "small foreach": {"micro_batch": 1, "foreach": True},
    "small loop": {"micro_batch": 1},
    "small fused": {"micro_batch": 1, "fused": True},
    "small sgd foreach": {"micro_batch": 1, "foreach": True, "optimizer": "sgd"},
    "small sgd loop": {"micro_batch": 1, "optimizer": "sgd"},
    "words": {"vocabulary": 4096},
    "outputs held": {"vocabulary": 512, "outputs": "held"},
    "outputs dropped": {"vocabulary": 512, "outputs": "dropped"},
    "words in chunks": {"vocabulary": 4096, "chunks": 8},
}


def main(folder: Path) -> None:
    """Record every run."""
    import torch

    import memtrace

    torch.set_num_threads(1)
    for name, changes in RUNS.items():
        torch.manual_seed(0)
        with memtrace.record(folder / f"{name}.json"):
            train(torch, **{**PLAIN, **changes})


def train(torch: Any, **how: Any) -> None:
    """Train three steps."""
    functional, checkpoint = torch.nn.functional, torch.utils.checkpoint.checkpoint
    model = build_model(torch, how["vocabulary"], checkpoint if how["checkpointing"] else None)
    if how["optimizer"] == "sgd":
        optimizer = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1, foreach=how["foreach"], fused=how["fused"]
        )
    else:
        optimizer = torch.optim.AdamW(model.parameters(), foreach=how["foreach"], fused=how["fused"])

    def loss_of(rows: Any, targets: Any) -> Any:
        return functional.cross_entropy(model.head(rows), targets, reduction="sum")

    for _ in range(3):
        for _ in range(how["accumulation"]):
            tokens = torch.randint(how["vocabulary"], (how["micro_batch"], 65))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how["bfloat16"]):
                if how["outputs"] == "inside":
                    loss = model(tokens[:, :-1], tokens[:, 1:].flatten(), loss_of, how["chunks"])
                else:
                    logits = model(tokens[:, :-1], None, loss_of, 0)
                    loss = functional.cross_entropy(logits, tokens[:, 1:].flatten())
            if how["zero_late"]:
                optimizer.zero_grad()
            (loss / how["accumulation"]).backward()
        optimizer.step()
        if not how["zero_late"]:
            optimizer.zero_grad(set_to_none=how["set_to_none"])
        if how["outputs"] != "inside":
            predicted = logits
        if how["outputs"] == "dropped":
            del logits, loss, predicted


def build_model(torch: Any, vocabulary: int, checkpoint: Any) -> Any:
    """Return a network of layers with norms, products and activation functions, and a head over all words."""

    class Layer(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm = torch.nn.LayerNorm(width)
            self.up = torch.nn.Linear(width, 4 * width)
            self.down = torch.nn.Linear(4 * width, width)

        def forward(self, rows: Any) -> Any:
            return rows + self.down(torch.nn.functional.gelu(self.up(self.norm(rows))))

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(vocabulary, 96)
            self.layers = torch.nn.ModuleList(Layer(96) for _ in range(4))
            self.head = torch.nn.Linear(96, vocabulary, bias=False)

        def forward(self, tokens: Any, targets: Any, loss_of: Any, chunks: int) -> Any:
            rows = self.words(tokens).flatten(0, 1)
            for layer in self.layers:
                rows = checkpoint(layer, rows, use_reentrant=False) if checkpoint else layer(rows)
            if chunks == 0:
                return self.head(rows)
            if chunks == 1:
                return torch.nn.functional.cross_entropy(self.head(rows), targets)
            again = torch.utils.checkpoint.checkpoint
            parts = zip(rows.chunk(chunks), targets.chunk(chunks), strict=True)
            return torch.stack([again(loss_of, *part, use_reentrant=False) for part in parts]).sum() / len(targets)

    return Model()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
