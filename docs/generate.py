"""Writes the pages that are made from code: docs/cli.md from each command's help, docs/trace-format.md from the schema,
docs/schemas/ from the result types.

`python docs/generate.py` writes them, `--check` only says which are out of date (exit code 1). `make docs` runs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from memtrace.cli import COMMANDS, group
from memtrace.cli.shell.errors import EXIT_CODES
from memtrace.schema import tables
from memtrace.schema.version import TRACE_VERSION

sys.path.insert(0, str(Path(__file__).parent))
from json_schemas import fix_schema, report_schema, trend_schema

DOCS = Path(__file__).parent
WIDTH = 100
"""Columns of the help texts. Fixed, since click would ask the terminal."""


COMMANDS_IN_A_SENTENCE = """
Two commands do most of the work: `memtrace record -- python train.py` runs your training program and writes down where
its memory goes, and `memtrace report` shows it. The others look at the same file in other ways, or say what a run would
need before it runs.
""".strip()
EXIT_CODES_IN_A_SENTENCE = """
An error is two lines on standard error, `error: …` with what and where and `hint: …` with what to try. A reader of the
output that goes away (`| head`) changes no exit code, and files are written before anything is printed.
""".strip()
JSON_IN_A_SENTENCE = """
`--json` prints a document with its `format` and `version`, and nothing else. Within a version keys may be added; one
that changes its meaning, or goes, makes a new version. [schemas/report.json](schemas/report.json),
[schemas/trend.json](schemas/trend.json) and [schemas/fix.json](schemas/fix.json) are JSON Schemas, made from the result
types, with what each key means. What was not recorded is null; sizes are bytes, times ns.
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
    sections += ["## Exit codes", EXIT_CODES_IN_A_SENTENCE, exit_codes(), "## JSON", JSON_IN_A_SENTENCE]
    sections += ["## Shell completion", COMPLETION]
    return "\n\n".join(sections) + "\n"


def exit_codes() -> str:
    """Return the table of exit codes."""
    rows = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(["| code | what it means |", "| --- | --- |", *rows])


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


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_reference,
    "trace-format.md": trace_format,
    "schemas/report.json": report_schema,
    "schemas/trend.json": trend_schema,
    "schemas/fix.json": fix_schema,
}
"""Every generated page and what makes it."""


def main() -> int:
    """Write the pages, or check them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a page is out of date")
    check = parser.parse_args().check
    stale = []
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
