"""Fixtures of the hooks' tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hooks.fake_torch import FakeTorch
from tests.hooks.followed import Followed, Program

Follow = Callable[..., Followed]


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Follow]:
    """A function that follows a fake torch from now on; none of memtrace's callbacks may fail or be left behind."""
    with ExitStack() as stack:

        def begin(fake: FakeTorch | None = None, *, steps: str = "1-") -> Followed:
            fake = fake or FakeTorch()
            for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
                monkeypatch.delitem(sys.modules, name)
            for name, module in fake.modules.items():
                monkeypatch.setitem(sys.modules, name, module)
            followed = Followed(fake, tmp_path, steps=steps)
            followed.attach()
            stack.callback(_end, followed)
            return followed

        yield begin


def _end(followed: Followed) -> None:
    followed.attachments.remove()
    followed.status.close()
    assert followed.fake.world.hooks == []
    assert "hook-failed" not in followed.warnings(), followed.written("warning")


@pytest.fixture
def followed(follow: Follow) -> Followed:
    """A fake torch that is followed from before the program began, in every step."""
    return follow()


@pytest.fixture
def fake(followed: Followed) -> FakeTorch:
    """That torch."""
    return followed.fake


@pytest.fixture
def program(followed: Followed) -> Program:
    """A program on that torch."""
    return Program(followed.fake)
