"""Names of inputs that are no batch: what is given to a module without parameters, as a loss is."""

from __future__ import annotations

_START = "input of "


def input_of(class_name: str) -> str:
    """Return the name of what a module without parameters is given.

    >>> input_of("CrossEntropyLoss")
    'input of CrossEntropyLoss'
    """
    return f"{_START}{class_name}"


def is_given_to_a_model(name: str | None) -> bool:
    """Return whether an input with this name was given to a module that has parameters.

    >>> is_given_to_a_model("input_ids"), is_given_to_a_model(input_of("NLLLoss")), is_given_to_a_model(None)
    (True, False, True)
    """
    return name is None or not name.startswith(_START)
