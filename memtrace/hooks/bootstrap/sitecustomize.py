"""Starts a recording inside a program that knows nothing of it: Python runs this file at start-up.

`memtrace record` puts this folder first on PYTHONPATH and the options into MEMTRACE_RECORD. Every Python below it comes
through here, most of them without torch, so this file imports nothing that is not loaded yet: a watcher on
`sys.meta_path` waits until torch has been imported, and only then is the rest of memtrace loaded.
"""

import os
import sys

TYPE_CHECKING = False  # without importing typing, which costs more than all the rest
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_VARIABLE = "MEMTRACE_RECORD"  # memtrace.schema.options.OPTIONS_VARIABLE, which is not to be imported yet
_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = os.path.dirname(os.path.dirname(_HERE))


class Watcher:
    """A finder that calls memtrace once torch has been imported, and finds the package `memtrace` where this file is.

    The package may be missing in this environment, or be another version. Its folder is named to the import system
    alone: nothing else of the environment it stands in becomes visible.
    """

    is_memtrace_watcher = True

    def __init__(self) -> None:
        self.waits = True
        self._busy = False

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Find torch through the other finders and arrange the call after it; find memtrace itself."""
        if name == "memtrace":
            return None if _is_taken() else _package_spec()
        if name != "torch" or self._busy or not self.waits:
            return None
        self._busy = True
        try:
            spec = _find_elsewhere(self, name, path, target)
            if spec is not None and hasattr(spec.loader, "exec_module"):
                _call_after_exec(spec.loader, self.torch_is_there)
            return spec
        finally:
            self._busy = False

    def torch_is_there(self) -> None:
        """Load the rest of memtrace and start; a failure costs the recording, never the program."""
        if not self.waits:
            return
        self.waits = False
        if not hasattr(sys.modules.get("torch"), "_C"):
            return  # A module of the program's own that has the name of torch.
        try:
            if _is_taken():
                raise RuntimeError("the program has a module of its own that is named memtrace")
            if sys.version_info < (3, 10):  # noqa: UP036 (the program's Python, not memtrace's)
                raise RuntimeError("memtrace needs Python 3.10 or newer")
            from memtrace.hooks.watcher import start

            start(os.environ.get(_VARIABLE, ""))
        except Exception as error:
            _warn(error)


def _find_elsewhere(
    watcher: Watcher, name: str, path: "Sequence[str] | None", target: "ModuleType | None"
) -> "ModuleSpec | None":
    for finder in list(sys.meta_path):
        find_spec = None if finder is watcher else getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = None if find_spec is None else find_spec(name, path, target)
        if spec is not None:
            return spec
    return None


def _call_after_exec(loader: "Any", callback: "Callable[[], None]") -> None:
    """Make one loader object call back after it has run its module.

    The method is shadowed on the object for that one call, so that the loader keeps its identity and class, and
    `__loader__` and `__spec__.loader` of the module are what they would have been.
    """
    exec_module = loader.exec_module

    def call(module: "ModuleType") -> None:
        del loader.exec_module
        exec_module(module)
        callback()

    # An error while torch is imported is printed with this frame in it, unless the import system takes the frame for
    # its own: those it leaves out by file and function name.
    if hasattr(call.__code__, "replace"):
        call.__code__ = call.__code__.replace(
            co_filename="<frozen importlib._bootstrap>", co_name="_call_with_frames_removed"
        )
    loader.exec_module = call


def _is_taken() -> bool:
    """Whether a module of the program's own has the name of memtrace: theirs is imported then, and ours cannot be.

    A folder of that name without code is none, and what is installed of memtrace, of whatever version, is ours.
    """
    from _frozen_importlib_external import PathFinder

    spec = PathFinder.find_spec("memtrace", sys.path)
    if spec is None or not spec.has_location:
        return False
    folders = spec.submodule_search_locations or ()
    return not any(os.path.isfile(os.path.join(one, "hooks", "watcher.py")) for one in folders)


def _package_spec() -> "ModuleSpec | None":
    from _frozen_importlib_external import spec_from_file_location

    return spec_from_file_location(
        "memtrace", os.path.join(_PACKAGE, "__init__.py"), submodule_search_locations=[_PACKAGE]
    )


def _warn(error: Exception) -> None:
    try:
        text = " ".join(str(error).split())[:200]
        sys.stderr.write("memtrace: not recorded: %s: %s\n" % (type(error).__name__, text))  # noqa: UP031
    except Exception:
        pass  # A closed stderr is no reason to stop the program either.


def _watch() -> None:
    """Put the watcher in place, once a process, if there is something to record."""
    if not os.environ.get(_VARIABLE) or any(getattr(one, "is_memtrace_watcher", False) for one in sys.meta_path):
        return
    watcher = Watcher()
    sys.meta_path.insert(0, watcher)
    if "torch" in sys.modules:  # a .pth file imported it before us
        watcher.torch_is_there()


def _leave_path() -> None:
    """Take this folder off `sys.path`; the environment variable keeps it, for the processes that this one starts."""
    sys.path[:] = [entry for entry in sys.path if entry != _HERE]
    sys.path_importer_cache.pop(_HERE, None)


def _run_shadowed() -> None:
    """Run the `sitecustomize` that Python would have run without us, under its own name.

    Where there is none, the error says what Python expects in that case, and no module of that name is left behind.
    Its own errors pass as well: Python reports them as ever.
    """
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import PathFinder

    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None or spec.origin == __file__:
        raise ImportError("No module named 'sitecustomize'", name="sitecustomize")
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


try:
    _leave_path()
    _watch()
except Exception as failure:
    _warn(failure)
_run_shadowed()
