"""The allocator settings under which a predicted run is put through the model, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

from memtrace.allocator.settings import Settings, order_of, print_settings, settings_of_snapshot
from memtrace.store.trace import LoadWarning, RankTrace


def settings_of(rank: RankTrace) -> Settings:
    """Return the settings that the program asked for, by its environment or by functions of torch.

    Which of equal blocks is taken follows the torch that ran: a GPU would run that one too.
    """
    facts, environment = (rank.header.get(name) or {} for name in ("allocator_settings", "environment"))
    torch_version = (rank.header.get("versions") or {}).get("torch")
    return replace(settings_of_snapshot(facts, environment), equal_sizes=order_of(torch_version))


def settings_notes(rank: RankTrace) -> tuple[LoadWarning, ...]:
    """Return what is to be said of the settings: that there are some, or that they are not modelled."""
    settings = settings_of(rank)
    text = print_settings(settings)
    if not text:
        return ()
    message = f"memory is reserved as the program's allocator settings say: {text}"
    if settings.backend != Settings().backend:
        message = f"the allocator {settings.backend} is not modelled: memory is reserved as by torch's own"
    return (LoadWarning(slug="predicted-settings", message=message),)
