"""Writes the pages that are made from code: docs/cli.md from each command's help, docs/trace-format.md from the schema,
docs/schemas/ from the result types, and what commands print in docs/categories/.

`python docs/generate.py` writes them, `--check` only says which are out of date (exit code 1). `make docs` runs it.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path

import click
from click.testing import CliRunner

from memtrace.cli import COMMANDS, group
from memtrace.cli.shell.errors import EXIT_CODES
from memtrace.schema import tables
from memtrace.schema.version import TRACE_VERSION

sys.path.insert(0, str(Path(__file__).parent))
from json_schemas import ANSWERS, answer_schema, report_schema, trend_schema

DOCS = Path(__file__).parent
WIDTH = 100
"""Columns of the help texts. Fixed, since click would ask the terminal."""
_OUTPUT = re.compile(r"(<!-- (memtrace [^\n]*) -->\n```text\n).*?```", re.DOTALL)
"""A command in a comment, and the block below it that holds what it prints."""
_PERSONAL = "Before you share it"


COMMANDS_IN_A_SENTENCE = """
Two commands do most of the work: `memtrace record -- python train.py` runs your training program and writes down where
its memory goes, and `memtrace report` shows it. The others look at the same file in other ways, or say what a run would
need before it runs.
""".strip()
EXIT_CODES_IN_A_SENTENCE = """
An error is two lines on standard error, `error: …` with what and where and `hint: …` with what to try. A reader of the
output that goes away (`| head`) changes no exit code, and files are written before anything is printed.
""".strip()
CONVENTIONS = """
Every command keeps to these; `tests/cli/test_conventions.py` walks them all.

- `--help` begins with a sentence and has an example. `-q` leaves out what is said beside the answer, `-v` says what was
  read and what it took, `--debug` shows the traceback of an error; all three stand before the command or after it.
- What is mistyped, a command, an option or a value, ends with 2, and with what was probably meant.
- A file that is not there ends with 1, and with what lies near it. Files are never overwritten without `--force`.
- `--json` prints one document and nothing else on standard output.
""".strip()
JSON_IN_A_SENTENCE = """
`--json` prints a document with its `format` and `version`, and nothing else. Within a version keys may be added; one
that changes its meaning, or goes, makes a new version. The table above links JSON Schemas, made from the result types,
with what each key means. What was not recorded is null; sizes are bytes, times ns.
""".strip()
COMPLETION = """
Shells complete commands and options after one line in their start-up file:

```sh
eval "$(_MEMTRACE_COMPLETE=bash_source memtrace)"    # ~/.bashrc
eval "$(_MEMTRACE_COMPLETE=zsh_source memtrace)"     # ~/.zshrc
_MEMTRACE_COMPLETE=fish_source memtrace | source     # ~/.config/fish/config.fish
```
""".strip()
TRACE_IN_A_SENTENCE = """
A *trace* is the file that `memtrace record` writes of a training run: every piece of memory that PyTorch handed out,
and what the program was doing meanwhile. `memtrace report` shows it to people; this page is for programs that read it
themselves.
""".strip()


def cli_reference() -> str:
    """Return docs/cli.md: the help of the group and of every command."""
    settings = {**group.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    root = click.Context(group, info_name="memtrace", **settings)
    sections = ["# Every command and option", generated_note("memtrace/cli"), COMMANDS_IN_A_SENTENCE]
    sections.append(help_block(group, root))
    for name in COMMANDS:
        command = group.get_command(root, name)
        assert command is not None
        context = click.Context(command, parent=root, info_name=name)
        sections += [f"## memtrace {name}", help_block(command, context)]
    sections += [
        "## Conventions",
        CONVENTIONS,
        conventions(root),
        "## Exit codes",
        EXIT_CODES_IN_A_SENTENCE,
        exit_codes(),
        "## JSON",
        JSON_IN_A_SENTENCE,
    ]
    sections += ["## Shell completion", COMPLETION]
    return "\n\n".join(sections) + "\n"


def exit_codes() -> str:
    """Return the table of exit codes."""
    rows = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(["| code | what it means |", "| --- | --- |", *rows])


def conventions(root: click.Context) -> str:
    """Return a row a command: what it reads, prints as JSON and writes, and which exit codes it has."""
    heads = ("command", "reads", "`--json`", "writes", "exit codes")
    return markdown_table(heads, (conventions_of(name, group.get_command(root, name)) for name in COMMANDS))


def conventions_of(name: str, command: click.Command | None) -> tuple[str, ...]:
    """Return the row of one command."""
    assert command is not None
    paths = [one for one in command.params if isinstance(one.type, click.Path)]
    read = [label(one) for one in paths if one.type.exists]  # type: ignore[attr-defined]
    written = [label(one) for one in paths if not one.type.exists]  # type: ignore[attr-defined]
    has_json = any("--json" in one.opts for one in command.params)
    codes = [*sorted({0, 1, 2, *COMMANDS[name].answers, 130}), *["the program's"] * COMMANDS[name].runs_program]
    return (
        f"[{name}](#memtrace-{name})",
        ", ".join(read) or "–",
        (schemas_of(name) or "yes") if has_json else "–",
        ", ".join(written) or "–",
        ", ".join(map(str, codes)),
    )


def label(one: click.Parameter) -> str:
    """Return what a path is called in help: an option by its longest form, an argument by its name."""
    if isinstance(one, click.Option):
        return f"`{max(one.opts, key=len)}`"
    return str(one.metavar or one.name).removesuffix("…").upper()


def schemas_of(name: str) -> str:
    """Return links to the schemas of what a command prints as JSON; empty where there is none."""
    found = [path.removeprefix("schemas/").removesuffix(".json") for path in PAGES if path.startswith("schemas/")]
    own = [one for one in found if one == name or one.startswith(f"{name}-")]
    return ", ".join(f"[{one}](schemas/{one}.json)" for one in own)


def with_outputs(path: Path) -> str:
    """Return a page in which every block of output below a command is what that command prints."""
    return _OUTPUT.sub(lambda match: f"{match[1]}{output_of(match[2])}```", path.read_text(encoding="utf-8"))


@cache
def output_of(command: str) -> str:
    """Return what a command prints, its paths being those of the checkout."""
    done = CliRunner().invoke(group, shlex.split(command)[1:], prog_name="memtrace")
    if done.exit_code:
        raise RuntimeError(f"{command}: {done.output}") from done.exception
    lines = [line.rstrip() for line in done.stdout.splitlines() if not line.startswith(_PERSONAL)]
    return "\n".join(lines) + "\n"


def help_block(command: click.Command, context: click.Context) -> str:
    """Return what `--help` prints, as a block of code."""
    return f"```text\n{command.get_help(context).strip()}\n```"


def trace_format() -> str:
    """Return docs/trace-format.md: headers and tables with their columns, units and meanings."""
    introduction = (tables.__doc__ or "").strip().splitlines()[1:]
    sections = [
        f"# The trace format, version {TRACE_VERSION}",
        generated_note("memtrace/schema/tables.py"),
        TRACE_IN_A_SENTENCE,
        "\n".join(introduction).strip(),
        "A reader refuses a newer version, upgrades an older one, and ignores and counts fields that it does not know.",
        "## Header",
        header_table(tables.TRACE_HEADER),
        "## Header of a rank",
        header_table(tables.RANK_HEADER),
    ]
    for table in tables.TABLES:
        sections += [f"## {table.name}", f"A row is {table.row}.", column_table(table)]
    return "\n\n".join(sections) + "\n"


def header_table(fields: Iterable[tables.Field]) -> str:
    """Return the fields of a header as a Markdown table."""
    return markdown_table(("field", "type", "meaning"), ((f"`{one.name}`", one.kind, one.meaning) for one in fields))


def column_table(table: tables.Table) -> str:
    """Return the columns of a table as a Markdown table."""
    rows = (
        (f"`{one.name}`", one.kind + (" or null" if one.nullable else ""), one.unit, one.meaning)
        for one in table.columns
    )
    return markdown_table(("column", "type", "unit", "meaning"), rows)


def markdown_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table; a bar in a cell is escaped."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def generated_note(source: str) -> str:
    """Return the line that keeps people from editing a generated page."""
    return f"<!-- Generated from {source} by `make docs`. Do not edit. -->"


CATEGORIES = sorted((DOCS.resolve() / "categories").glob("*.md"))
PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_reference,
    "trace-format.md": trace_format,
    "schemas/report.json": report_schema,
    "schemas/trend.json": trend_schema,
    **{f"categories/{path.name}": partial(with_outputs, path) for path in CATEGORIES},
    **{f"schemas/{name}.json": partial(answer_schema, name) for name in ANSWERS},
}
"""Every generated page and what makes it."""


def main() -> int:
    """Write the pages, or check them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a page is out of date")
    check = parser.parse_args().check
    stale = []
    # Commands of pages name files as one would type them in the checkout.
    os.chdir(DOCS.parent)
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{'out of date' if check else 'wrote'}: docs/{name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
