"""The predictions of `memtrace bisect`: one for each commit that is asked about, kept so that a search can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memtrace.cli.shell.told import say
from memtrace.errors import MemtraceError

if TYPE_CHECKING:
    from memtrace.analysis.results.report import Report
    from memtrace.forecast.bisecting.results import Bisected, MeasuredCommit
    from memtrace.forecast.gpus import Gpu
    from memtrace.forecast.prediction.results import Engine
    from memtrace.launch.commits import Repository
    from memtrace.store.trace import Trace

FORMAT = "memtrace-bisect-state"
MAX_BYTES = 64 << 20


def bisected(good: str, bad: str, command: Sequence[str], options: dict[str, Any]) -> Bisected:
    """Return the answer for a range of commits.

    Raises:
        MemtraceError: the range is none, or its ends cannot be predicted, or do not differ.
    """
    from memtrace.analysis.asked.check import parse_budget
    from memtrace.cli.predicting.engine import chosen_engine
    from memtrace.forecast.gpus import gpu_named
    from memtrace.launch.commits import Repository, folder_for_worktrees

    # It says what figures there are, where this is none.
    parse_budget(f"{options['metric']}<=1KiB")
    gpu = gpu_named(options["gpu"])
    repository = Repository(Path.cwd())
    ends = repository.commit(good), repository.commit(bad)
    repository.between(*ends)
    engine = chosen_engine(options["engine"], command, gpu)
    with folder_for_worktrees() as folder:
        runs = Runs(repository, folder, command, engine, gpu, {**options, "good": ends[0], "bad": ends[1]})
        return _answer(runs, ends, options["threshold"])


def _answer(runs: Runs, ends: tuple[str, str], threshold: str | None) -> Bisected:
    from memtrace.analysis.asked.diff import compare
    from memtrace.forecast.bisecting.results import Bisected, Commit
    from memtrace.forecast.bisecting.search import bracket, changed_lines

    repository = runs.repository
    order = [ends[0], *repository.between(*ends)]
    limit = _threshold(runs, ends, threshold)
    low, high = bracket(order, limit, runs.measure)
    tree = runs.tree
    # What came with a merge: the same again, within what was merged.
    while high == low + 1 and (merged := repository.merged(order[high])) is not None:
        inner = [order[low], *repository.between(repository.merge_base(order[low], merged), merged)]
        if (runs.measure(merged).num_bytes or 0) <= limit:
            break
        order = inner
        low, high = bracket(order, limit, runs.measure)
    diff = compare(runs.report(order[low]), runs.report(order[high]))

    def inside(file: str) -> str | None:
        path = os.path.relpath(file, tree) if os.path.isabs(file) else file
        return None if path.startswith(os.pardir) else path

    named = [Commit(name=name, subject=repository.subject(name)) for name in order[low + 1 : high + 1]]
    return Bisected(
        metric=runs.metric,
        threshold_bytes=limit,
        engine=runs.engine.name,
        gpu=runs.gpu.name,
        good=runs.measure(order[low]),
        bad=runs.measure(order[high]),
        guilty=named[-1],
        suspects=tuple(named[:-1]),
        measured=tuple(runs.measured.values()),
        num_commits=len(repository.between(*ends)),
        diff=diff,
        lines=changed_lines(diff, repository.changes(order[low], order[high]), inside),
    )


def _threshold(runs: Runs, ends: tuple[str, str], asked: str | None) -> int:
    """Return the bytes above which a commit is bad, which must lie between those of the two ends."""
    from memtrace.units import format_bytes, parse_bytes

    sizes = []
    for name, what in zip(ends, ("GOOD", "BAD"), strict=True):
        measured = runs.measure(name)
        if measured.num_bytes is None:
            raise MemtraceError(
                f"{what} ({name[:12]}) cannot be predicted: {measured.problem}",
                hint="try another commit, or see what `memtrace predict` says of it",
                slug="bisect-range",
            )
        sizes.append(measured.num_bytes)
    good, bad = sizes
    if asked is None:
        limit = (good + bad) // 2
    elif asked.startswith("+") and asked.endswith("%"):
        try:
            limit = int(good * (1 + float(asked[1:-1]) / 100))
        except ValueError:
            raise click.UsageError(f"--threshold {asked}: not a share, as in +5%") from None
    else:
        limit = (good if asked.startswith("+") else 0) + parse_bytes(asked.removeprefix("+"))
    if not good <= limit < bad:
        raise MemtraceError(
            f"{runs.metric} is {format_bytes(good)} at GOOD and {format_bytes(bad)} at BAD: "
            f"no commit between raised it above {format_bytes(limit)}",
            hint="--metric compares another figure, --threshold says where bad begins; GOOD is the older commit",
            slug="bisect-range",
        )
    return limit


class Runs:
    """Predictions of one command at commits; each is made once, and what it said is written down."""

    def __init__(
        self,
        repository: Repository,
        folder: Path,
        command: Sequence[str],
        engine: Engine,
        gpu: Gpu,
        options: dict[str, Any],
    ) -> None:
        self.repository = repository
        self.engine = engine
        self.gpu = gpu
        self.metric: str = options["metric"]
        self._folder = folder
        self._command = command
        self._options = options
        self._reports: dict[str, Report] = {}
        self._state: Path = options["state"]
        self.measured: dict[str, MeasuredCommit] = self._read()
        """What is known, by commit."""

    @property
    def tree(self) -> Path:
        """Where every worktree lies."""
        return self._folder / "tree"

    def measure(self, commit: str) -> MeasuredCommit:
        """Return what a commit needs, by a prediction if that is not known."""
        from memtrace.forecast.bisecting.results import MeasuredCommit
        from memtrace.units import format_bytes

        if commit in self.measured:
            return self.measured[commit]
        say(f"memtrace: predicting {commit[:12]} {self.repository.subject(commit)[:60]}")
        try:
            size, problem = self._figure(self.report(commit)), None
        except MemtraceError as error:
            size, problem = None, error.message
        said = f"cannot be predicted: {problem}" if size is None else f"{self.metric} {format_bytes(size)}"
        say(f"memtrace:   {said}")
        self.measured[commit] = MeasuredCommit(commit=commit, num_bytes=size, problem=problem)
        self._write()
        return self.measured[commit]

    def _figure(self, report: Report) -> int:
        from memtrace.analysis.asked.check_figures import figure_of

        used = [one for one in report.ranks if one.device.startswith("cuda:")]
        rank = max(used, key=lambda one: one.peak.allocated_bytes or one.peak.requested_bytes or 0)
        return figure_of(self.metric, rank, report.ranks).num_bytes

    def report(self, commit: str) -> Report:
        """Return the report of a commit's prediction, which is made if this process has not made it."""
        from dataclasses import replace

        from memtrace.analysis.report import analyze

        if commit not in self._reports:
            self._reports[commit] = replace(analyze(self._predict(commit)), title=commit[:12])
        return self._reports[commit]

    def _predict(self, commit: str) -> Trace:
        from memtrace.cli.predicting.runs import PredictedRuns
        from memtrace.launch.commits import command_inside, python_path
        from memtrace.schema.redaction import Redaction

        options = self._options
        with (
            self.repository.worktree(commit, self._folder, options["links"]) as tree,
            (self._folder / "printed").open("wb") as printed,
        ):
            here = tree / self.repository.below
            if not here.is_dir():
                raise MemtraceError(f"there is no folder {self.repository.below} in {commit[:12]}")
            runs = PredictedRuns(
                command_inside(self._command, self.repository, tree),
                self._folder / "predicted.json",
                self.engine,
                num_steps=options["steps"],
                world_size=options["world_size"],
                gpus_per_node=None,
                redaction=Redaction.NOTHING,
                force=True,
                allow_writes=False,
                stdout=printed.fileno(),
                stderr=printed.fileno(),
                variables={"PYTHONPATH": python_path(tree, os.environ.get("PYTHONPATH"))},
                cwd=here,
            )
            return runs.predicted(self.gpu, without_end=True)[0]

    def _question(self) -> dict[str, Any]:
        """Return what must be the same for figures of the state file to hold."""
        kept = ("metric", "steps", "world_size", "good", "bad")
        question = {name: self._options[name] for name in kept}
        return {**question, "command": list(self._command), "gpu": self.gpu.name, "engine": self.engine.name}

    def _read(self) -> dict[str, MeasuredCommit]:
        from memtrace.forecast.bisecting.results import MeasuredCommit
        from memtrace.store.opening import read_small

        if self._options["force"] or not os.path.lexists(self._state):
            return {}
        hint = "finish it with its own command, choose another --state, or start over with --force"
        try:
            content = json.loads(read_small(self._state, max_bytes=MAX_BYTES).decode("utf-8"))
            is_ours = content["format"] == FORMAT
            measured = [MeasuredCommit(**one) for one in content["measured"]] if is_ours else []
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise MemtraceError(
                f"{self._state} is no state of a bisection: {type(error).__name__}", hint=hint
            ) from None
        if not is_ours or content.get("question") != self._question():
            raise MemtraceError(f"{self._state} is of another bisection", hint=hint)
        return {one.commit: one for one in measured}

    def _write(self) -> None:
        from memtrace.report.output import write_text

        measured = [asdict(one) for one in self.measured.values()]
        content = {"format": FORMAT, "version": 1, "question": self._question(), "measured": measured}
        write_text(json.dumps(content, indent=1) + "\n", self._state, force=True)
