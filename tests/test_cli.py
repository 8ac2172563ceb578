"""The command line's own behaviour: which commands there are, how errors look, and which exit codes they give."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner, Result

from memtrace.cli import COMMANDS, LazyGroup, group
from memtrace.errors import MemtraceError


def run_failing(error: BaseException, monkeypatch: pytest.MonkeyPatch, *options: str) -> Result:
    """Run a command that raises an error."""

    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: failing)
    return CliRunner().invoke(group, [*options, "failing"])


def test_help_lists_every_command_in_order() -> None:
    output = CliRunner().invoke(group, ["--help"]).stdout
    listed = [line.split()[0] for line in output.partition("Commands:\n")[2].splitlines()]
    assert listed == list(COMMANDS)


def test_an_error_is_what_happened_and_what_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_failing(MemtraceError("trace.json is empty", hint="record it again"), monkeypatch)
    assert result.stderr == "error: trace.json is empty\nhint: record it again\n"
    assert (result.stdout, result.exit_code) == ("", 1)


def test_an_error_without_a_hint_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_failing(MemtraceError("no"), monkeypatch).stderr == "error: no\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    error = MemtraceError("no")
    assert run_failing(error, monkeypatch, "--debug").exception is error


def test_an_unexpected_error_asks_for_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_failing(KeyError("address"), monkeypatch)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unexpected KeyError: 'address'\nhint: this is a bug in memtrace")


def test_ctrl_c_exits_as_a_shell_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_failing(KeyboardInterrupt(), monkeypatch).exit_code == 128 + signal.SIGINT


@pytest.mark.parametrize("args", [["nonsense"], ["doctor", "--nonsense"], ["--nonsense"]])
def test_wrong_usage_exits_with_2(args: list[str]) -> None:
    assert CliRunner().invoke(group, args).exit_code == 2


def test_terminal_escapes_in_a_message_are_not_sent_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_failing(MemtraceError("bad name \x1b[2J\x07", hint="rename\r it"), monkeypatch)
    assert not {"\x1b", "\x07", "\r"} & set(result.stderr)
    result = run_failing(MemtraceError("plain text,\tünïcode\nin lines"), monkeypatch)
    assert "plain text,\tünïcode\nin lines" in result.stderr


def test_a_closed_pipe_is_no_error_and_changes_no_exit_code() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "memtrace", "--help"]
    result = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write_end)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("command", [["-m", "memtrace"], ["-c", "from memtrace.cli import main; main()"]])
def test_version_is_that_of_the_package(command: list[str]) -> None:
    from memtrace import __version__

    result = subprocess.run([sys.executable, *command, "--version"], capture_output=True, text=True, timeout=60)
    assert result.stdout == f"memtrace {__version__}\n"
