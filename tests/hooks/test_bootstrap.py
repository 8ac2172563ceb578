"""The injection: reaches every program below `memtrace record`, and no program can tell but by two variables.

Most tests use a copy of the package with a recorder that only says that it was called, and a small module named torch.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from memtrace.hooks.watcher import process_role
from memtrace.schema.options import OPTIONS_VARIABLE, RecordOptions

PACKAGE = Path(__file__).parent.parent.parent / "memtrace"

RECORDER = """
import sys
def install(options):
    print(f"recording to {options.parts_dir}, torch {sys.modules['torch'].answer}", flush=True)
"""


@dataclass
class World:
    """A package whose recorder only speaks, and a folder to run programs in."""

    package: Path
    folder: Path

    @property
    def bootstrap(self) -> Path:
        return self.package / "hooks" / "bootstrap"

    def environment(self, *, recorded: bool = True, path: str = "") -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", OPTIONS_VARIABLE)}
        if path:
            environ["PYTHONPATH"] = path
        if recorded:
            environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(self.bootstrap), path]))
            environ[OPTIONS_VARIABLE] = RecordOptions(parts_dir="PARTS").to_json()
        return environ

    def run(self, *args: str, recorded: bool = True, path: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *args],
            cwd=self.folder,
            env=self.environment(recorded=recorded, path=path) | more,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = tmp_path_factory.mktemp("site-packages") / "memtrace"
    for part in ("schema", "hooks"):
        shutil.copytree(PACKAGE / part, package / part)
    for file in ("__init__.py", "errors.py", "units.py"):
        shutil.copy(PACKAGE / file, package / file)
    (package / "hooks" / "recorder.py").write_text(RECORDER)
    (package.parent / "neighbour.py").write_text("")
    return package


@pytest.fixture
def world(package: Path, tmp_path: Path) -> World:
    (tmp_path / "torch.py").write_text("answer = 42\n_C = None\n")
    (package / "hooks" / "recorder.py").write_text(RECORDER)
    return World(package=package, folder=tmp_path)


CALLED = "recording to PARTS, torch 42\n"


def test_the_recorder_is_called_once_after_torch_was_imported(world: World) -> None:
    result = world.run(
        "-c", "print('before'); import torch; print('after'); import torch, importlib; importlib.reload(torch)"
    )
    assert (result.stdout, result.stderr) == (f"before\n{CALLED}after\n", "")


@pytest.mark.parametrize("how", [["-c", "import torch"], ["script.py"], ["-m", "script"], ["-s", "-u", "script.py"]])
def test_every_way_to_start_a_program(world: World, how: list[str]) -> None:
    (world.folder / "script.py").write_text("import torch\n")
    assert world.run(*how).stdout == CALLED


@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_ways_that_it_cannot_reach_are_left_alone(world: World, flag: str) -> None:
    program = f"import sys; sys.path.insert(0, {str(world.folder)!r}); import torch; print(torch.answer)"
    result = world.run(flag, "-c", program)
    assert (result.returncode, result.stdout, result.stderr) == (0, "42\n", "")


LOOK = """
import sys
import torch
print(type(torch.__loader__), torch.__spec__.loader is torch.__loader__, sorted(vars(torch.__loader__)))
print(torch.__spec__.origin, "sitecustomize" in sys.modules, sys.path, sys.argv, sys.flags)
print([path for path in sys.path_importer_cache if "bootstrap" in path or path.endswith("site-packages0")])
"""


def test_the_program_sees_nothing_of_it(world: World) -> None:
    (world.package / "hooks" / "recorder.py").write_text("def install(options): pass\n")
    (world.folder / "look.py").write_text(LOOK)
    bare, recorded = world.run("look.py", "-x", recorded=False), world.run("look.py", "-x")
    assert (recorded.stdout, recorded.stderr) == (bare.stdout, bare.stderr)


def test_nothing_but_memtrace_becomes_importable(world: World) -> None:
    program = "import torch\nimport memtrace; print(memtrace.__file__)\nimport neighbour"
    result = world.run("-c", program)
    assert result.stdout == f"{CALLED}{world.package / '__init__.py'}\n"
    assert "No module named 'neighbour'" in result.stderr


def test_a_module_of_the_program_that_is_named_torch_is_none(world: World) -> None:
    (world.folder / "torch.py").write_text("print('mine')")
    result = world.run("-c", "import torch; print(torch.__name__)")
    assert (result.stdout, result.stderr) == ("mine\ntorch\n", "")


@pytest.mark.parametrize("file", ["memtrace.py", "memtrace/__init__.py"])
def test_a_module_of_the_program_that_is_named_memtrace_is_theirs(world: World, file: str) -> None:
    (world.folder / file).parent.mkdir(exist_ok=True)
    (world.folder / file).write_text("print('mine')")
    result = world.run("-c", "import torch, memtrace")
    assert result.stdout == "mine\n"
    assert result.stderr.startswith("memtrace: not recorded: ")
    assert "named memtrace" in result.stderr


def test_a_folder_of_results_that_is_named_memtrace_is_no_module(world: World) -> None:
    (world.folder / "memtrace").mkdir()
    assert world.run("-c", "import torch").stdout == CALLED


def test_children_inherit_it_and_the_users_own_path_stays(world: World) -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import torch'])"
    assert world.run("-c", program).stdout == CALLED
    elsewhere = world.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.py").write_text("print('mine')")
    result = world.run("-c", "import mine, os; print(os.environ['PYTHONPATH'])", path=str(elsewhere))
    assert result.stdout == f"mine\n{world.bootstrap}{os.pathsep}{elsewhere}\n"


def test_without_the_variable_nothing_happens(world: World) -> None:
    result = world.run(
        "-c", "import torch, sys; print(len(sys.meta_path), sys.path[1:2])", path=str(world.bootstrap), recorded=False
    )
    assert CALLED not in result.stdout
    assert str(world.bootstrap) not in result.stdout


OWN = {
    "runs": "import sys; sys.stdout.write('own sitecustomize, %s\\n' % __name__)",
    "imports torch": "import torch, sys; sys.stdout.write('torch is %d\\n' % torch.answer)",
    "raises": "raise ValueError('in sitecustomize')",
    "misses a module": "import nowhere",
    "is not found": "raise ImportError('x', name='sitecustomize')",
}


@pytest.mark.parametrize("source", OWN.values(), ids=OWN)
def test_a_sitecustomize_that_was_there_runs_as_ever(world: World, source: str) -> None:
    (world.package / "hooks" / "recorder.py").write_text("def install(options): pass\n")
    own = world.folder / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text(f"{source}\nvalue = 7\n")
    (own / "torch.py").write_text("answer = 42\n_C = None\n")
    program = "import sys; m = sys.modules.get('sitecustomize'); print(m, getattr(m, 'value', None))"
    bare = world.run("-c", program, path=str(own), recorded=False)
    recorded = world.run("-c", program, path=str(own))
    assert (recorded.stdout, recorded.stderr, recorded.returncode) == (bare.stdout, bare.stderr, bare.returncode)


def test_it_can_still_be_imported_where_there_is_none(world: World) -> None:
    result = world.run("-c", "import sitecustomize")
    assert "ModuleNotFoundError: No module named 'sitecustomize'" in result.stderr


@pytest.mark.parametrize(
    "source", ["raise ValueError('broken torch')", "import nowhere", "1 +", "raise KeyboardInterrupt"]
)
def test_an_error_while_torch_is_imported_looks_as_ever(world: World, source: str) -> None:
    (world.folder / "torch.py").write_text(f"def f():\n    exec({source!r})\nf()\n")
    bare, recorded = world.run("-c", "import torch", recorded=False), world.run("-c", "import torch")
    assert (recorded.stderr, recorded.returncode) == (bare.stderr, bare.returncode)


def test_a_second_attempt_to_import_torch_is_seen(world: World) -> None:
    (world.folder / "torch.py").write_text(
        "import os\nif not os.path.exists('ready'):\n    raise ImportError\nanswer = 42\n_C = None\n"
    )
    program = "try:\n    import torch\nexcept ImportError:\n    open('ready', 'w').close()\nimport torch"
    assert world.run("-c", program).stdout == CALLED


def test_asking_for_the_spec_imports_nothing(world: World) -> None:
    program = "import importlib.util as u; print(u.find_spec('torch').name, u.find_spec('torch.nn') if 0 else '')"
    assert world.run("-c", program).stdout == "torch \n"


def test_no_torch_at_all(world: World) -> None:
    (world.folder / "torch.py").unlink()
    program = "import sys; sys.modules['torch'] = None\ntry:\n    import torch\nexcept ImportError as e:\n    print(e)"
    bare, recorded = world.run("-c", program, recorded=False), world.run("-c", program)
    assert (recorded.stdout, recorded.stderr) == (bare.stdout, bare.stderr)


@pytest.mark.parametrize("broken", ["def install(options): raise ValueError('two\\nlines')", "import nowhere", "1 +"])
def test_a_failure_of_ours_is_one_line_and_the_program_goes_on(world: World, broken: str) -> None:
    (world.package / "hooks" / "recorder.py").write_text(broken)
    result = world.run("-c", "import torch; print(torch.answer)")
    assert (result.stdout, result.returncode) == ("42\n", 0)
    assert result.stderr.startswith("memtrace: not recorded: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("value", ["{", "[]", "{}", '{"parts_dir": "P", "steps": '])
def test_bad_options_are_one_line_too(world: World, value: str) -> None:
    result = world.run("-c", "import torch; print(torch.answer)", **{OPTIONS_VARIABLE: value})
    assert (result.stdout, result.returncode, result.stderr.count("\n")) == ("42\n", 0, 1)


def test_unknown_options_of_another_version_are_dropped(world: World) -> None:
    result = world.run("-c", "import torch", **{OPTIONS_VARIABLE: '{"parts_dir": "PARTS", "newer": 1}'})
    assert (result.stdout, result.stderr) == (CALLED, "")


SPAWN = """
import multiprocessing, sys
import torch
def work(): print("worker", flush=True)
if __name__ == "__main__":
    child = multiprocessing.get_context(sys.argv[1]).Process(target=work)
    child.start()
    child.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_that_do_not_train_are_not_recorded(world: World, method: str) -> None:
    (world.folder / "spawn.py").write_text(SPAWN)
    result = world.run("spawn.py", method)
    assert (result.stdout, result.stderr) == (f"{CALLED}worker\n", "")


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("python train.py", "record"),
        ("python -u train.py -m torch.distributed.run", "record"),
        ("python -m pkg.train", "record"),
        ("python -X importtime -W error -um pkg", "record"),
        ("python", "record"),
        ("python -", "record"),
        ("python -c 'import torch'", "record"),
        ("python /usr/bin/torchrun train.py", "skip"),
        ("python -m torch.distributed.run train.py", "skip"),
        ("python -um torch.distributed.launch train.py", "skip"),
        ("python -mtorch.distributed.run train.py", "skip"),
        ("python /v/lib/python3.11/site-packages/torch/distributed/run.py train.py", "skip"),
        ("python -W ignore /v/bin/accelerate launch train.py", "skip"),
        ("python -m accelerate.commands.launch train.py", "skip"),
        ("python /v/site-packages/torch/_inductor/compile_worker/__main__.py --workers=2", "skip"),
        ("python -m torch._inductor.compile_worker", "skip"),
        ("python -m torch._inductor.autotune_process", "skip"),
        ("python -c 'from multiprocessing.resource_tracker import main;main(5)'", "skip"),
        ("python -c 'from multiprocessing.forkserver import main; main(5, 6, [])'", "worker"),
        (
            "python -c 'from multiprocessing.spawn import spawn_main; spawn_main()' --multiprocessing-fork",
            "worker",
        ),
    ],
)
def test_roles_of_processes(command: str, role: str) -> None:
    import shlex

    assert process_role(shlex.split(command)) == role


def test_start_up_stays_lean(world: World) -> None:
    """No module is imported that a bare start does not import; a time would be flaky here, see benchmarks."""
    program = "import sys; print('\\n'.join(sorted(sys.modules)))"
    bare = set(world.run("-c", program, recorded=False).stdout.split())
    assert set(world.run("-c", program).stdout.split()) - bare == set()
