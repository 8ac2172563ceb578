"""`memtrace predict`: run a CUDA program without its GPU, and say what it will need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from memtrace.forecast.predict import GpuVerdict

EXIT_DOES_NOT_FIT = 3
"""The prediction succeeded, and says that the program will run out of memory."""
DEFAULT_GPU = "h100-80gb"


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Trace to write. Default: predicted.json.")
@click.option("--force", is_flag=True, help="Replace an output that exists.")
@click.option(
    "--gpu",
    default=DEFAULT_GPU,
    show_default=True,
    metavar="NAME",
    help="GPU that the program is told it has, as in a100-80gb, or a size as in 24GiB.",
)
@click.option("--all-gpus", is_flag=True, help="Also say which of the known GPUs the run fits on.")
@click.option(
    "--steps", type=click.IntRange(min=1), default=3, show_default=True, help="Steps after which the program is ended."
)
@click.option(
    "--world-size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Ranks that the program is told there are: it runs as rank 0, alone. Leave torchrun out of the command.",
)
@click.option(
    "--allow-writes", is_flag=True, help="Let the program write files where it says, not to a scratch folder."
)
@click.argument("command", nargs=-1, required=True, metavar="-- CMD...", type=click.UNPROCESSED)
@click.pass_context
def predict(
    context: click.Context,
    output: Path | None,
    force: bool,
    gpu: str,
    all_gpus: bool,
    steps: int,
    world_size: int,
    allow_writes: bool,
    command: tuple[str, ...],
) -> None:
    """Run a CUDA program without its GPU and say what it needs.

    The program runs unchanged, on shapes alone: no kernel runs, a loss that it prints is a constant, and it is ended
    after a few steps. The result is a trace like that of a recording. Exit codes: 0 it fits, 3 it does not, 1 it could
    not be predicted.

    \b
    Example:
      memtrace predict -- python train.py
      memtrace predict -o predicted.json --gpu a100-40gb -- python train.py --batch-size 16
      memtrace report predicted.json
    """
    from memtrace.forecast.gpus import GPUS, gpu_named
    from memtrace.forecast.predict import capability_of, judge_all, placed_trace
    from memtrace.launch.prediction import predict as run_prediction
    from memtrace.schema.options import PredictOptions
    from memtrace.store.write import write_trace

    chosen = gpu_named(gpu)
    options = PredictOptions(
        gpu_name=chosen.name,
        gpu_bytes=chosen.memory_bytes,
        capability=capability_of(chosen),
        num_steps=steps,
        world_size=world_size,
    )
    path = output or Path("predicted.json")
    trace = run_prediction(command, path, options, force=force, allow_writes=allow_writes)
    placed, verdict = placed_trace(trace, chosen)
    write_trace(placed, path)
    click.echo(_sentence(verdict))
    for warning in placed.ranks[0].warnings:
        click.echo(f"note: {warning.message}")
    for one in judge_all(trace, GPUS.values()) if all_gpus else ():
        click.echo(_row(one))
    click.echo(f"Wrote {path}; next: memtrace report {path}")
    context.exit(0 if verdict.fits else EXIT_DOES_NOT_FIT)


def _sentence(verdict: GpuVerdict) -> str:
    """Return the verdict in words."""
    from memtrace.units import format_bytes

    needs = f"allocates {format_bytes(verdict.peak_allocated_bytes)} and reserves "
    needs += format_bytes(verdict.max_reserved_bytes)
    name, capacity = verdict.gpu.name, format_bytes(verdict.capacity_bytes)
    if verdict.failed is None:
        return f"Fits on {name}: it {needs} at most, of {capacity} beside the context."
    request = format_bytes(verdict.failed.size_bytes)
    return (
        f"Does not fit on {name}: in step {verdict.failed_step} a request of {request} fails, with "
        f"{format_bytes(verdict.failed.allocated_bytes)} allocated of {capacity} beside the context; "
        f"with memory without end it {needs}."
    )


def _row(verdict: GpuVerdict) -> str:
    """Return one GPU of the list."""
    from memtrace.units import format_bytes

    words = "fits" if verdict.fits else "too small"
    return f"  {verdict.gpu.name:<14} {format_bytes(verdict.capacity_bytes):>10}  {words}"
