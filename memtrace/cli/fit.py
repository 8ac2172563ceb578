"""`memtrace fit`: the largest micro-batch of a training command that fits, by running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memtrace.cli.options.numbers import COUNT, GpuName, Size
from memtrace.cli.predicting.engine import AUTO, ENGINES
from memtrace.cli.shell.told import say

if TYPE_CHECKING:
    from memtrace.forecast.fitting.results import Measured
    from memtrace.forecast.fitting.search import Question
    from memtrace.forecast.gpus import Gpu
    from memtrace.forecast.prediction.results import Engine

EXIT_NOTHING_FITS = 3
PLACE = "{mbs}"
"""What stands in the command for the micro-batch."""
LEAST_STEPS = 3
"""The first step makes the optimizer's states; those after it have all of them. One of these could be an exception."""


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option(
    "--capacity", type=Size(), help="Memory that must do, as 24GiB or h100-80gb. Default: that of the device."
)
@click.option("--gpu", type=GpuName(), help="The memory of a GPU: h100-80gb, a100-40gb …")
@click.option(
    "--predict", "is_predicted", is_flag=True, help="Predict each run, without the GPU that --gpu or --capacity names."
)
@click.option("--engine", type=click.Choice(ENGINES), default=AUTO, show_default=True, help="With --predict: as there.")
@click.option("--min", "smallest", type=COUNT, default=1, show_default=True, help="Smallest to try.")
@click.option("--max", "largest", type=COUNT, help="Largest to try.")
@click.option("--multiple", type=COUNT, default=1, show_default=True, help="Try multiples of this only.")
@click.option(
    "--steps",
    type=click.IntRange(LEAST_STEPS, 10**9),
    default=LEAST_STEPS,
    show_default=True,
    help="Steps of each run; it is ended after them. More where batches differ in length.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Result to write, as JSON; until it is there, what was measured is kept beside it.  "
    "[default: memtrace-fit-SCRIPT.json]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
@click.option("--force", is_flag=True, help="Replace a result that exists, and start over where a search broke off.")
@click.argument("command", nargs=-1, required=True, metavar="-- CMD...", type=click.UNPROCESSED)
@click.pass_context
def fit(ctx: click.Context, /, command: tuple[str, ...], output: Path | None, as_json: bool, **options: Any) -> None:
    """Find the largest micro-batch that fits, by running a command.

    {mbs} in CMD stands for the micro-batch. Each run is recorded for three steps and ended; the memory that counts is
    the steady state's, since the first step lacks the optimizer's states. A run that runs out of memory does not fit.
    A search that broke off goes on when the same command is given again. Exit code 3: nothing fits. With --predict the
    command runs on a GPU that is not there, as under memtrace predict.

    \b
    Example:
      memtrace fit -- python train.py --batch-size {mbs}
      memtrace fit --gpu a100-40gb --multiple 8 -- python train.py --batch-size {mbs}
      memtrace fit --predict --gpu a100-40gb -- python train.py --batch-size {mbs}
      memtrace fit --capacity 4GiB --json -- python train.py --device cpu --batch-size={mbs}
    """
    from dataclasses import replace

    from memtrace.cli.fitting.predicted import engine_of, gpu_of, predict_run
    from memtrace.cli.fitting.recorded import measure_run
    from memtrace.cli.fitting.state import State
    from memtrace.errors import OutputError
    from memtrace.forecast.fitting.search import Question, find_fit
    from memtrace.launch.output import script_name
    from memtrace.report.answers.fit import fit_json, fit_text, run_line
    from memtrace.report.output import check_output, write_bytes

    if not any(PLACE in word for word in command):
        raise click.UsageError(f"the command has no {PLACE}, which stands for the micro-batch: --batch-size {PLACE}")
    question = Question(
        smallest=options["smallest"],
        largest=options["largest"],
        multiple=options["multiple"],
        capacity_bytes=_capacity(options["capacity"], options["gpu"]),
    )
    gpu = gpu_of(options["capacity"], options["gpu"]) if options["is_predicted"] else None
    engine = None if gpu is None else engine_of(options["engine"], command, gpu)
    output = output or Path(f"memtrace-fit-{script_name(command)}.json")
    check_output(output, force=options["force"])
    state = State.open(output, _search(command, question, options["steps"], gpu, engine), force=options["force"])
    for size, _ in state.runs:
        say(f"micro-batch {size}: measured before")

    def measured(size: int) -> Measured:
        words = [word.replace(PLACE, str(size)) for word in command]
        log = output.with_name(f"{output.name}.log")
        if gpu is None or engine is None:
            state.add(size, measure_run(words, size, options["steps"], log=log))
        else:
            state.add(size, predict_run(words, size, options["steps"], gpu, engine, log=log))
        return state.runs[-1][1]

    try:
        result = find_fit(question, measured, done=tuple(state.runs), on_run=lambda found: say(run_line(found)))
        if engine is not None:
            result = replace(result, source="predicted", engine=engine.name)
    except KeyboardInterrupt:
        click.echo(f"\n{len(state.runs)} runs are kept: the same command goes on after them.", err=True)
        raise
    except OSError as error:
        # The log of a run, and its trace, lie beside the output.
        message = f"nothing can be written beside {output}: {error.strerror or error}"
        raise OutputError(message, slug="output-unwritable") from None
    write_bytes(fit_json(result), output, force=options["force"])
    state.remove()
    click.echo(fit_json(result) if as_json else fit_text(result), nl=False)
    say(f"Wrote {output}", err=as_json)
    if result.micro_batch is None:
        ctx.exit(EXIT_NOTHING_FITS)


def _capacity(capacity: int | None, gpu: str | None) -> int | None:
    """Return the bytes that the options name; `None` for those of the device."""
    from memtrace.forecast.gpus import gpu_named

    if capacity is not None and gpu is not None:
        raise click.UsageError("--capacity and --gpu both say how much memory there is: give one")
    return capacity if gpu is None else gpu_named(gpu).memory_bytes


def _search(
    command: tuple[str, ...], question: Question, num_steps: int, gpu: Gpu | None, engine: Engine | None
) -> dict[str, Any]:
    """Return what must be the same for measurements to be of use again. Another capacity judges the same runs anew."""
    sizes = {"min": question.smallest, "max": question.largest, "multiple": question.multiple}
    # A program may do other things on another GPU; what was recorded does not hang on the one that was asked about.
    predicted = None if gpu is None else gpu.name
    by = {} if engine is None else {"engine": engine.name}
    return {"command": list(command), "steps": num_steps, "predict": predicted, **by, **sizes}
