"""In a notebook: `%load_ext memtrace`, then `%%memtrace` records a cell and shows its report; a trace shows itself.

The interactive page stands in a frame of its own: its scripts see nothing of the notebook, and need no network.
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
    from memtrace.store.trace import Trace

MAX_PAGE_CHARS = 24_000_000
"""Most characters of a page in a notebook, which holds it in its own file."""


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Page:
    """A report that a notebook draws."""

    content: str
    """The whole HTML page."""
    height: int
    """Pixels."""
    remark: str | None
    """What is left out, and how to see it."""

    def _repr_html_(self) -> str:
        # The frame may run scripts and save pictures; without same-origin it reaches nothing of the notebook.
        remark = "" if self.remark is None else f"<p>{html.escape(self.remark)}</p>"
        content = self.content.replace("&", "&amp;").replace('"', "&quot;")
        return (
            f'<iframe srcdoc="{content}" sandbox="allow-scripts allow-downloads" title="memtrace report" '
            f'style="width:100%;height:{self.height}px;border:1px solid #8888"></iframe>{remark}'
        )

    def __repr__(self) -> str:
        """Say what it is, where nothing draws HTML."""
        return f"<memtrace report, a page of {len(self.content) / 1e6:.1f} MB>"


def page_of(trace: Trace, *, height: int, capacity: str | None, with_source: bool) -> Page:
    """Return the page of a trace; without every allocation where those would make it too large.

    Raises:
        MemtraceError: it is too large nevertheless.
    """
    from memtrace.analysis.report import analyze
    from memtrace.report.page.report import render_html
    from memtrace.units import parse_bytes

    capacity_bytes = None if capacity is None else parse_bytes(capacity)
    report = analyze(trace, capacity_bytes=capacity_bytes, with_map=True)
    content, remark = render_html(report, with_source=with_source), None
    if len(content) > MAX_PAGE_CHARS:
        smaller = [dataclasses.replace(rank, allocation_map=None) for rank in report.ranks]
        content = render_html(dataclasses.replace(report, ranks=tuple(smaller)), with_source=with_source)
        remark = f"The map of every allocation is left out here; it is in the file of: {_as_file(trace)}"
    if len(content) > MAX_PAGE_CHARS:
        raise MemtraceError("the page is too large for a notebook", hint=f"write it to a file: {_as_file(trace)}")
    return Page(content, height, remark)


def _as_file(trace: Trace) -> str:
    return f"memtrace report {trace.path} --html report.html"


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
