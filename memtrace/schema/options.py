"""Options of a recording, and the one environment variable in which they travel to the recorded process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from memtrace.schema.changes import Changes
from memtrace.schema.predicted import DRIVERLESS, META

OPTIONS_VARIABLE = "MEMTRACE_RECORD"
"""Environment variable that holds `RecordOptions` as JSON. Without it the bootstrap does nothing."""

DEFAULT_STEPS = "1-3,last2"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSelection:
    """Which steps are kept: ranges of step numbers, and the last few as a rolling window.

    >>> selection = StepSelection.parse("1-3,10,last2")
    >>> [step for step in range(12) if selection.keeps(step)], selection.last
    ([0, 1, 2, 3, 10], 2)
    """

    ranges: tuple[tuple[int, int | None], ...]
    """Inclusive ranges of steps; an end of None is open."""
    last: int
    """How many of the last steps are kept in a rolling window; 0 for none."""

    @classmethod
    def parse(cls, text: str) -> StepSelection:
        """Return the selection that `A`, `A-B`, `A-` and `lastN`, joined by commas, mean.

        Raises:
            ValueError: the text is not such a list.
        """
        ranges: list[tuple[int, int | None]] = []
        last = 0
        for part in (piece.strip() for piece in text.split(",")):
            if part.startswith("last") and part[4:].isdigit():
                last = int(part[4:])
                continue
            start, dash, end = part.partition("-")
            if not start.isdigit() or (end and not end.isdigit()):
                raise ValueError(f"not a list of steps: {text!r} (as in 1-3,last2)")
            first, final = int(start), (int(end) if end else None if dash else int(start))
            if final is not None and final < first:
                raise ValueError(f"steps run backwards: {part!r}")
            ranges.append((first, final))
        return cls(ranges=tuple(ranges), last=last)

    def keeps(self, step: int) -> bool:
        """Return whether this step is kept for good. Step 0, before training began, always is."""
        return step == 0 or any(first <= step and (end is None or step <= end) for first, end in self.ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """The GPU that is not there, and how long the program runs on it."""

    gpu_name: str
    """Name that the program is told."""
    gpu_bytes: int
    """Memory of the GPU."""
    capability: tuple[int, int]
    """Compute capability."""
    num_steps: int
    """Steps after which the program is ended; 0 lets it run."""
    scratch_dir: str | None = None
    """Folder that files opened for writing go to; None writes where the program says."""
    world_size: int = 1
    """Ranks that the program is told there are."""
    rank: int = 0
    """The one that it runs as."""
    told_dir: str | None = None
    """Folder of what ranks that ran before told others; None where none did."""
    engine: str = META
    """What stands for the GPU, see `memtrace.schema.predicted`."""
    gpus_per_node: int = 1
    """GPUs of its machine, all of which a rank sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyOptions:
    """What is written down of module calls beside a recording, for `memtrace fix`."""

    folder: str
    """Where every process writes a file."""
    num_steps: int = 0
    """Steps after which the program is ended; 0 lets it run."""
    flops: tuple[tuple[str, float], ...] = ()
    """Operations a second by dtype, of a GPU that is not there; empty where time is measured."""
    memory_bytes_s: float = 0.0
    """Bytes a second of its memory."""
    host_bytes_s: float = 0.0
    """Bytes a second between it and the host."""
    operators: bool = False
    """Whether each operator of a program that really runs is taken note of, which takes time of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """What to record and where the parts go."""

    parts_dir: str
    """Folder in which every recorded process writes its part."""
    steps: str = DEFAULT_STEPS
    """Steps to keep, as `StepSelection.parse` takes them."""
    stacks: str = "python"
    """Stacks of events: python, all (with C++ or operator frames), or none."""
    early_stacks: bool = False
    """Whether the CPU source records Python frames from the start, and not only from the first training forward."""
    max_entries: int = 1_000_000
    """Most events held in memory, a device."""
    profile: bool = False
    """Whether to run torch's profiler for kernels and operators in the chosen steps."""
    device: str = "auto"
    """Which allocator to record: auto, cpu, cuda, xpu."""
    redact: bool = False
    """Whether argv and paths are dropped."""
    launcher_pid: int | None = None
    """Process id of `memtrace record`."""
    package_dir: str = ""
    """Folder that holds the `memtrace` package, for a Python that does not have it installed."""
    watch_library: str | None = None
    """File of the compiled watch on torch's CPU allocator; without it torch's profiler records the CPU."""
    predict: PredictOptions | None = None
    """Present where the program runs on a GPU that is not there."""
    survey: SurveyOptions | None = None
    """Present where `memtrace fix` asks."""
    changes: Changes | None = None
    """Present where the program is changed from outside: it is then not the bare run."""
    applies_only: bool = False
    """Whether the changes are made and nothing is recorded."""

    @property
    def on_meta(self) -> PredictOptions | None:
        """The GPU of a prediction on meta tensors, `None` for a recording and for torch's own CUDA code."""
        return None if self.predict is None or self.predict.engine == DRIVERLESS else self.predict

    def to_json(self) -> str:
        """Return the options as JSON for `OPTIONS_VARIABLE`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RecordOptions:
        """Return the options that `to_json` wrote; unknown fields are dropped.

        Raises:
            ValueError: the text is not an object with a `parts_dir`.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or "parts_dir" not in values:
            raise ValueError("recording options without parts_dir")
        known = _known(cls, values)
        if isinstance(known.get("predict"), dict):
            predict = _known(PredictOptions, known["predict"])
            known["predict"] = PredictOptions(**{**predict, "capability": tuple(predict["capability"])})
        if isinstance(known.get("survey"), dict):
            survey = _known(SurveyOptions, known["survey"])
            known["survey"] = SurveyOptions(**{**survey, "flops": tuple(map(tuple, survey.get("flops", ())))})
        if isinstance(known.get("changes"), dict):
            known["changes"] = Changes.from_values(known["changes"])
        return cls(**known)


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
