"""What torch itself says of `train.py`, without memtrace: the account that recordings on each torch are held against.

Writes into the folder that it is given:
- `account.json`: bytes by owner after each step, and bytes that autograd was asked to keep before each backward;
- `profile.json`: an exported profile in which `PROFILED_BYTES` live at once;
- `snapshot.pickle`: this torch's memory snapshot, empty, where it was built for CUDA (no GPU is needed for that).
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import train

PROFILED_BYTES = 3 << 20


def storages(tensors: Iterable[torch.Tensor | None]) -> dict[int, int]:
    """Return bytes by address of the distinct storages of tensors."""
    whole = (one.untyped_storage() for one in tensors if one is not None)
    return {storage.data_ptr(): storage.nbytes() for storage in whole}


def account() -> dict[str, Any]:
    """Train, and return what model, optimizer and autograd hold."""
    owned: list[dict[str, int]] = []
    kept: list[int] = []
    packed: list[torch.Tensor] = []

    def before_backward(_model: torch.nn.Module, _optimizer: torch.optim.Optimizer) -> None:
        # The list holds every packed tensor, so no address was used twice.
        kept.append(sum(storages(packed).values()))
        packed.clear()

    def after_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        states = (value for state in optimizer.state.values() for value in state.values())
        tensors = {
            "parameter": model.parameters(),
            "gradient": (one.grad for one in model.parameters()),
            "buffer": model.buffers(),
            "optimizer_state": (one for one in states if isinstance(one, torch.Tensor)),
        }
        owned.append({name: sum(storages(found).values()) for name, found in tensors.items()})

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        packed.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        train.train(before_backward, after_step)
    return {"owned": owned, "kept": kept}


def profile(path: Path) -> None:
    """Export a profile of three tensors, two of which live at once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        first = torch.empty(PROFILED_BYTES // 3, dtype=torch.uint8)
        second = torch.empty(2 * PROFILED_BYTES // 3, dtype=torch.uint8)
        del first, second
        third = torch.empty(PROFILED_BYTES // 2, dtype=torch.uint8)
        del third
    profiler.export_chrome_trace(str(path))


def main(folder: Path) -> None:
    """Write everything that torch says."""
    facts = account()
    facts |= {"version": torch.__version__, "built_for_cuda": torch.version.cuda is not None}
    facts["profiled_bytes"] = PROFILED_BYTES
    # The walk needs to see what is kept without unpacking it: this asks a real saved value, not its class.
    saved: Any = torch.ones(1, requires_grad=True).exp().grad_fn
    facts["shows_saved"] = hasattr(saved._raw_saved_result, "unpack_hook")
    (folder / "account.json").write_text(json.dumps(facts), encoding="utf-8")
    profile(folder / "profile.json")
    if facts["built_for_cuda"]:
        (folder / "snapshot.pickle").write_bytes(pickle.dumps(torch.cuda.memory._snapshot()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
