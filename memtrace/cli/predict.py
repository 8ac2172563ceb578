"""`memtrace predict`: run a CUDA program without its GPU, and say what it will need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from memtrace.cli.options.numbers import COUNT, FEW, RANK, GpuName
from memtrace.cli.options.redaction import redaction_options
from memtrace.cli.predicting.engine import AUTO, ENGINES
from memtrace.cli.shell.told import say
from memtrace.schema.redaction import Redaction

EXIT_DOES_NOT_FIT = 3
"""The prediction succeeded, and says that the program will run out of memory."""
DEFAULT_GPU = "h100-80gb"
STDERR = 2


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Trace to write. Default: predicted.json.")
@click.option("--force", is_flag=True, help="Replace an output that exists.")
@click.option(
    "--gpu",
    default=DEFAULT_GPU,
    show_default=True,
    type=GpuName(),
    help="GPU that the program is told it has, as in a100-80gb, or a size as in 24GiB.",
)
@click.option(
    "--gpus",
    type=GpuName(several=True),
    help='Also say which of these GPUs it fits on: "all" that are known, or a list. It runs once for each compute '
    "capability.",
)
@click.option(
    "--engine",
    "asked_engine",
    type=click.Choice(ENGINES),
    default=AUTO,
    show_default=True,
    help="driverless: torch's own CUDA code, where the program's Python has it; meta: tensors without data.",
)
@click.option("--steps", type=COUNT, default=3, show_default=True, help="Steps after which the program is ended.")
@click.option(
    "--world-size",
    type=FEW,
    default=1,
    show_default=True,
    help="Ranks that the program is told there are: it runs as one, alone. Leave torchrun out of the command.",
)
@click.option("--rank", type=RANK, help="The rank that it runs as, from 0. Default: 0.")
@click.option(
    "--ranks",
    metavar="all|LIST",
    help="Run as each of these ranks, one after the other, and say which is fullest. Each has a trace of its own: "
    "predicted.rank3.json.",
)
@click.option(
    "--gpus-per-node",
    type=FEW,
    help="GPUs of its machine, all of which a rank sees. Default: those of the usual machine, and no more than ranks.",
)
@click.option(
    "--allow-writes", is_flag=True, help="Let the program write files where it says, not to a scratch folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else on standard output.")
@redaction_options
@click.argument("command", nargs=-1, required=True, metavar="-- CMD...", type=click.UNPROCESSED)
@click.pass_context
def predict(
    context: click.Context,
    /,
    output: Path | None,
    gpu: str,
    gpus: str | None,
    asked_engine: str,
    as_json: bool,
    command: tuple[str, ...],
    redaction: Redaction,
    **options: Any,
) -> None:
    """Run a CUDA program without its GPU and say what it needs.

    The program runs unchanged, and no kernel runs: a loss that it prints is a constant, and it is ended after a few
    steps. Where its Python has torch built for CUDA, that code asks for the memory; else shapes and rules do. The
    result is a trace like that of a recording. Exit codes: 0 it fits, 3 it does not (none of --gpus, where they are
    given; one of --ranks), 1 it could not be predicted.

    \b
    Example:
      memtrace predict -- python train.py
      memtrace predict -o predicted.json --gpu a100-40gb -- python train.py --batch-size 16
      memtrace predict --gpus all --json -- python train.py
      memtrace predict --world-size 8 --ranks all -- python train.py
      memtrace report predicted.json
    """
    from tempfile import TemporaryDirectory

    from memtrace.cli.predicting.engine import chosen_engine
    from memtrace.cli.predicting.progress import progress_of
    from memtrace.cli.predicting.ranks import asked_ranks, path_of_rank, predict_ranks
    from memtrace.cli.predicting.runs import PredictedRuns, shown
    from memtrace.forecast.gpus import gpu_named, gpus_named
    from memtrace.forecast.prediction.judge import prediction_of
    from memtrace.forecast.prediction.results import fullest_of
    from memtrace.launch.output import check_free
    from memtrace.report.answers.predict import predict_json, predict_text

    chosen, asked = gpu_named(gpu), gpus_named(gpus or "")
    path, steps, world_size = output or Path("predicted.json"), options["steps"], options["world_size"]
    engine = chosen_engine(asked_engine, command, chosen)
    engine = replace(engine, why=shown(engine.why, redaction, command))
    numbers = asked_ranks(options["rank"], options["ranks"], world_size)
    places = [(one, path if options["ranks"] is None else path_of_rank(path, one)) for one in numbers]

    def runs_of(rank: int, path: Path) -> PredictedRuns:
        return PredictedRuns(
            command,
            path,
            engine,
            num_steps=steps,
            world_size=world_size,
            rank=rank,
            told_dir=Path(told),
            gpus_per_node=options["gpus_per_node"],
            redaction=redaction,
            force=options["force"],
            allow_writes=options["allow_writes"],
            # What the program prints must not be in the document.
            stdout=STDERR if as_json else None,
            progress=lambda: progress_of(steps, is_silent=as_json),
        )

    for _, one in places:
        check_free(one, force=options["force"])
    with TemporaryDirectory(prefix="memtrace-told-") as told:
        placed, verdict, ranks = predict_ranks(places, runs_of, chosen, redaction)
        fullest = fullest_of(ranks)
        others, refused = runs_of(fullest.rank, Path(fullest.trace_path)).judge(asked)
    result = prediction_of(
        placed, verdict, others, refused=refused, num_steps=steps, world_size=world_size, ranks=ranks, engine=engine
    )
    click.echo(predict_json(result) if as_json else predict_text(result), nl=False)
    written = " ".join(one.trace_path for one in ranks)
    say(f"Wrote {written}; next: memtrace report {written}", err=as_json)
    judged = any(one.fits for one in others) if asked else all(one.verdict.fits for one in ranks)
    context.exit(0 if judged else EXIT_DOES_NOT_FIT)
