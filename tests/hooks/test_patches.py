"""Wrapping and unwrapping of attributes."""

from __future__ import annotations

import math
import traceback
import warnings
from types import SimpleNamespace

import pytest

from memtrace.hooks.torch_side.patches import Patches


class Parent:
    """A class whose method is wrapped."""

    def double(self, number: int) -> int:
        """Return twice the number; negative numbers raise."""
        if number < 0:
            raise ValueError(number)
        return 2 * number

    def warn_and_fail(self) -> None:
        """Warn of the line that called, and fail."""
        warnings.warn("of the caller", stacklevel=2)
        raise ValueError


class Child(Parent):
    """Inherits the method."""


def test_callbacks_run_around_the_call_and_see_its_arguments() -> None:
    seen: list[object] = []
    patches = Patches()
    patches.around(
        Parent,
        "double",
        before=lambda *args: seen.append(("before", args[1:])),
        after=lambda *args: seen.append(("after", args[1:])),
    )
    try:
        assert Parent().double(4) == 8
        with pytest.raises(ValueError, match="-1"):
            Parent().double(-1)
    finally:
        patches.undo()
    assert seen == [("before", (4,)), ("after", (4,)), ("before", (-1,)), ("after", (-1,))]


def test_undo_restores_the_very_same_function() -> None:
    # A built-in function has no code that callbacks could be woven into.
    namespace = SimpleNamespace(function=math.sqrt)
    patches = Patches()
    patches.around(namespace, "function", before=None)
    patches.around(namespace, "function", before=None)
    assert namespace.function is not math.sqrt
    assert namespace.function(4) == 2
    patches.undo()
    assert namespace.function is math.sqrt


@pytest.mark.parametrize("is_wrapped", [True, False])
def test_who_took_the_function_before_is_followed_unless_it_calls_it_for_us(is_wrapped: bool) -> None:
    taken_before, seen = Parent.double, []
    patches = Patches()
    patches.around(Parent, "double", before=lambda *_: seen.append(1), is_wrapped=is_wrapped)
    try:
        assert taken_before(Parent(), 4) == Parent().double(4) == 8
        assert len(seen) == 1 + (not is_wrapped)
    finally:
        patches.undo()


def test_undo_removes_what_was_inherited_before() -> None:
    patches = Patches()
    patches.around(Child, "double")
    assert "double" in vars(Child)
    patches.undo()
    assert "double" not in vars(Child)


def test_what_the_user_replaced_since_is_left_alone() -> None:
    namespace = SimpleNamespace(function=lambda: 1)
    patches = Patches()
    patches.around(namespace, "function")
    namespace.function = lambda: 2
    patches.undo()
    assert namespace.function() == 2


def test_a_missing_attribute_is_skipped() -> None:
    namespace = SimpleNamespace()
    patches = Patches()
    patches.around(namespace, "absent")
    assert not hasattr(namespace, "absent")


def test_an_exception_and_a_warning_show_nothing_of_a_wrapper() -> None:
    def look() -> tuple[list[str], str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                Parent().warn_and_fail()
            except ValueError as error:
                names = [entry.name for entry in traceback.extract_tb(error.__traceback__)]
        return names, f"{caught[0].filename}:{caught[0].lineno}"

    bare = look()
    patches = Patches()
    patches.around(Parent, "warn_and_fail", before=lambda *args: None, after=lambda *args: None)
    try:
        assert look() == bare
    finally:
        patches.undo()
    assert bare[0] == ["look", "warn_and_fail"]
