"""Which passes are micro-batches: those whose gradients are added up for one optimizer step."""

from __future__ import annotations

import pytest

from memtrace.hooks.loop.accumulation import Accumulation


class Net:
    """A module, as far as its identity goes."""


_ONE, _OTHER = Net(), Net()
_NETS = {"G": _ONE, "D": _OTHER}


def counted(script: str) -> int:
    """Return the micro-batches of a step: G and D call a module, b is a backward, z drops gradients, o steps."""
    found = Accumulation()
    for letter in script.replace(" ", ""):
        if letter in _NETS:
            found.forward(_NETS[letter])
        elif letter == "b":
            found.backward()
        else:
            found.cut()
    return found.num_microbatches


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", 0),
        ("Gb o", 1),
        ("Gb Gb Gb Gb o", 4),
        # The passes of a GAN: real and made up for one, made up for the other.
        ("z Db GDb o z Db o", 1),
        ("z GDb GDb o z Db o", 2),
        # A closure, called again and again.
        ("zGb zGb zGb o", 1),
        # One forward, two backwards; a backward of something that no module made.
        ("Gbb o", 1),
        ("bb o", 1),
        # A penalty: the gradient of a gradient.
        ("Db Db o Gb o", 2),
    ],
)
def test_passes_that_begin_alike_count_from_one_cut_to_the_next(script: str, expected: int) -> None:
    assert counted(script) == expected


def test_what_may_be_the_next_step_is_counted_apart_until_that_is_known() -> None:
    found = Accumulation()
    for _ in range(3):
        found.forward(_ONE)
        found.backward()
    found.may_end_step()
    found.forward(_OTHER)
    found.backward()
    assert found.num_microbatches == 1
    found.goes_on()
    assert found.num_microbatches == 3
    found.start_step()
    assert found.num_microbatches == 0
