"""Which line puts things into a container: what it loads there is what it stores into, and not what it reads."""

from __future__ import annotations

import textwrap

import pytest

from memtrace.hooks.keepers.feeding import Named, feeding_line

FEEDS = (
    "losses[k] = loss",
    "losses[k + 1] += loss",
    "losses[k + 1] += loss.detach() * own.scale",
    "losses[k], other[k] = loss, 0",
    "losses[0][k] = loss",
    "losses[own.at] += other[k]",
    "losses[other[k]] = loss",
    "losses[other[k]] += loss",
    "losses.append(loss)",
    "losses += [loss]",
)
READS = (
    "other[k] = losses[k]",
    "other[k] += losses[k]",
    "other[k] = losses",
    "other[losses[k]] = loss",
    "other[losses[k]] += loss",
    "other[k][losses[k]] += 1",
    "own.count[losses['a']['b']] += 1",
    "other[k] = [losses[at] for at in other]",
    "total = [at for at in other if losses[at]]",
    "total = losses[k] + loss",
    "del losses[k]",
    "print(losses[k], other[k])",
)


def line_of(statement: str, named: Named) -> int | None:
    """Return the line that feeds what is named in a function of one statement."""
    source = f"def train(own, losses, other, k, loss):\n{textwrap.indent(statement, '    ')}\n"
    space: dict[str, object] = {}
    code = compile(source, "/home/somebody/train.py", "exec")
    exec(code, space)
    found = feeding_line([space["train"].__code__], named)  # type: ignore[attr-defined]
    return None if found is None else found.line


@pytest.mark.parametrize("statement", FEEDS)
def test_what_puts_something_into_a_list_feeds_it(statement: str) -> None:
    assert line_of(statement, Named("losses", None, True)) == 2
    assert line_of(statement.replace("losses", "own.losses"), Named("own", "losses", True)) == 2


@pytest.mark.parametrize("made", ["[]", "{}", "list()", "dict()", "None", "0"])
def test_the_line_that_empties_an_attribute_does_not_feed_it(made: str) -> None:
    assert line_of(f"own.losses = {made}", Named("own", "losses", True)) is None


@pytest.mark.parametrize("statement", READS)
def test_what_reads_from_a_list_does_not(statement: str) -> None:
    assert line_of(statement, Named("losses", None, True)) is None
    assert line_of(statement.replace("losses", "own.losses"), Named("own", "losses", True)) is None
