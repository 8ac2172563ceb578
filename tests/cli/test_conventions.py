"""Every command keeps to the conventions of docs/cli.md: help, mistyped words, missing files, exit codes, -q and -v."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from memtrace.cli import COMMANDS, group
from memtrace.errors import MemtraceError

REQUIRED = {"export": ("--to", "csv"), "fix": ("--capacity", "1GiB")}
"""What a command must be given beside its files before it looks for them."""
PROGRAM = ("--", "python", "train.py")


def command_of(name: str) -> click.Command:
    found = group.get_command(click.Context(group), name)
    assert found is not None
    return found


def run(*args: str) -> Result:
    return CliRunner().invoke(group, list(args), prog_name="memtrace")


def read_paths() -> Iterator[tuple[str, str]]:
    """Yield every command with an argument or option that is a path to read, and what that is called."""
    for name in COMMANDS:
        for one in command_of(name).params:
            if isinstance(one.type, click.Path) and one.type.exists:
                yield name, one.opts[0]


READ_PATHS = list(read_paths())


def missing(name: str, opt: str, path: Path) -> list[str]:
    """Return a command line in which one path leads nowhere, and all others lead to a file or folder that is there."""
    words = [name, *REQUIRED.get(name, ())]
    arguments = []
    for one in command_of(name).params:
        is_meant = one.opts[0] == opt
        if not isinstance(one.type, click.Path) or not (one.type.exists and (is_meant or one.required)):
            continue
        there = path.parent if not one.type.file_okay else path.with_name("trace.json")
        value = str(path if is_meant else there)
        if isinstance(one, click.Argument):
            arguments.append(value)
        else:
            words += [one.opts[0], value]
    if name in ("fix", "bisect"):
        arguments += [*(["HEAD", "HEAD"] if name == "bisect" else []), *PROGRAM]
    return words + arguments


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_a_sentence_and_has_what_every_command_has(name: str) -> None:
    shown = run(name, "--help")
    assert shown.exit_code == 0
    first = shown.stdout.split("\n\n")[1].strip()
    assert first == COMMANDS[name].short_help
    for option in ("-q, --quiet", "-v, --verbose", "--debug", "-h, --help"):
        assert option in shown.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_wrong_usage_with_a_hint(name: str) -> None:
    result = run(name, "--qzxw")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: there is no option --qzxw\nhint: `memtrace {name} --help` says what it takes\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistyped_option_is_answered_with_what_was_meant(name: str) -> None:
    assert "--verbose" in run(name, "--verbos").stderr.splitlines()[1]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("mistake", ["swapped", "left out", "twice"])
def test_a_mistyped_command_is_answered_with_what_was_meant(name: str, mistake: str) -> None:
    typed = {"swapped": name[0] + name[2] + name[1] + name[3:], "left out": name[:-1], "twice": name + name[-1]}[
        mistake
    ]
    if typed == name:
        pytest.skip("two letters that are the same")
    result = run(typed)
    assert result.exit_code == 2
    assert re.search(rf"\b{name}\b", result.stderr.splitlines()[1])


@pytest.mark.parametrize(("name", "opt"), READ_PATHS)
def test_a_file_that_is_not_there_is_an_error_that_names_what_is(name: str, opt: str, tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text("{}", encoding="utf-8")
    path = tmp_path / "trace.jso"
    result = run(*missing(name, opt, path))
    error, hint = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (1, "")
    assert error == f"error: there is no file or folder {path}"
    assert hint == f"hint: did you mean {tmp_path / 'trace.json'}?"


@pytest.mark.parametrize(("name", "opt"), READ_PATHS)
@pytest.mark.parametrize("is_before", [True, False])
def test_debug_shows_where_an_error_comes_from(name: str, opt: str, tmp_path: Path, *, is_before: bool) -> None:
    (tmp_path / "trace.json").write_text("{}", encoding="utf-8")
    command, *words = missing(name, opt, tmp_path / "nothing")
    result = run(*(["--debug", command] if is_before else [command, "--debug"]), *words)
    assert isinstance(result.exception, MemtraceError)
    assert result.exc_info is not None
    assert result.exc_info[2] is not None


def test_of_a_folder_that_is_not_there_that_is_said() -> None:
    result = run("report", "no/such/folder/trace.json")
    assert result.stderr.splitlines()[1] == "hint: there is no folder no/such/folder either"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("words", [("-q", "{}", "-v"), ("-v", "{}", "-q"), ("{}", "-q", "-v"), ("-q", "-v", "{}")])
def test_quiet_and_verbose_together_are_refused_wherever_they_stand(name: str, words: tuple[str, ...]) -> None:
    result = run(*(one.format(name) for one in words))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: -q says less and -v says more: take one of them\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_exit_codes_of_answers_are_those_that_the_command_ends_with(name: str) -> None:
    """Constants of its module that are called EXIT_… are what it ends with, beside what every command does."""
    module = importlib.import_module(COMMANDS[name].target.partition(":")[0])
    constants = {
        node.value.value
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id.startswith("EXIT_")
        and isinstance(node.value, ast.Constant)
    }
    assert constants == set(COMMANDS[name].answers)


TRACE = str(Path(__file__).parents[1] / "gold/traces/gpt.json.gz")


@pytest.mark.parametrize("words", [("-q", "check"), ("check", "-q")])
def test_quiet_leaves_out_what_is_said_beside_the_answer(words: tuple[str, ...], tmp_path: Path) -> None:
    said = ["--budget", "peak=1GiB", "--force", "--markdown", str(tmp_path / "c.md"), TRACE]
    loud, quiet = run("check", *said), run(*words, *said)
    assert loud.stdout == quiet.stdout + f"Wrote {tmp_path / 'c.md'}\n"
    assert (quiet.stderr, quiet.exit_code) == ("", 0)


@pytest.mark.parametrize("words", [("-v", "check"), ("check", "-v")])
def test_verbose_says_what_was_read_and_set_on_standard_error(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.memtrace]\nbudgets = ["peak=1GiB"]\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    plain, verbose = run("check", "--json", TRACE), run(*words, "--json", TRACE)
    assert (plain.stdout, plain.stderr) == (verbose.stdout, "")
    lines = verbose.stderr.splitlines()
    assert all(line.startswith("memtrace: ") for line in lines)
    assert [line for line in lines if f"read {TRACE}, " in line]
    assert [line for line in lines if re.search(r"took \d+\.\d\d s", line)]
    assert ("[tool.memtrace]" in verbose.stderr) == (words[0] == "-v")
