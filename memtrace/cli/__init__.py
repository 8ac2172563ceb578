"""The `memtrace` command: a table of commands, each loaded when it is asked for, and the one place that shows errors.

`memtrace --help` imports no command, so that it costs no pandas: names and short helps stand here.
Exit codes: 0, 1 for an error, 2 for wrong usage, 130 after Ctrl-C; `memtrace record` returns its program's own.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from memtrace import __version__
from memtrace.cli.shell.errors import ShownError, missing_file, shown
from memtrace.cli.shell.settings import defaults
from memtrace.cli.shell.streams import outlive_readers
from memtrace.cli.shell.told import explain, give_options, is_debugging, told_options
from memtrace.errors import MemtraceError

EXIT_INTERRUPTED = 130
"""What a shell reports for a program that Ctrl-C ended: 128 + SIGINT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyCommand:
    """Where a command lives, and the line that `memtrace --help` shows for it."""

    target: str
    """`module:attribute` of the click command."""
    short_help: str
    """The first sentence of the command's docstring; a test holds the two together."""
    answers: tuple[int, ...] = ()
    """Exit codes that it has beside those of every command: what an answer may be."""
    runs_program: bool = False
    """Whether it returns the exit code of the program that it runs."""


COMMANDS = {
    "record": LazyCommand(
        target="memtrace.cli.record:record",
        short_help="Run a training program and record where its memory goes.",
        runs_program=True,
    ),
    "report": LazyCommand(
        target="memtrace.cli.report:report", short_help="Report where the memory of a recorded run went.", answers=(3,)
    ),
    "whatif": LazyCommand(
        target="memtrace.cli.whatif:whatif",
        short_help="Replay a recording under other settings and capacities.",
    ),
    "diff": LazyCommand(
        target="memtrace.cli.comparing.diff:diff", short_help="Compare two traces by category, module, stack and step."
    ),
    "trend": LazyCommand(
        target="memtrace.cli.comparing.trend:trend", short_help="Show how the peak went over the runs in a folder."
    ),
    "check": LazyCommand(
        target="memtrace.cli.check:check",
        short_help="Check a run against budgets, or against an earlier run.",
        answers=(3,),
    ),
    "export": LazyCommand(
        target="memtrace.cli.export:export", short_help="Write a trace in the format of another tool."
    ),
    "estimate": LazyCommand(
        target="memtrace.cli.estimate:estimate",
        short_help="Estimate what a training run needs, before anything runs.",
        answers=(3, 4),
    ),
    "plan": LazyCommand(
        target="memtrace.cli.plan:plan",
        short_help="Search parallel layouts for those that fit, and rank them.",
        answers=(3,),
    ),
    "fit": LazyCommand(
        target="memtrace.cli.fit:fit",
        short_help="Find the largest micro-batch that fits, by running a command.",
        answers=(3,),
    ),
    "fix": LazyCommand(
        target="memtrace.cli.searching.fix:fix",
        short_help="Find the cheapest changes with which a run fits.",
        answers=(3,),
        runs_program=True,
    ),
    "predict": LazyCommand(
        target="memtrace.cli.predict:predict",
        short_help="Run a CUDA program without its GPU and say what it needs.",
        answers=(3,),
    ),
    "bisect": LazyCommand(
        target="memtrace.cli.searching.bisect:bisect",
        short_help="Find the commit that raised the memory of a run.",
    ),
    "inspect": LazyCommand(target="memtrace.cli.inspect:inspect", short_help="Show the raw records of a trace."),
    "merge": LazyCommand(
        target="memtrace.cli.merge:merge", short_help="Assemble the parts of a recording into a trace."
    ),
    "trigger": LazyCommand(
        target="memtrace.cli.trigger:trigger", short_help="Ask a running recording to keep its next steps."
    ),
    "live": LazyCommand(
        target="memtrace.cli.live:live",
        short_help="Watch a running recording: steps, phases and memory of every rank.",
    ),
    "mcp": LazyCommand(
        target="memtrace.cli.mcp:mcp",
        short_help="Answer the questions of coding agents about traces.",
    ),
    "doctor": LazyCommand(target="memtrace.cli.doctor:doctor", short_help="Show the environment, for a bug report."),
}
"""Every command, in the order in which help lists them."""


class LazyGroup(click.Group):
    """A click group whose commands are imported when they are invoked or when their own help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].target.partition(":")
        return give_options(getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write names and short helps from the table, where click would import every command for them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.short_help) for name, command in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options before the command."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _shown(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn what it raises into a message and an exit code unless `--debug` asks for tracebacks."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(EXIT_INTERRUPTED)
        except MemtraceError as error:
            if is_debugging(ctx):
                raise
            raise ShownError(error.message, error.hint, error.exit_code) from error
        except click.UsageError as error:
            missing = missing_file(error)
            if missing is not None and is_debugging(ctx):
                raise missing from error
            raise (_shown(error) if missing is None else ShownError(missing.message, missing.hint, 1)) from error
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:
            if is_debugging(ctx):
                raise
            hint = (
                "this is a bug in memtrace: run `memtrace --debug …` and report it with what `memtrace doctor` prints"
            )
            raise ShownError(f"unexpected {type(error).__name__}: {error}", hint, 1) from error


def _shown(error: click.UsageError) -> click.ClickException:
    # A command without arguments shows its help, which click does by an error.
    return error if type(error).__name__ == "NoArgsIsHelpError" else shown(error, tuple(COMMANDS))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="memtrace", message="%(prog)s %(version)s")
@told_options
@click.pass_context
def group(context: click.Context) -> None:
    """Record where the memory of a PyTorch training run goes, and explain it.

    What a project always asks for stands in `[tool.memtrace]` of its pyproject.toml: docs/settings.md.

    \b
    Example:
      memtrace record -o trace.json -- python train.py
      memtrace report trace.json --html report.html
    """
    settings = defaults(Path.cwd())
    if settings:
        explain(f"[tool.memtrace] of pyproject.toml sets {_named(settings)}")
    context.default_map = {**settings, **(context.default_map or {})}


def _named(settings: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(f"--{option.replace('_', '-')}" for each in settings.values() for option in each))


def main() -> None:
    """Run the command line and exit the process."""
    outlive_readers()
    group.main(prog_name="memtrace")
