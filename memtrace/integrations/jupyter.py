"""In a notebook: `%load_ext memtrace`, then `%%memtrace` records a cell and shows its report; a trace shows itself.

The interactive page itself is in `notebook_page`.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import html
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtrace.errors import MemtraceError

if TYPE_CHECKING:
    from memtrace.analysis.results.report import Report


def load_ipython_extension(shell: Any) -> None:
    """Add `%%memtrace` to a notebook: what `%load_ext memtrace` calls."""
    parser = _parser()

    def memtrace(line: str, cell: str) -> None:
        _record_cell(shell, parser.parse_argstring(line), cell)

    memtrace.__doc__ = f"Record a cell and show its report.\n\n{parser.format_help()}"
    shell.register_magic_function(memtrace, "cell", "memtrace")


def _parser() -> Any:
    from IPython.core.magic_arguments import MagicArgumentParser

    from memtrace.schema.options import DEFAULT_STEPS

    parser = MagicArgumentParser(prog="%%memtrace", add_help=False)
    parser.add_argument("name", nargs="?", help="variable that the trace is put into")
    parser.add_argument("-o", "--output", type=Path, help="trace to write; by default none is kept")
    parser.add_argument("--html", type=Path, help="write the interactive report to this file")
    parser.add_argument("--page", action="store_true", help="show the interactive report, and not the one in text")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.add_argument("--steps", default=DEFAULT_STEPS, help=f"steps to keep (default: {DEFAULT_STEPS})")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or xpu")
    parser.add_argument("--early-stacks", action="store_true", help="stacks on the CPU also before the first forward")
    return parser


def _record_cell(shell: Any, options: Any, cell: str) -> None:
    """Run a cell and show the report of it, also where the cell fails."""
    from memtrace import api

    with tempfile.TemporaryDirectory(prefix="memtrace-") as folder:
        with _short_errors():
            _check(options)
            api.start(
                options.output or Path(folder) / "trace.json",
                force=options.force,
                steps=options.steps,
                device=options.device,
                early_stacks=options.early_stacks,
            )
        try:
            _run(shell, cell)
        finally:
            with _short_errors():
                _show(shell, options, api.stop())


def _check(options: Any) -> None:
    """Raise what is wrong with options before the cell is run for nothing."""
    from memtrace.report.output import check_output

    if options.name is not None and not options.name.isidentifier():
        raise MemtraceError(f"not a name for a variable: {options.name!r}")
    if options.html is not None:
        check_output(options.html, force=options.force)


@contextlib.contextmanager
def _short_errors() -> Iterator[None]:
    """Show a mistake as IPython shows wrong usage: one line, no traceback."""
    from IPython.core.error import UsageError

    try:
        yield
    except MemtraceError as error:
        raise UsageError(error.message + (f" ({error.hint})" if error.hint else "")) from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _run(shell: Any, cell: str) -> None:
    """Run a cell as the notebook would, its last expression shown. Its errors are the notebook's to show."""
    source = shell.transform_cell(cell)
    name = shell.compile.cache(source)
    tree = shell.compile.ast_parse(source, filename=name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(shell.compile(tree, name, "exec"), shell.user_ns)
    if last is not None:
        value = eval(shell.compile(ast.Expression(last.value), name, "eval"), shell.user_ns)
        sys.displayhook(value)


def _show(shell: Any, options: Any, written: Path | None) -> None:
    from IPython.display import display

    from memtrace.analysis.report import analyze
    from memtrace.reading import ReadTrace
    from memtrace.report.output import write_html
    from memtrace.store.reading.read import read_trace

    if written is None:
        raise MemtraceError("this process is recorded already: the cell was run, and has no report of its own")
    trace = ReadTrace.of(read_trace(written))
    if options.output is None:
        trace = dataclasses.replace(trace, path="this cell")
    if options.name is not None:
        shell.user_ns[options.name] = trace
    if options.page:
        display(trace.show())
    else:
        display(_text_bundle(analyze(trace), is_kept=options.output is not None), raw=True)
    if options.html is not None:
        write_html(analyze(trace, with_map=True), options.html, force=options.force)
        print(f"Wrote {options.html}")


def _text_bundle(report: Report, *, is_kept: bool) -> dict[str, str]:
    """Return the report in text, for a notebook and for a terminal; commands only where they have a file to read."""
    from memtrace.report.terminal.report import render_text

    shown = report if is_kept else dataclasses.replace(report, next_commands=())
    text = render_text(shown)
    # As wide as its lines: a notebook would wrap them.
    return {"text/plain": text, "text/html": f'<pre style="white-space:pre">{html.escape(text)}</pre>'}
