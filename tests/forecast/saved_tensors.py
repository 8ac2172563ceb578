"""What autograd keeps for backward when a model runs on the CPU: the oracle of the activation formulas.

Every saved tensor's storage counts once, parameters and buffers not; logits count, since a training loop holds them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def saved_bytes(model: torch.nn.Module, run: Callable[[], tuple[torch.Tensor, ...]]) -> int:
    """Return the bytes kept after `run`, which returns the loss and what of its output the program holds."""
    own = [*model.parameters(), *model.buffers()]
    skipped = {tensor.untyped_storage().data_ptr() for tensor in own}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _, *held = run()
    kept |= {tensor.untyped_storage().data_ptr(): tensor for tensor in held}
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in skipped)


def language_model(
    kind: str, settings: dict[str, Any], attention: str, *, masked: bool = False, cache: bool = False
) -> torch.nn.Module:
    """Return a model of `transformers` of random weights, ready to train."""
    import transformers

    config = transformers.CONFIG_MAPPING[kind](**settings, attn_implementation=attention, use_cache=cache)
    loader = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    return loader.from_config(config, attn_implementation=attention).train()  # type: ignore[no-any-return]
