"""Settings of a project: defaults by command, before which what is typed goes; what is no setting is an error."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from memtrace.cli import COMMANDS, group
from memtrace.cli.shell.settings import KEYS, defaults
from tests.allocator.simulated import write_snapshot

MIB = 1 << 20


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two snapshots, in a folder of which commands run."""
    for name, size in (("main", 40), ("branch", 42)):
        write_snapshot(tmp_path / f"{name}.pickle", size * MIB)
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return tmp_path


def write(project: Path, text: str) -> None:
    (project / "pyproject.toml").write_text(f"[project]\nname = 'x'\n[tool.memtrace]\n{text}\n")


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(group, list(map(str, args)))


def test_a_baseline_stands_beside_the_file_and_decides_without_being_typed(project: Path) -> None:
    branch = project / "branch.pickle"
    assert run("check", branch).exit_code == 2
    write(project, 'baseline = "main.pickle"')
    assert run("check", branch).exit_code == 3
    write(project, 'baseline = "main.pickle"\ntolerance = "5%"')
    assert run("check", branch).exit_code == 0
    assert run("check", branch, "--tolerance", "1%").exit_code == 3


def test_budgets_capacity_and_redaction_are_defaults(project: Path) -> None:
    branch = project / "branch.pickle"
    write(project, 'budgets = ["peak=41MiB"]\ncapacity = "h100-80gb"\nredact = true')
    assert run("check", branch).exit_code == 3
    assert run("check", branch, "--budget", "peak=42MiB").exit_code == 0
    document = json.loads(run("report", branch, "--json").stdout)
    assert document["card"]["capacity_bytes"] > 79 * 1024**3
    assert json.loads(run("report", branch, "--json", "--capacity", "1GiB").stdout)["card"]["capacity_bytes"] == 1024**3
    assert "branch" not in run("report", branch).stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('capcity = "80GiB"', "has no 'capcity'"),
        ("capacity = 80", "capacity of [tool.memtrace] is not a text"),
        ('budgets = "peak=1GiB"', "budgets of [tool.memtrace] is not a list"),
        ('redact = "all"', "redact of [tool.memtrace] is not true"),
        ('capacity = "80"', "a size without a unit"),
    ],
)
def test_what_is_no_setting_is_an_error_that_says_what_is(project: Path, text: str, message: str) -> None:
    write(project, text)
    result = run("report", project / "branch.pickle")
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "hint: " in result.stderr


@pytest.mark.parametrize("text", ["", "[tool.memtrace", "[tool.other]\nx = 1", "\x00", "tool = 'memtrace'"])
def test_a_file_without_settings_changes_nothing(project: Path, text: str) -> None:
    (project / "pyproject.toml").write_text(text)
    assert defaults(Path.cwd()) == {}


def test_every_setting_is_an_option_of_its_commands(project: Path) -> None:
    root = click.Context(group, info_name="memtrace")
    for _, targets, _ in KEYS.values():
        for command, option in targets:
            assert option in {one.name for one in group.get_command(root, command).params}  # type: ignore[union-attr]
    write(project, "redact = true")
    for command in defaults(Path.cwd()):
        assert command in COMMANDS
        assert "redact" in {one.name for one in group.get_command(root, command).params}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["reprot", "x"], ["there is no command 'reprot'", "did you mean report"]),
        (["report", "main.pickle", "--capcity", "1GiB"], ["there is no option --capcity", "did you mean --capacity?"]),
        (["report", "main.pickle", "--capacity", "80"], ["a size without a unit", "as in 80GiB"]),
        (["report", "main.pickle", "--section", "stepz"], ["no report has a section 'stepz'", "did you mean steps?"]),
        (["plan"], ["--preset (or --config, --params), --gpus, --gpu, --gbs-tokens, --sequence"]),
        (["--nonsense"], ["there is no option --nonsense"]),
    ],
)
def test_wrong_usage_is_told_like_every_error_with_what_was_meant(
    project: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], told: list[str]
) -> None:
    monkeypatch.chdir(project)
    result = run(*args)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "\nhint: " in result.stderr
    assert all(one in result.stderr for one in told), result.stderr
