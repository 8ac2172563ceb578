"""`memtrace fix`: what to change so that a run fits, verified by running it so."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memtrace.cli.options.numbers import COUNT, Number, Size
from memtrace.cli.shell.told import say

if TYPE_CHECKING:
    from memtrace.forecast.fixing.results import Fixed
    from memtrace.forecast.fixing.search import Question
    from memtrace.report.answers.fix_patch import Patch
    from memtrace.schema.changes import Changes

EXIT_NOTHING_FITS = 3
DEFAULT_GPU = "h100-80gb"
"""What a program is told of where only --capacity is given."""
_MOST_STEPS = 100
_TRACES = (".json", ".gz", ".pickle")


class TraceFirst(click.Command):
    """A command whose options may also stand after a trace, as they may not after the words of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse options and arguments, those of a trace in any order."""
        if args and Path(args[0]).suffix in _TRACES and os.path.isfile(args[0]):
            args = [*args[1:], args[0]]
        return super().parse_args(ctx, args)


@click.command(cls=TraceFirst, context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("--gpu", metavar="GPU", help="The GPU that the run must fit on: h100-80gb, a100-40gb …")
@click.option("--capacity", type=Size(), help="Memory that torch's allocator may take, as 24GiB.")
@click.option("--margin", type=Number(0, 0.5), default=0.02, show_default=True, help="Share to leave free.")
@click.option("--keep", metavar="WORDS", default="", help="What may not change: precision, batch, rounding, optimizer.")
@click.option("--run", "is_run", is_flag=True, help="Run each try for a few steps, on this machine's device.")
@click.option("--micro-batch", type=COUNT, help="What {mbs} in CMD stands for now; smaller ones may be tried.")
@click.option(
    "--accumulation", type=COUNT, help="What {accum} in CMD stands for now; it grows as micro-batches shrink."
)
@click.option("--world-size", type=COUNT, default=1, show_default=True, help="Ranks that a prediction is told of.")
@click.option("--steps", type=click.IntRange(3, _MOST_STEPS), default=3, show_default=True, help="Steps of each run.")
@click.option(
    "--apply",
    "plan",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run CMD with the changes of a plan file.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Plan file to write.  [default: memtrace-fix-SCRIPT.json]"
)
@click.option(
    "--runs",
    "cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that keeps the runs, for other budgets too.  [default: beside the plan, until the end]",
)
@click.option("--patch", type=click.Path(path_type=Path), help="File for the patch, as `git apply` takes it.")
@click.option("--html", type=click.Path(path_type=Path), metavar="PATH", help="Write one HTML file that opens offline.")
@click.option("--force", is_flag=True, help="Replace a plan that exists, and run again what was run before.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
@click.argument("command", nargs=-1, required=True, metavar="[TRACE | -- CMD...]", type=click.UNPROCESSED)
@click.pass_context
def fix(ctx: click.Context, /, command: tuple[str, ...], plan: Path | None, **options: Any) -> None:
    """Find the cheapest changes with which a run fits.

    The program is predicted, changed from outside, and predicted again: settings that cost nothing, a loss by parts,
    states that ranks share, a step in backward, modules whose activations are computed again (or all but what some
    operators give), states in 8 bits, precision, a smaller micro-batch. What is proposed was run so and held. With
    --run it really runs, for a few steps. Of a TRACE alone, what would help is said and not verified. Exit code 3:
    nothing fits.

    \b
    Example:
      memtrace fix --gpu a100-40gb -- python train.py --device cuda
      memtrace fix --capacity 24GiB --keep precision,batch -- python train.py
      memtrace fix --capacity 2GiB --run -- python train.py --device cpu
      memtrace fix --apply memtrace-fix-train.json -- python train.py
      memtrace fix --capacity 24GiB trace.json
    """
    if plan is not None:
        ctx.exit(_apply(plan, command, options["micro_batch"], options["accumulation"]))
    from memtrace.report.answers.fixing import fixed_json, fixed_text

    question = _question(command, options)
    is_trace = len(command) == 1 and Path(command[0]).suffix in _TRACES and os.path.isfile(command[0])
    found, output = _of_trace(question) if is_trace else _of_command(question, options)
    written = None if output is None else str(output)
    patch = _patched(found, options)
    if options["html"] is not None:
        from memtrace.report.output import write_text
        from memtrace.report.page.fixing import render_fixed

        write_text(render_fixed(found, patch, plan=written), options["html"], force=options["force"])
    click.echo(
        fixed_json(found, patch) if options["as_json"] else fixed_text(found, plan=written, patch=patch), nl=False
    )
    if found.best is None:
        ctx.exit(EXIT_NOTHING_FITS)


def _question(command: tuple[str, ...], options: dict[str, Any]) -> Question:
    from memtrace.forecast.fixing.search import KEPT, Question
    from memtrace.forecast.gpus import gpu_named
    from memtrace.forecast.prediction.judge import usable_bytes
    from memtrace.units import format_bytes

    capacity, gpu = options["capacity"], options["gpu"]
    if (capacity is None) == (gpu is None):
        raise click.UsageError("say what the run must fit in: --gpu with the name of one, or --capacity")
    keep = frozenset(word.strip() for word in options["keep"].split(",") if word.strip())
    if unknown := keep.difference(KEPT):
        raise click.UsageError(f"--keep: {sorted(unknown)[0]!r} is none of {', '.join(KEPT)}")
    has_place = any("{mbs}" in word for word in command)
    if has_place and options["micro_batch"] is None:
        raise click.UsageError("{mbs} stands for the micro-batch: say with --micro-batch how large it is now")
    accumulates = any("{accum}" in word for word in command)
    if accumulates and (not has_place or options["accumulation"] is None):
        raise click.UsageError("{accum} stands beside {mbs}: say with --accumulation how many are accumulated now")
    budget = capacity if gpu is None else usable_bytes(gpu_named(gpu))
    return Question(
        command=command,
        budget_bytes=budget,
        target_bytes=int(budget * (1 - options["margin"])),
        device=format_bytes(capacity) if gpu is None else gpu,
        keep=keep if has_place else keep | {"batch"},
        is_predicted=not options["is_run"],
        micro_batch=options["micro_batch"] if has_place else None,
        accumulation=options["accumulation"] if accumulates else None,
    )


def _of_command(question: Question, options: dict[str, Any]) -> tuple[Fixed, Path]:
    """Search, and write the plan."""
    import json

    from memtrace.cli.searching.fix_runs import FixRuns
    from memtrace.forecast.fixing.search import find_fix
    from memtrace.forecast.gpus import gpu_named
    from memtrace.launch.output import script_name
    from memtrace.report.output import check_output, write_bytes

    output = options["output"] or Path(f"memtrace-fix-{script_name(question.command)}.json")
    for path in (output, options["patch"], options["html"]):
        if path is not None:
            check_output(path, force=options["force"])
    runs = FixRuns(
        question,
        gpu_named(options["gpu"] or DEFAULT_GPU),
        folder=options["cache"] or output.with_name(f"{output.name}.runs"),
        num_steps=options["steps"],
        world_size=options["world_size"],
        force=options["force"] and options["cache"] is None,
    )
    watch = None if question.is_predicted else runs.watch
    found = find_fix(question, runs.run, lambda text: say(f"memtrace: {text}"), watch)
    if found.best is not None and not found.best.changes.is_nothing:
        document = {
            **found.best.changes.plan(),
            "command": list(question.command),
            "budget_bytes": question.budget_bytes,
        }
        write_bytes((json.dumps(document, indent=1) + "\n").encode(), output, force=True)
    if options["cache"] is None:
        runs.remove()
    return replace(found, notes=(*found.notes, *_limits(question, options))), output


def _limits(question: Question, options: dict[str, Any]) -> list[str]:
    """Return what the tries cannot have seen."""
    notes = [
        f"What ran are the first {options['steps']} steps: an evaluation that comes later, and what grows with every "
        "step, may need more (--steps)."
    ]
    if question.is_predicted and options["gpu"] is None:
        notes.append(f"What it runs as is a {DEFAULT_GPU}: name the one that you have (--gpu).")
    return notes


def _patched(found: Fixed, options: dict[str, Any]) -> Patch | None:
    """Return the patch, written where that is asked for."""
    from memtrace.cli.searching.fix_patch import patch_for
    from memtrace.report.output import write_bytes

    patch = patch_for(found)
    if options["patch"] is not None:
        if patch is None:
            click.echo("memtrace: no patch is written: there is no line that is known to change", err=True)
        else:
            write_bytes(patch.text.encode(), options["patch"], force=options["force"])
    return patch


def _of_trace(question: Question) -> tuple[Fixed, None]:
    from memtrace.forecast.fixing.from_trace import fix_of_trace
    from memtrace.store.reading.read import read_trace

    return fix_of_trace(read_trace((Path(question.command[0]),)), question), None


def _apply(plan: Path, command: tuple[str, ...], micro_batch: int | None, accumulation: int | None) -> int:
    """Run a program with the changes of a plan file; return its exit status as a shell would."""
    from memtrace.launch.fixing import command_with, run_applied

    changes = _plan(plan)
    words = command_with(command, changes, micro_batch, accumulation)
    for place, option in (("{mbs}", "--micro-batch"), ("{accum}", "--accumulation")):
        if any(place in word for word in words):
            raise click.UsageError(f"{place} stands for a number, and the plan says none: give {option}")
    status = run_applied(words, changes)
    return status if status >= 0 else 128 - status


def _plan(path: Path) -> Changes:
    import json

    from memtrace.errors import MemtraceError
    from memtrace.schema.changes import Changes
    from memtrace.store.opening import read_small

    hint = "it is written by memtrace fix --gpu … -- python train.py"
    try:
        return Changes.from_plan(json.loads(read_small(path, max_bytes=1 << 24).decode("utf-8")))
    except OSError as error:
        raise MemtraceError(f"{path} cannot be read: {error.strerror or error}", hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise MemtraceError(f"{path} is no plan: {str(error)[:200]}", hint=hint, slug="fix-plan") from None
