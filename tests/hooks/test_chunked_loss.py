"""A loss by parts: torch's own, to the last bit, with fewer bytes."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from memtrace.hooks.changes.chunked_loss import LEAST_BYTES, PARTS  # noqa: E402
from memtrace.report.answers.fix_code import code_of  # noqa: E402
from memtrace.schema.changes import Changes  # noqa: E402
from tests.hooks.changed import changed, surveyed  # noqa: E402

BY_PARTS = Changes(chunk_loss=True)
ROWS, CLASSES = 37, 1000


def both(logits: Any, target: Any, **options: Any) -> tuple[list[Any], list[Any]]:
    """Return loss and gradient of torch's own loss, and of the loss by parts."""

    def found() -> list[Any]:
        given = logits.detach().clone().requires_grad_()
        loss = nn.functional.cross_entropy(given, target, **options)
        loss.sum().mul(3).backward()
        return [loss.detach(), given.grad]

    plain = found()
    with changed(torch, BY_PARTS) as warned:
        by_parts = found()
    assert warned == []
    return plain, by_parts


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [-100, 0, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradient_are_torchs(reduction: str, ignored: int, dtype: Any) -> None:
    torch.manual_seed(0)
    logits = torch.randn(ROWS, CLASSES).to(dtype)
    target = torch.randint(CLASSES, (ROWS,))
    target[::3] = ignored
    plain, by_parts = both(logits, target, reduction=reduction, ignore_index=ignored)
    assert all(torch.equal(one, other) for one, other in zip(plain, by_parts, strict=True))


def test_classes_may_be_those_of_pixels() -> None:
    plain, by_parts = both(torch.randn(4, 20, 16, 17), torch.randint(20, (4, 16, 17)))
    assert all(torch.equal(one, other) for one, other in zip(plain, by_parts, strict=True))


def test_under_autocast_it_is_computed_in_the_same_precision() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, by_parts = both(torch.randn(ROWS, CLASSES).bfloat16(), torch.randint(CLASSES, (ROWS,)))
    assert plain[0].dtype == by_parts[0].dtype
    assert all(torch.equal(one, other) for one, other in zip(plain, by_parts, strict=True))


@pytest.mark.parametrize(
    "options", [{"label_smoothing": 0.1}, {"weight": torch.ones(CLASSES)}, {"reduce": False}], ids=str
)
@pytest.mark.filterwarnings("ignore:size_average")
def test_other_losses_are_left_as_they_are(options: dict[str, Any]) -> None:
    plain, by_parts = both(torch.randn(ROWS, CLASSES), torch.randint(CLASSES, (ROWS,)), **options)
    assert all(torch.equal(one, other) for one, other in zip(plain, by_parts, strict=True))
    with surveyed(torch) as seen:
        nn.functional.cross_entropy(
            torch.randn(ROWS, CLASSES, requires_grad=True), torch.randint(CLASSES, (ROWS,)), **options
        )
    assert "loss_bytes" not in seen["facts"]


def test_it_needs_three_logits_less_but_for_a_part() -> None:
    logits, target = torch.randn(160, 4096, requires_grad=True), torch.randint(4096, (160,))
    size = logits.numel() * 4
    assert size > LEAST_BYTES

    def peak() -> int:
        with torch.profiler.profile(profile_memory=True) as profile:
            nn.functional.cross_entropy(logits, target).backward()
        logits.grad = None
        held = most = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                held += event.nbytes()
                most = max(most, held)
        return most

    plain = peak()
    with surveyed(torch) as seen:
        nn.CrossEntropyLoss()(logits, target)
    with changed(torch, BY_PARTS):
        by_parts = peak()
    # Torch's: log-probabilities, their gradient, and that of the logits, beside the logits themselves.
    assert plain == pytest.approx(3 * size, rel=0.05)
    assert size < by_parts < size * (1 + 5 / PARTS)
    assert seen["facts"]["loss_bytes"] == size


@pytest.mark.parametrize("autocast", [False, True])
def test_the_code_to_write_computes_the_same(autocast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = torch.randn(ROWS, CLASSES), torch.randint(CLASSES, (ROWS,))
    target[::5] = -100

    def found() -> list[Any]:
        given = logits.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = nn.CrossEntropyLoss()(given.bfloat16() if autocast else given, target)
        loss.backward()
        return [loss.detach(), given.grad]

    plain = found()
    whole = nn.functional.cross_entropy
    monkeypatch.setattr(nn.functional, "cross_entropy", whole)
    exec(code_of(BY_PARTS), {})
    assert nn.functional.cross_entropy is not whole
    assert all(torch.equal(one, other) for one, other in zip(plain, found(), strict=True))
