"""`memtrace record`: run a program under the hooks, and end as it ends."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from memtrace.cli.shell.told import is_quiet
from memtrace.schema.options import DEFAULT_STEPS, RecordOptions, StepSelection

DEFAULT_MAX_ENTRIES: int = RecordOptions(parts_dir="").max_entries
_MAX_CARD_BYTES = 24 * 1024**2
"""A larger trace takes longer to analyse than one likes to wait for at the end of a run."""
_COMPRESSION = 8


def _check_steps(ctx: click.Context, param: click.Parameter, value: str) -> str:
    try:
        StepSelection.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from None
    return value


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Trace to write: .json or .json.gz; a folder with a file a rank for more than 8 ranks, or where several "
    "launchers (srun, mpirun) share it. Default: memtrace-SCRIPT.json.",
)
@click.option("--force", is_flag=True, help="Replace an output that exists, and parts of a recording that broke off.")
@click.option(
    "--steps",
    default=DEFAULT_STEPS,
    show_default=True,
    metavar="LIST",
    callback=_check_steps,
    help="Steps to keep: A, A-B, A- and lastN (a rolling window, written at the end or when memory runs out).",
)
@click.option(
    "--stacks",
    type=click.Choice(["python", "all", "none"]),
    default="python",
    show_default=True,
    help="Stacks to keep with each event; 'all' adds C++ frames, which takes much longer.",
)
@click.option(
    "--max-entries",
    type=click.IntRange(1000, 10**9),
    default=DEFAULT_MAX_ENTRIES,
    show_default=True,
    metavar="N",
    help="Most events held in memory, for each device.",
)
@click.option(
    "--profile/--no-profile",
    default=False,
    show_default=True,
    help="Also run torch's profiler in the kept steps, for kernels and operators.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Whose memory to record: auto (an accelerator if the program uses one, else the CPU), cpu, cuda or xpu.",
)
@click.option("--redact", is_flag=True, help="Leave out arguments, paths, host names and messages of errors.")
@click.argument("command", nargs=-1, required=True, metavar="-- CMD...", type=click.UNPROCESSED)
def record(
    output: Path | None,
    force: bool,
    steps: str,
    stacks: str,
    max_entries: int,
    profile: bool,
    device: str,
    redact: bool,
    command: tuple[str, ...],
) -> None:
    """Run a training program and record where its memory goes.

    CMD is what you would type without memtrace: python with a script or a module, torchrun, a console script, a shell
    script that starts Python. It needs no change, and its output and exit code are its own. When it has ended, a card
    on standard error says what happened, where the memory went and what would lower the peak; with -q
    it says only the name of the trace.

    \b
    Example:
      memtrace record -- python train.py
      memtrace record -o trace.json.gz --steps 1-5 -- torchrun --nproc-per-node 2 train.py
      srun memtrace record -o run -- python train.py
    """
    from memtrace.launch.session import Recording, record
    from memtrace.launch.signals import end_like

    options = RecordOptions(
        parts_dir="",
        steps=steps,
        stacks=stacks,
        max_entries=max_entries,
        profile=profile,
        device=device,
        redact=redact,
    )
    recording = Recording(command=command, path=output, force=force, options=options)
    end_like(record(recording, _say, show=None if is_quiet() else _show_card))


def _say(line: str) -> None:
    """Say a line on standard error; what to do next only where nobody asked for quiet."""
    if not (is_quiet() and line.startswith("Next: ")):
        click.echo(line, err=True)


def _show_card(path: Path) -> None:
    """Print the card of what was recorded to standard error, as standard output is the program's."""
    files = [one for one in path.iterdir() if one.is_file()] if path.is_dir() else [path]
    num_bytes = sum(one.stat().st_size * (_COMPRESSION if one.suffix == ".gz" else 1) for one in files)
    if num_bytes > _MAX_CARD_BYTES:
        return
    from memtrace.parallel.run import report_of
    from memtrace.report.terminal.card import print_card

    report = report_of((path,))
    if report.card is not None:
        print_card(report.card, file=sys.stderr, with_command=False)
