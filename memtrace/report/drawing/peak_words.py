"""When and where a card's peak was, in words that terminal, Markdown, picture and page put together each in its way.

In: `Card`. Out: words, in order.
"""

from __future__ import annotations

from collections.abc import Callable

from memtrace.analysis.results.card import Card
from memtrace.schema.names import module_words


def _step_words(step: int) -> str:
    return "before training began" if step == 0 else f"step {step}"


def peak_words(card: Card, step_words: Callable[[int], str] = _step_words) -> list[str]:
    """Return step, phase and module of the peak, as far as each is known; `step_words` gives what a step is called."""
    step = None if card.step is None else step_words(card.step)
    module = card.module and module_words(card.module)
    return [one for one in (step, card.phase, module) if one]
