"""Every number of the command line has a range: whatever lies beyond it is wrong usage, found before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from memtrace.cli import COMMANDS, LazyGroup, group
from memtrace.cli.check import Percent
from memtrace.cli.options.numbers import CountText, Size

NUMBERS = (click.types.IntParamType, click.types.FloatParamType, Size, CountText, Percent)
HOSTILE = ("-1", "nan", "inf", "-inf", "9" * 400, "1e400", "", "0x10", "1;2")


def options() -> Iterator[tuple[str, click.Option]]:
    for name in COMMANDS:
        command = LazyGroup().get_command(click.Context(click.Group()), name)
        assert command is not None
        yield from ((name, one) for one in command.params if isinstance(one, click.Option))


NUMERIC = [(name, one) for name, one in options() if isinstance(one.type, NUMBERS)]


def ids(pair: tuple[str, click.Option]) -> str:
    return f"{pair[0]} {pair[1].opts[0]}"


def test_numbers_of_all_kinds_are_found() -> None:
    kinds = {type(one.type).__name__ for _, one in NUMERIC}
    assert {"IntRange", "Number", "Size", "CountText", "Percent"} <= kinds


@pytest.mark.parametrize("pair", NUMERIC, ids=ids)
def test_number_has_both_ends(pair: tuple[str, click.Option]) -> None:
    kind = pair[1].type
    if isinstance(kind, click.IntRange | click.FloatRange):
        assert kind.min is not None
        assert kind.max is not None
    else:
        assert isinstance(kind, Size | CountText | Percent)


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:5] for text in HOSTILE])
@pytest.mark.parametrize("pair", NUMERIC, ids=ids)
def test_hostile_number_is_wrong_usage(pair: tuple[str, click.Option], text: str) -> None:
    name, option = pair
    # Before the arguments, which these commands lack here: the option itself must be what is refused.
    result = CliRunner().invoke(group, [name, f"{option.opts[-1]}={text}"])
    assert result.exit_code == 2
    context = click.Context(click.Command(name))
    with pytest.raises(click.BadParameter):
        option.type.convert(text, option, context)


@pytest.mark.parametrize("args", [["estimate", "--params", "7B", "--dropout", "nan"], ["plan", "--compute-share", "0"]])
def test_share_lies_between_0_and_1(args: list[str]) -> None:
    result = CliRunner().invoke(group, args)
    assert (result.exit_code, "invalid value for" in result.stderr) == (2, True)


@pytest.mark.parametrize("text", ["0B", "0GiB", "0.0001B"])
def test_capacity_of_nothing_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.BadParameter, match="holds nothing"):
        Size().convert(text, None, None)


def test_largest_numbers_still_estimate() -> None:
    command = LazyGroup().get_command(click.Context(click.Group()), "estimate")
    assert command is not None
    given = ["--hidden", "--heads", "--vocabulary", "--micro-batch", "--sequence"]
    largest = {
        one.opts[0]: str(one.type.max)
        for one in command.params
        if isinstance(one.type, click.IntRange) and one.opts[0] in given
    }
    assert sorted(largest) == sorted(given)
    result = CliRunner().invoke(
        group, ["estimate", "--layers", "2", *(part for pair in largest.items() for part in pair)]
    )
    assert "unexpected" not in result.stderr
