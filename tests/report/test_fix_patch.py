"""The patch of a program: `git apply` takes it, and what the program says afterwards is what was to be changed."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from memtrace.forecast.fixing.results import Place, Program
from memtrace.report.answers.fix_code import after_optimizer, before_optimizer
from memtrace.report.answers.fix_patch import Patch, patch_of
from memtrace.schema.changes import Changes

SCRIPT = """\
import torch
from optimizers import Adam

class Trainer:
    def __init__(self, model):
        self.model = model
        self.optimizer = Adam(
            model.parameters(),
            lr=0.1,
        )  # the usual

    def clear(self):
        self.optimizer.zero_grad(set_to_none=False)
"""
AT = Place(path="train.py", line=7, class_name="Adam", root="model")
CLEARED = Place(path="train.py", line=13)
PROGRAM = Program(optimizers=(AT,), fills=(CLEARED,))
ALL = Changes(
    recompute=("blocks.0",),
    optimizer="loop",
    set_to_none=True,
    no_cache=True,
    step_in_backward=True,
    allocator="expandable_segments:True",
)


def applied(folder: Path, patch: Patch, text: str, tool: list[str]) -> str:
    """Return the file after the patch."""
    (folder / "train.py").write_bytes(text.encode())
    subprocess.run(tool, cwd=folder, input=patch.text.encode(), check=True, capture_output=True)
    return (folder / "train.py").read_bytes().decode()


@pytest.mark.parametrize("tool", [["git", "apply", "-"], ["patch", "-p1"]])
@pytest.mark.parametrize("text", [SCRIPT, SCRIPT.rstrip("\n"), SCRIPT.replace("the usual", "das Übliche\x0c")])
def test_every_change_stands_where_it_belongs(tmp_path: Path, tool: list[str], text: str) -> None:
    patch = patch_of(ALL, PROGRAM, {"train.py": text})
    done = applied(tmp_path, patch, text, tool)
    compile(done, "train.py", "exec")
    assert "            lr=0.1, foreach=False,\n" in done
    assert "        model.config.use_cache = False\n" in done
    assert '        recompute_modules(model, {"blocks.0"})\n' in done
    assert "        step_in_backward(self.optimizer)\n" in done
    assert "zero_grad(set_to_none=True)" in done
    assert (
        done.index("recompute_modules(model") < done.index("self.optimizer = Adam(") < done.index("step_in_backward(")
    )
    # The environment is no line of a file.
    assert patch.left == Changes()


@pytest.mark.parametrize("has_statistics", [True, False])
def test_what_is_written_into_a_function_takes_no_name_of_it(has_statistics: bool) -> None:
    changes = replace(ALL, offload=("blocks.1",), chunk_loss=True)
    pieces = [
        *before_optimizer(changes, "model", has_statistics=has_statistics),
        *after_optimizer(changes, "optimizer"),
    ]
    bound = []
    for statement in ast.parse("\n".join(pieces)).body:
        # An import would make a name that the function uses before a local one.
        assert isinstance(statement, (ast.FunctionDef, ast.Expr, ast.Assign))
        if isinstance(statement, ast.FunctionDef):
            bound.append(statement.name)
        if isinstance(statement, ast.Assign):
            assert ast.unparse(statement) == "model.config.use_cache = False"
    assert bound == ["take_losses_by_parts", "recompute_modules", "offload_modules", "step_in_backward"]


def test_what_has_no_place_is_left_to_do_by_hand() -> None:
    returned = SCRIPT.replace("self.optimizer = Adam(", "return Adam(")
    program = replace(PROGRAM, optimizers=(replace(AT, root=None),))
    patch = patch_of(ALL, program, {"train.py": returned})
    assert patch.left == Changes(recompute=("blocks.0",), no_cache=True, step_in_backward=True)
    assert "foreach=False" in patch.text
    elsewhere = patch_of(ALL, program, {})
    assert elsewhere == Patch(text="", left=replace(ALL, allocator=None))


@pytest.mark.parametrize(
    ("call", "written"),
    [
        ("Adam()", "Adam(foreach=False)"),
        ("Adam(x, foreach=None)", "Adam(x, foreach=False)"),
        ("Adam(x, )", "Adam(x, foreach=False, )"),
        ("torch.optim.Adam((x))", "torch.optim.Adam((x), foreach=False)"),
        # What others may hold is not given twice.
        ("Adam(x, **options)", None),
        # Which of the two is meant is not known.
        ("Adam(x), Adam(y)", None),
    ],
)
def test_an_argument_is_added_or_changed(call: str, written: str | None) -> None:
    place = Place(path="a.py", line=1, class_name="Adam")
    patch = patch_of(Changes(optimizer="loop"), Program(optimizers=(place,)), {"a.py": f"o = {call}\n"})
    expected = "" if written is None else f"+o = {written}\n"
    assert [line for line in patch.text.splitlines(keepends=True) if line.startswith("+o")] == [expected][
        : bool(expected)
    ]


def test_statements_on_one_line_and_several_optimizers_are_left_alone() -> None:
    place = Place(path="a.py", line=1, class_name="Adam", root="m")
    changes = Changes(recompute=("x",), step_in_backward=True)
    for text in ("m = 1; o = Adam(m)\n", "if m: o = Adam(m)\n", "o = Adam(m); m = 2\n"):
        assert patch_of(changes, Program(optimizers=(place,)), {"a.py": text}).text == ""
    several = Program(optimizers=(place, place))
    assert patch_of(changes, several, {"a.py": "o = Adam(m)\n"}) == Patch(text="", left=changes)
