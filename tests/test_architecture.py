"""The import table of ARCHITECTURE.md, enforced by reading the source.

The checker is itself tested, at the end, on source that breaks each rule.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

PACKAGE = Path(__file__).parent.parent / "memtrace"

EVERYWHERE = frozenset(
    {"memtrace.errors", "memtrace.paused_gc", "memtrace.printable", "memtrace.units", "memtrace.whole_files"}
)
RESULT_TYPES = frozenset(
    {
        "memtrace.allocator.results",
        "memtrace.analysis.results",
        "memtrace.forecast.results",
        "memtrace.forecast.bisecting.results",
        "memtrace.forecast.fitting.results",
        "memtrace.forecast.fixing.results",
        "memtrace.forecast.prediction.results",
        "memtrace.launch.live_results",
    }
)
TRACE = "store.trace store.columns"
"""The loaded trace and the columns of its tables: what of the store the parts that compute may know."""
DO_IO = frozenset({"io", "os", "pathlib", "shutil", "socket", "subprocess", "tempfile"})
START_PROCESSES = frozenset({"multiprocessing", "subprocess"})
TALK = frozenset({"print", "print to a file", "input"})


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one part of memtrace may import and call."""

    memtrace: frozenset[str] = frozenset()
    """Modules of memtrace, with all below them, beside its own and those for everyone."""
    outside: frozenset[str] = frozenset()
    """Packages that are not in the standard library."""
    not_stdlib: frozenset[str] = frozenset()
    """Modules of the standard library that it must not import."""
    not_calls: frozenset[str] = frozenset()
    """Built-in functions that it must not call."""
    lazily: bool = False
    """Whether it may import other parts of memtrace only inside functions."""


def part(memtrace: str = "", outside: str = "", **rules: object) -> Part:
    """Return a part from space-separated names; `store.trace` means `memtrace.store.trace`."""
    modules = frozenset(f"memtrace.{name}" for name in memtrace.split())
    return Part(memtrace=modules, outside=frozenset(outside.split()), **rules)  # type: ignore[arg-type]


PARTS = {
    "schema": part(not_stdlib=DO_IO, not_calls=TALK | {"open"}),
    # The one warning on standard error is allowed; nothing may go to standard output.
    "hooks": part("schema", "safetensors torch", not_calls=frozenset({"print", "input"})),
    "launch": part("schema store c_compiler", "orjson"),
    "store": part("schema", "orjson pandas numpy", not_calls=TALK),
    "allocator": part(f"schema {TRACE}", "numpy", not_calls=TALK | {"open"}),
    "analysis": part(f"schema {TRACE} allocator", "pandas numpy", not_calls=TALK | {"open"}),
    "forecast": part(
        f"schema {TRACE} allocator analysis",
        "numpy scipy",
        not_stdlib=START_PROCESSES,
        not_calls=TALK | {"open"},
    ),
    "report": Part(
        memtrace=frozenset({"memtrace.schema"}) | RESULT_TYPES,
        outside=frozenset({"orjson", "plotly", "rich"}),
        not_calls=TALK,
    ),
    # It builds libraries and starts a Python to find its torch; neither torch nor anything else is imported.
    "driverless": part("schema c_compiler", not_calls=frozenset({"print", "input"})),
    "parallel": part("schema store analysis", "distributed fsspec", not_calls=TALK | {"open"}),
    "cli": part(
        "schema launch store allocator analysis forecast report parallel driverless integrations.mcp.server",
        "click",
        lazily=True,
    ),
    "integrations": part(
        "api reading schema store allocator analysis forecast report",
        "IPython lightning mcp pydantic pytest transformers",
        lazily=True,
    ),
    "c_compiler.py": part(not_calls=TALK),
    "api.py": part("schema hooks launch", "torch", lazily=True),
    "reading.py": part("store analysis report integrations.notebook_page"),
    "errors.py": Part(),
    "units.py": Part(),
    "printable.py": Part(),
    "paused_gc.py": Part(),
    "whole_files.py": Part(),
    "__init__.py": Part(),
    "__main__.py": part("cli"),
}

ONLY_IN = {
    "safetensors": ("hooks/fake/files/safetensors.py",),
    "plotly": ("report/exchange/plotly_figure.py",),
    "rich": ("report/terminal/",),
    "distributed": ("parallel/dask_cluster.py",),
    "fsspec": ("parallel/remote.py",),
    "scipy": ("forecast/fixing/solve.py",),
}
"""Packages that only files which begin so may import."""

START_UP = ("hooks/__init__.py", "hooks/watcher.py", "hooks/bootstrap/sitecustomize.py")
"""What a recorded process loads before its program has imported torch, or without torch ever."""

MOST_MODULES = 20
"""Modules that one folder may hold, so that a newcomer reads its list like a table of contents."""

NOT_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc"})


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported module: its dotted name, its line, and whether it is put off (in a function, or for types only)."""

    module: str
    line: int
    deferred: bool


class Reader(ast.NodeVisitor):
    """Collects the imports and the calls of built-ins in one file."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.imports: list[Import] = []
        self.calls: list[tuple[str, int]] = []
        self.deferred = 0

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            above = self.package.split(".")[: len(self.package.split(".")) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        if base.split(".")[0] == "memtrace":
            # `from memtrace.store import trace` may name a module: the longer name decides.
            for alias in node.names:
                self.add(f"{base}.{alias.name}", node)
        else:
            self.add(base, node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name):
            says_where = node.func.id == "print" and any(keyword.arg == "file" for keyword in node.keywords)
            self.calls.append(("print to a file" if says_where else node.func.id, node.lineno))
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0] if node.args else None
        if name in {"import_module", "__import__"} and isinstance(first, ast.Constant):
            self.add(str(first.value), node)
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        for_types = isinstance(node.test, (ast.Name, ast.Attribute)) and "TYPE_CHECKING" in ast.unparse(node.test)
        self.deferred += for_types
        for child in node.body:
            self.visit(child)
        self.deferred -= for_types
        for child in node.orelse:
            self.visit(child)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for outside_the_body in [*node.decorator_list, node.args]:
            self.visit(outside_the_body)
        self.deferred += 1
        for child in node.body:
            self.visit(child)
        self.deferred -= 1

    visit_AsyncFunctionDef = visit_FunctionDef

    def add(self, module: str, node: ast.stmt | ast.expr) -> None:
        self.imports.append(Import(module=module, line=node.lineno, deferred=bool(self.deferred)))


def read(path: str, source: str) -> Reader:
    """Return what a file, named relative to the package, imports and calls."""
    folder = PurePosixPath("memtrace", path).parent
    reader = Reader(".".join(folder.parts))
    reader.visit(ast.parse(source))
    return reader


def within(module: str, allowed: str) -> bool:
    """Return whether a module, or a name in a module, is `allowed` or below it."""
    return module == allowed or module.startswith(allowed + ".")


def violations(path: str, source: str) -> list[str]:
    """Return every breach of the table in a file, named relative to the package."""
    name = PurePosixPath(path).parts[0]
    if name not in PARTS:
        return [f"{path}: {name} is not a part of the architecture"]
    rules, reader = PARTS[name], read(path, source)
    found = [(one.line, problem) for one in reader.imports for problem in import_problems(path, name, rules, one)]
    found += [(line, f"calls {call}()") for call, line in reader.calls if call in rules.not_calls]
    return [f"{path}:{line}: {name} {problem}" for line, problem in found]


def import_problems(path: str, name: str, rules: Part, one: Import) -> Iterator[str]:
    """Yield what is wrong with one import."""
    top = one.module.split(".")[0]
    if top == "memtrace":
        yield from memtrace_problems(name, rules, one)
    elif top in sys.stdlib_module_names:
        if top in rules.not_stdlib:
            yield f"imports {one.module}"
    elif top not in rules.outside:
        yield f"imports {one.module}"
    elif top in ONLY_IN and not path.startswith(ONLY_IN[top]):
        yield f"imports {top} outside {ONLY_IN[top][0]}"


def memtrace_problems(name: str, rules: Part, one: Import) -> Iterator[str]:
    """Yield what is wrong with one import from memtrace."""
    own = f"memtrace.{name}"
    if within(one.module, own) or one.module == "memtrace.__version__":
        return
    if any(within(one.module, allowed) for allowed in EVERYWHERE | ({"memtrace.schema"} & rules.memtrace)):
        return
    if not any(within(one.module, allowed) for allowed in rules.memtrace):
        yield f"imports {one.module}"
    elif rules.lazily and not one.deferred:
        yield f"imports {one.module} outside a function"


def module_level_imports(sources: dict[str, str], roots: tuple[str, ...]) -> list[tuple[str, Import]]:
    """Return the imports, each with its file, that loading the root files executes, through files of memtrace."""
    files = {module_name(path): path for path in sources}
    todo, seen, found = [root for root in roots if root in sources], set[str](), []
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        executed = [one for one in read(path, sources[path]).imports if not one.deferred]
        found += [(path, one) for one in executed]
        for one in executed:
            todo += [file for module, file in files.items() if within(one.module, module)]
    return found


def module_name(path: str) -> str:
    """Return the dotted name of a file.

    >>> module_name("store/trace.py"), module_name("store/__init__.py")
    ('memtrace.store.trace', 'memtrace.store')
    """
    parts = PurePosixPath("memtrace", path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def start_up_violations(sources: dict[str, str]) -> list[str]:
    """Return imports of torch, or of what is slow to load, that happen before the user's program imports torch."""
    return [
        f"{path}:{one.line}: imports {one.module} at start-up"
        for path, one in module_level_imports(sources, START_UP)
        # importlib.util takes a process start from 28 to 82 ms.
        if within(one.module, "torch") or within(one.module, "importlib.util")
    ]


def room(path: str) -> str:
    """Return the folder of a file, named relative to the package.

    >>> room("analysis/device/peak.py"), room("errors.py")
    ('analysis/device', '.')
    """
    return str(PurePosixPath(path).parent)


def files_imported(sources: dict[str, str]) -> dict[str, set[str]]:
    """Return for each file the others that it imports, whether at once, inside functions or for types only."""
    files = {module_name(path): path for path in sources}
    found: dict[str, set[str]] = {path: set() for path in sources}
    for path, source in sources.items():
        for one in read(path, source).imports:
            imported = files.get(one.module) or files.get(one.module.rpartition(".")[0])
            # A package by its own name is the folder that says what it is, not a file in it.
            if imported and not imported.endswith("__init__.py") and imported != path:
                found[path].add(imported)
    return found


def rooms_imported(sources: dict[str, str]) -> dict[str, set[str]]:
    """Return for each folder the others that its files import from."""
    found: dict[str, set[str]] = {room(path): set() for path in sources}
    for path, imported in files_imported(sources).items():
        found[room(path)] |= {room(one) for one in imported} - {room(path)}
    return found


def circles(imported: dict[str, set[str]]) -> list[str]:
    """Return what is in a circle or imports from one, by leaving out again and again what imports nothing left."""
    left = dict(imported)
    while free := [one for one, others in left.items() if not others & left.keys()]:
        for one in free:
            del left[one]
    return sorted(left)


def crowded(sources: dict[str, str]) -> list[str]:
    """Return the folders with more modules than a newcomer takes in."""
    held = Counter(room(path) for path in sources if not path.endswith("__init__.py"))
    return [f"{name}: {count} modules" for name, count in held.items() if count > MOST_MODULES]


SOURCES = {
    path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))
}


@pytest.mark.parametrize("path", SOURCES)
def test_file_imports_and_calls_only_what_its_part_may(path: str) -> None:
    assert violations(path, SOURCES[path]) == []


def test_start_up_of_a_recorded_process_imports_no_torch() -> None:
    assert start_up_violations(SOURCES) == []


def test_no_folder_imports_another_in_a_circle() -> None:
    # The top of the package is three things: words for all, the recording from inside a script, reading back.
    rooms = rooms_imported({path: source for path, source in SOURCES.items() if room(path) != "."})
    assert circles(rooms) == []


def test_no_file_imports_another_in_a_circle() -> None:
    assert circles(files_imported(SOURCES)) == []


def test_no_folder_is_a_corridor() -> None:
    assert crowded(SOURCES) == []


def test_every_folder_says_what_it_is() -> None:
    silent = [
        path
        for path, source in SOURCES.items()
        if path.endswith("__init__.py") and not ast.get_docstring(ast.parse(source))
    ]
    assert silent == []
    assert {room(path) for path in SOURCES} - {room(path) for path in SOURCES if path.endswith("__init__.py")} == {
        "hooks/bootstrap"  # it stands in front of PYTHONPATH: no package
    }


def test_no_file_is_named_after_nothing() -> None:
    root = PACKAGE.parent
    folders = ["memtrace", "tests", "samples", "benchmarks", "viewers", "docs"]
    named = [path for folder in folders for path in (root / folder).rglob("*") if path.stem in NOT_NAMES]
    assert named == []


@pytest.mark.parametrize(
    ("path", "source", "problem"),
    [
        ("schema/tables.py", "import pandas", "schema imports pandas"),
        ("schema/tables.py", "from pathlib import Path", "schema imports pathlib"),
        ("schema/tables.py", "def read():\n    return open('x')", "schema calls open()"),
        ("schema/tables.py", "from memtrace.store import trace", "schema imports memtrace.store.trace"),
        ("hooks/loop/steps.py", "import numpy", "hooks imports numpy"),
        ("hooks/loop/steps.py", "def f():\n    import orjson", "hooks imports orjson"),
        ("hooks/loop/steps.py", "print('hello')", "hooks calls print()"),
        (
            "hooks/loop/steps.py",
            "from memtrace.launch.gather import gather",
            "hooks imports memtrace.launch.gather.gather",
        ),
        ("launch/gather.py", "from memtrace.hooks.parts import spool", "launch imports memtrace.hooks.parts.spool"),
        ("launch/gather.py", "from ..hooks.parts import spool", "launch imports memtrace.hooks.parts.spool"),
        (
            "launch/gather.py",
            "import_module('memtrace.hooks.parts.spool')",
            "launch imports memtrace.hooks.parts.spool",
        ),
        ("launch/gather.py", "import pandas as pd", "launch imports pandas"),
        ("store/reading/read.py", "import torch", "store imports torch"),
        ("store/reading/read.py", "def f():\n    import torch", "store imports torch"),
        (
            "allocator/replay.py",
            "from memtrace.store.reading.read import read_trace",
            "imports memtrace.store.reading.read.read_trace",
        ),
        ("allocator/replay.py", "import pandas", "allocator imports pandas"),
        ("analysis/device/peak.py", "import plotly.express", "analysis imports plotly.express"),
        ("analysis/device/peak.py", "import click", "analysis imports click"),
        ("analysis/device/peak.py", "print(1)", "analysis calls print()"),
        ("analysis/device/peak.py", "print(1, file=sys.stderr)", "analysis calls print to a file()"),
        (
            "analysis/device/peak.py",
            "from memtrace.report.terminal import report",
            "analysis imports memtrace.report.terminal.report",
        ),
        ("forecast/estimation/estimate.py", "def f():\n    import torch", "forecast imports torch"),
        ("forecast/fitting/search.py", "import subprocess", "forecast imports subprocess"),
        ("report/page/report.py", "import plotly", "report imports plotly outside report/exchange/plotly_figure.py"),
        (
            "report/page/report.py",
            "from rich.table import Table",
            "report imports rich outside report/terminal/",
        ),
        (
            "report/terminal/report.py",
            "from memtrace.analysis.device.peak import find_peak",
            "imports memtrace.analysis.device.peak.find_peak",
        ),
        (
            "report/terminal/report.py",
            "from memtrace.store.trace import Trace",
            "report imports memtrace.store.trace.Trace",
        ),
        ("report/terminal/report.py", "import pandas", "report imports pandas"),
        ("parallel/sources.py", "import fsspec", "parallel imports fsspec outside parallel/remote.py"),
        ("parallel/run.py", "import distributed", "imports distributed outside parallel/dask_cluster.py"),
        (
            "parallel/run.py",
            "from memtrace.report.terminal.report import render_text",
            "parallel imports memtrace.report",
        ),
        ("analysis/report.py", "from memtrace.parallel.run import report_of", "analysis imports memtrace.parallel"),
        ("cli/report.py", "from memtrace.store.reading.read import read_trace", "outside a function"),
        ("cli/report.py", "def f():\n    from memtrace.hooks import api", "cli imports memtrace.hooks.api"),
        ("cli/report.py", "def f():\n    import rich", "cli imports rich"),
        ("integrations/pytest_plugin.py", "from memtrace.api import start", "outside a function"),
        ("integrations/pytest_plugin.py", "def f():\n    import torch", "integrations imports torch"),
        ("units.py", "import numpy", "units.py imports numpy"),
        ("__init__.py", "from memtrace.hooks import api", "__init__.py imports memtrace.hooks.api"),
        ("driverless/build.py", "import torch", "driverless imports torch"),
        (
            "driverless/environment.py",
            "from memtrace.forecast.gpus import GPUS",
            "driverless imports memtrace.forecast.gpus.GPUS",
        ),
        ("extras/more.py", "", "extras is not a part"),
    ],
)
def test_checker_refuses(path: str, source: str, problem: str) -> None:
    assert [found for found in violations(path, source) if problem in found], violations(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("hooks/loop/steps.py", "def f():\n    import torch"),
        ("hooks/loop/steps.py", "import sys\nprint('one warning', file=sys.stderr)"),
        ("hooks/loop/steps.py", "from memtrace.schema.names import Phase\nfrom .guard import guarded"),
        ("launch/gather.py", "import orjson\nfrom memtrace.store.trace import Trace\nprint('next')"),
        (
            "analysis/device/peak.py",
            "import numpy as np\nimport pandas as pd\nfrom memtrace.store.trace import RankTrace",
        ),
        ("report/terminal/report.py", "from rich.table import Table\nfrom memtrace.units import format_bytes"),
        ("cli/report.py", "import click\nfrom memtrace.errors import MemtraceError"),
        (
            "cli/report.py",
            "from memtrace.schema.names import Phase\ndef f():\n    from memtrace.store.reading.read import read",
        ),
        ("cli/doctor.py", "from memtrace import __version__"),
    ],
)
def test_checker_accepts(path: str, source: str) -> None:
    assert violations(path, source) == []


@pytest.mark.parametrize(
    "sources",
    [
        {"hooks/watcher.py": "import torch"},
        {"hooks/watcher.py": "if True:\n    import torch.nn"},
        {"hooks/watcher.py": "from memtrace.hooks.loop.steps import Steps", "hooks/loop/steps.py": "import torch"},
        {"hooks/bootstrap/sitecustomize.py": "import importlib.util"},
    ],
)
def test_checker_refuses_at_start_up(sources: dict[str, str]) -> None:
    assert len(start_up_violations(sources)) == 1


def test_checker_finds_a_circle_of_folders() -> None:
    there = {"analysis/time/stalls.py": "from memtrace.analysis.device.peak import find_peak"}
    back = {"analysis/device/peak.py": "def f():\n    from memtrace.analysis.time import stalls"}
    beside = {"units.py": "", "analysis/report.py": "from memtrace.analysis.time.stalls import find_stalls"}
    assert circles(rooms_imported(there | {"analysis/device/peak.py": ""} | beside)) == []
    assert circles(rooms_imported(there | back)) == ["analysis/device", "analysis/time"]


@pytest.mark.parametrize(
    "back",
    [
        "from memtrace.allocator.model import Allocator",
        "def f():\n    from memtrace.allocator import model",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from memtrace.allocator.model import Allocator",
        "def f():\n    import_module('memtrace.allocator.model')",
    ],
)
def test_checker_finds_a_circle_of_files(back: str) -> None:
    there = {"allocator/model.py": "from memtrace.allocator import release, sizes", "allocator/sizes.py": ""}
    package = {"allocator/__init__.py": "def f():\n    from memtrace.allocator import model"}
    assert circles(files_imported(there | package | {"allocator/release.py": "from memtrace import allocator"})) == []
    found = circles(files_imported(there | package | {"allocator/release.py": back}))
    assert {"allocator/model.py", "allocator/release.py"} <= set(found)
    assert "allocator/sizes.py" not in found


def test_checker_finds_a_corridor() -> None:
    full = {f"cli/command_{number}.py": "" for number in range(MOST_MODULES)} | {"cli/__init__.py": ""}
    assert crowded(full) == []
    assert crowded(full | {"cli/one_more.py": ""}) == [f"cli: {MOST_MODULES + 1} modules"]


def test_checker_accepts_torch_after_start_up() -> None:
    later = "def torch_is_there():\n    from memtrace.hooks import steps"
    for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
    assert start_up_violations({"hooks/watcher.py": for_types + later, "hooks/loop/steps.py": "import torch"}) == []


def silent_fields(source: str) -> list[str]:
    """Return the fields of classes without a line of meaning below them.

    >>> silent_fields('class A:\\n    x: int\\n    "Bytes."\\n    y: int')
    ['A.y']
    """
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return [
        f"{one.name}.{ast.unparse(field.target)}"
        for one in classes
        for field, after in zip(one.body, [*one.body[1:], None], strict=True)
        if isinstance(field, ast.AnnAssign)
        and not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant))
    ]


SPEAKING = [
    path
    for path in SOURCES
    if path.startswith("analysis/results/") or path.endswith("results.py") or path == "schema/tables.py"
]
"""Files whose classes others read: results, and the words of the trace."""


@pytest.mark.parametrize("path", SPEAKING)
def test_every_field_of_a_result_says_what_it_means(path: str) -> None:
    assert silent_fields(SOURCES[path]) == []


def test_checker_finds_a_silent_field() -> None:
    told = 'class A:\n    """A thing."""\n\n    x: int\n    """Bytes."""\n'
    assert silent_fields(told) == []
    assert silent_fields(told + "    y: int = 0\n    z: int\n") == ["A.y", "A.z"]
