"""Stages of torch's pipelines, of which one rank is there: what the others would tell it of shapes.

Neighbours tell each other by messages which shapes they send. Of those the first rank gets two kinds: the gradients of
what it sends, which are like what it sends; and, where it has a later stage as well, that stage's inputs. Those are
taken to be like the outputs of the stage before it on this rank, as hidden states are between equal layers.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from memtrace.hooks.fake.events.assumptions import Assumptions

_ALIKE = "what a later pipeline stage of this rank receives was taken to be like what the stage before it sends"


def install(assumptions: Assumptions) -> None:
    """Let stages learn shapes from themselves. Affects: torch's pipelines, for the rest of the process."""
    try:
        stage: Any = import_module("torch.distributed.pipelining.stage").PipelineStage
        kinds: Any = import_module("torch.distributed.pipelining._utils")
        told = _Told(kinds._StageForwardMeta, kinds._StageBackwardMeta, assumptions)
        needs_dynamic = kinds.InferenceMode.needs_dynamic
        vote, answer, infer = (
            getattr(stage, name)
            for name in ("_warmup_forward_vote", "_warmup_backward_result", "_forward_metadata_inference")
        )
    except (ImportError, AttributeError):
        # Before torch 2.13 stages asked for less, and otherwise.
        return

    def forward_vote(self: Any, has_backward: bool, received_acc: Any = None) -> Any:
        told.is_static = received_acc is None or told.is_static
        told.is_static = told.is_static and not needs_dynamic(self._user_meta, has_backward)
        return vote(self, has_backward, received_acc)

    def backward_result(self: Any, received_result: Any = None) -> Any:
        answer(self, received_result)
        # The others, whose messages are empty, vote as the stages of this rank.
        return torch.tensor([int(told.is_static)], dtype=torch.int32)

    def forward_inference(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = infer(self, *args, **kwargs)
        told.outputs[self.stage_index] = self._stage_meta.outputs
        return found

    stage._warmup_forward_vote, stage._warmup_backward_result = forward_vote, backward_result
    stage._forward_metadata_inference = forward_inference
    stage._recv_meta = lambda self, source: told.received(self, source)


class _Told:
    """What stages of this rank make, from which follows what they are told."""

    def __init__(self, forward: Any, backward: Any, assumptions: Assumptions) -> None:
        self._forward, self._backward = forward, backward
        self._assumptions = assumptions
        self.outputs: dict[int, Any] = {}
        """By the index of the stage."""
        self.is_static = True
        """Whether the program has told every stage of this rank its shapes."""

    def received(self, stage: Any, source: int) -> Any:
        """Return what a stage is told by another, which is on another rank."""
        if source > stage.stage_index:
            sent = self.outputs[stage.stage_index]
            return self._backward(
                tuple(replace(one, requires_grad=False) if one.requires_grad else None for one in sent)
            )
        earlier = [index for index in self.outputs if index < stage.stage_index]
        if not earlier:
            self._assumptions.refuse(
                "which shapes a pipeline stage receives is told by a rank that is not there; "
                "give PipelineStage its input_args and output_args"
            )
        self._assumptions.value(_ALIKE)
        return self._forward(self.outputs[max(earlier)])
