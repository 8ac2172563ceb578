"""What a process holds of a GPU beside torch's allocator: the context of CUDA and the kernels that it has loaded.

A context grows with the multiprocessors: each gets its share of stacks and queues. What was measured, by process, with
CUDA 12 and 13:

    Tesla T4                  40 multiprocessors  134.9 MiB  training; torch-preflight 0.5.0, measured_peaks.json
    Tesla T4                  40                  140.9 MiB  training; fitcheck-llm 0.3.1, t4-sweep-2026-09-15.json
    RTX 4060 Ti               34                  107 MiB    bare; llama.cpp pull request 23604
    RTX 3090                  82                  256 MiB    bare; torch 2.7.1+cu128, InvokeAI issue 9413
    RTX 6000 Ada             142                  426 MiB    bare; torch 2.10.0+cu130, unsloth-zoo pull request 1053
    RTX PRO 6000 Blackwell   188                  555 MiB    bare; llama.cpp pull request 23604

Bare ones take 2.95 to 3.15 MiB a multiprocessor, and training 15 to 21 MiB more. Since CUDA 11.7 kernels are loaded
when they are first called, and torch asks for that; before, and with `CUDA_MODULE_LOADING=EAGER`, all of torch's were:
over 1 GB (pytorch issue 107667). No data center GPU from the V100 on is among them: for these it is the rule.
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.schema.gpu_cards import CARDS, Card, is_amd

_MIB = 1024**2
_BARE_BYTES = 3 * _MIB
"""Of each multiprocessor."""
_LEAST_BARE_BYTES = 2_900_000
_KERNELS_BYTES = 16 * _MIB
"""Kernels that a training run loads."""
_LIBRARIES_BYTES = 256 * _MIB
"""Allowed for at most, beside a tenth more for each multiprocessor: kernels of many libraries. Chosen, not measured."""
_AMD_BYTES = 1024 * _MIB
"""Of AMD's GPUs no measurement is known: from nothing to twice this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Bytes that a process holds beside torch's allocator."""

    low_bytes: int
    predicted_bytes: int
    high_bytes: int
    source: str
    """From where it is known, in a few words."""


def context_of(card: Card) -> Context:
    """Return what a process takes of a card beside torch's allocator.

    >>> from memtrace.schema.gpu_cards import CARDS
    >>> context_of(CARDS["t4-16gb"]).predicted_bytes // 1024**2
    136
    """
    if is_amd(card):
        return Context(low_bytes=0, predicted_bytes=_AMD_BYTES, high_bytes=2 * _AMD_BYTES, source="assumed")
    bare = card.multiprocessors * _BARE_BYTES
    return Context(
        low_bytes=card.multiprocessors * _LEAST_BARE_BYTES,
        predicted_bytes=bare + _KERNELS_BYTES,
        high_bytes=bare + bare // 10 + _KERNELS_BYTES + _LIBRARIES_BYTES,
        source=f"3 MiB for each of {card.multiprocessors} multiprocessors and 16 MiB of kernels, by six measurements",
    )


USUAL_CONTEXT = context_of(CARDS["a100-80gb"])
"""Of a GPU that is not named, which is taken to be an A100."""
