"""The runs of `memtrace fix`: predicted or real, judged by the budget, and kept until the search is over.

What was run stays in a folder beside the output, by command and changes, so that a search which broke off goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memtrace.forecast.fixing.search import Question, Run
    from memtrace.forecast.gpus import Gpu
    from memtrace.schema.changes import Changes
    from memtrace.schema.options import PredictOptions, SurveyOptions
    from memtrace.store.trace import Trace

_PRECISIONS = ("float16", "bfloat16", "float32")


class FixRuns:
    """Runs one program under changes; a run that was made before is read."""

    def __init__(
        self, question: Question, gpu: Gpu, *, folder: Path, num_steps: int, world_size: int, force: bool
    ) -> None:
        self._question = question
        self._gpu = gpu
        self._folder = folder
        self._num_steps = num_steps
        self._world_size = world_size
        if force:
            self.remove()
        folder.mkdir(exist_ok=True, parents=True)

    def watch(self, changes: Changes) -> Run:
        """Return a run of the program under changes that tells of its operators.

        Raises:
            RunFailed: it ends in an error.
        """
        return self.run(changes, operators=True)

    def run(self, changes: Changes, *, operators: bool = False) -> Run:
        """Return what the program under changes needs; with `operators`, each of them is watched, which takes time.

        Raises:
            RunFailed: it ends in an error.
        """
        from memtrace.forecast.fixing.search import Run
        from memtrace.forecast.fixing.survey import survey_of, without_compiled

        trace, surveys = self._kept(changes, operators=operators) or self._made(changes, operators=operators)
        if not self._question.is_predicted:
            return self._largest(trace, surveys)
        from memtrace.forecast.fixing.needs import predicted_needs
        from memtrace.forecast.prediction.judge import predicted_device, predicted_rank

        survey, rank = survey_of(surveys), predicted_rank(trace)
        if any(one.slug == "predicted-eager" for one in rank.warnings):
            survey = without_compiled(survey)
        device = predicted_device(rank)
        needs = predicted_needs(rank, device, self._question.target_bytes, survey.step_s)
        return Run(rank=rank, device=device, survey=survey, needs=needs)

    def _largest(self, trace: Trace, surveys: list[Any]) -> Run:
        """Return the rank that needs most: a run fits where it does. Losses are those of all ranks."""
        from memtrace.analysis.device.device_history import device_names
        from memtrace.errors import MemtraceError
        from memtrace.forecast.fixing.needs import recorded_needs
        from memtrace.forecast.fixing.search import Run
        from memtrace.forecast.fixing.survey import surveys_of

        found: list[Run] = []
        trained = surveys_of(surveys)
        for survey in trained:
            ranks = [one for one in trace.ranks if one.num_events and one.rank == survey.facts.get("rank")]
            if ranks:
                rank = max(ranks, key=lambda one: one.num_events)
                device = device_names(rank)[0]
                needs = recorded_needs(rank, device, self._question.target_bytes, survey.step_s)
                found.append(Run(rank=rank, device=device, survey=survey, needs=needs))
        if not found:
            raise MemtraceError("nothing was recorded of the run", slug="fix-nothing")
        largest = max(found, key=lambda one: one.needs.reserved_bytes)
        losses = tuple(losses for one in trained for losses in one.losses)
        return replace(largest, needs=replace(largest.needs, losses=losses))

    def remove(self) -> None:
        """Remove what was kept."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, changes: Changes, *, operators: bool) -> Path:
        facts = [
            self._question.command, self._question.micro_batch, self._question.accumulation,
            self._question.is_predicted, self._gpu.name, self._num_steps, self._world_size, changes.values(), operators,
        ]  # fmt: skip
        return self._folder / hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]

    def _kept(self, changes: Changes, *, operators: bool) -> tuple[Trace, list[Any]] | None:
        from memtrace.store.reading.read import read_trace

        folder = self._path(changes, operators=operators)
        if not (folder / "survey.json").is_file():
            return None
        return read_trace((folder / "trace.json",)), json.loads((folder / "survey.json").read_text(encoding="utf-8"))

    def _made(self, changes: Changes, *, operators: bool) -> tuple[Trace, list[Any]]:
        from memtrace.forecast.fixing.search import RunFailed
        from memtrace.launch.fixing import ChangedRunError, command_with, predict_changed, run_changed
        from memtrace.store.writing.trace import write_trace

        question = self._question
        command = command_with(question.command, changes, question.micro_batch, question.accumulation)
        log = self._folder / "log.txt"
        try:
            if self._question.is_predicted:
                trace, surveys = predict_changed(command, self._predict(), self._survey(), changes, log=log)
            else:
                trace, surveys = run_changed(command, self._survey(operators=operators), changes, log=log)
        except ChangedRunError as error:
            raise RunFailed(error.message, _at_fault(error.surveys)) from error
        folder = self._path(changes, operators=operators)
        folder.mkdir(exist_ok=True)
        write_trace(trace, folder / "trace.json")
        # Last of all: a folder with it is whole.
        (folder / "survey.json").write_text(json.dumps(surveys), encoding="utf-8")
        return trace, surveys

    def _predict(self) -> PredictOptions:
        from memtrace.schema.options import PredictOptions

        return PredictOptions(
            gpu_name=self._gpu.name,
            gpu_bytes=self._gpu.memory_bytes,
            capability=self._gpu.capability,
            num_steps=self._num_steps,
            world_size=self._world_size,
        )

    def _survey(self, *, operators: bool = False) -> SurveyOptions:
        from memtrace.schema.options import SurveyOptions

        if not self._question.is_predicted:
            return SurveyOptions(folder="", num_steps=self._num_steps, operators=operators)
        from memtrace.forecast.fixing.step_model import HOST_BYTES_S

        return SurveyOptions(
            folder="",
            flops=tuple((name, value) for name in _PRECISIONS if (value := self._gpu.flops_of(name)) is not None),
            memory_bytes_s=self._gpu.memory_bytes_s,
            host_bytes_s=HOST_BYTES_S,
        )


def _at_fault(surveys: list[Any]) -> dict[str, str]:
    """Return the modules that a failed run blames, or the one that was last computed again."""
    for document in surveys:
        if not isinstance(document, dict):
            continue
        if document.get("failed"):
            return {str(name): str(why) for name, why in document["failed"].items()}
        if document.get("last_again"):
            return {str(document["last_again"]): "the run fails while it is computed again"}
    return {}
