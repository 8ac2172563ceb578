"""Stages of torch's pipelines, of which one rank is there: what the others would tell it of shapes.

Neighbours tell each other by messages which shapes they send. A rank gets three kinds: the gradients of what it sends,
which are like what it sends; the inputs of its first stage, which the rank before it leaves when it runs; and, where it
has a later stage as well, that stage's inputs. Those are taken to be like the outputs of the stage before it on this
rank, as hidden states are between equal layers.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from memtrace.hooks.fake.cuda.told import Told

_ALIKE = "what a later pipeline stage of this rank receives was taken to be like what the stage before it sends"

_NOT_TOLD = (
    "which shapes a pipeline stage receives is told by a rank that is not there (give PipelineStage its input_args "
    "and output_args)"
)


def install(told: Told) -> None:
    """Let stages learn shapes from themselves. Affects: torch's pipelines, for the rest of the process."""
    try:
        stage: Any = import_module("torch.distributed.pipelining.stage").PipelineStage
        kinds: Any = import_module("torch.distributed.pipelining._utils")
        stages = _Stages(kinds._StageForwardMeta, kinds._StageBackwardMeta, told)
        needs_dynamic = kinds.InferenceMode.needs_dynamic
        vote, answer, infer = (
            getattr(stage, name)
            for name in ("_warmup_forward_vote", "_warmup_backward_result", "_forward_metadata_inference")
        )
    except (ImportError, AttributeError):
        # Before torch 2.13 stages asked for less, and otherwise.
        return

    def forward_vote(self: Any, has_backward: bool, received_acc: Any = None) -> Any:
        stages.is_static = received_acc is None or stages.is_static
        stages.is_static = stages.is_static and not needs_dynamic(self._user_meta, has_backward)
        return vote(self, has_backward, received_acc)

    def backward_result(self: Any, received_result: Any = None) -> Any:
        answer(self, received_result)
        # The others, whose messages are empty, vote as the stages of this rank.
        return torch.tensor([int(stages.is_static)], dtype=torch.int32)

    def forward_inference(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = infer(self, *args, **kwargs)
        stages.made(self)
        return found

    stage._warmup_forward_vote, stage._warmup_backward_result = forward_vote, backward_result
    stage._forward_metadata_inference = forward_inference
    stage._recv_meta = lambda self, source: stages.received(self, source)


class _Stages:
    """What stages of this rank make, from which follows what they are told."""

    def __init__(self, forward: Any, backward: Any, told: Told) -> None:
        self._forward, self._backward = forward, backward
        self._told = told
        self.outputs: dict[int, Any] = {}
        """By the index of the stage."""
        self.is_static = True
        """Whether the program has told every stage of this rank its shapes."""

    def made(self, stage: Any) -> None:
        """Take note of what a stage sends, for its neighbours."""
        self.outputs[stage.stage_index] = stage._stage_meta.outputs
        self._told.tell(_kind_of(stage, stage.stage_index), stage._stage_meta.outputs)

    def received(self, stage: Any, source: int) -> Any:
        """Return what a stage is told by another, which is on another rank."""
        if source > stage.stage_index:
            sent = self.outputs[stage.stage_index]
            return self._backward(
                tuple(replace(one, requires_grad=False) if one.requires_grad else None for one in sent)
            )
        places = stage.stage_index_to_group_rank
        earlier = [index for index in range(stage.stage_index) if places[index] == stage.group_rank]
        if not earlier:
            found = self._told.next_of(_kind_of(stage, source), _before(stage), _NOT_TOLD)
            return self._forward(found)
        self._told.assumptions.value(_ALIKE)
        return self._forward(self.outputs[max(earlier)])


def _kind_of(stage: Any, sender: int) -> str:
    """Return what a message of one stage to the next is called."""
    return f"pipeline stage {sender} of {stage.num_stages} in {_ranks(stage)}"


def _before(stage: Any) -> list[int]:
    """Return the ranks of the stages before one, in their order."""
    every, places = _ranks(stage), stage.stage_index_to_group_rank
    return list(dict.fromkeys(every[places[index]] for index in range(stage.stage_index)))


def _ranks(stage: Any) -> list[int]:
    distributed: Any = torch.distributed
    return list(distributed.get_process_group_ranks(stage.group))
