"""What CUDA's own operators take where kernels for shapes take less, or more: seen in requests of torch for CUDA."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from tests.hooks.test_fake_functions import Fake, fake  # noqa: E402, F401 (a fixture)

ROWS, WIDTH = 32, 64
WHOLE = 4 * ROWS * WIDTH
SCALAR, INDEX_BYTES = 4, 8


def requests(fake: Fake, call: Callable[[torch.Tensor], torch.Tensor]) -> tuple[list[int], list[int]]:  # noqa: F811
    """Return the sizes that forward and backward ask for, from a leaf of float32."""
    one = torch.empty(ROWS, WIDTH, device="cuda", requires_grad=True)
    fake.taken()
    out = call(one)
    forward = fake.taken()
    gradient = torch.empty_like(out)
    fake.taken()
    out.backward(gradient)
    return forward, fake.taken()


def test_softmax_multiplies_gradient_and_output_first(fake: Fake) -> None:  # noqa: F811
    assert requests(fake, lambda x: x.softmax(-1)) == ([WHOLE], [WHOLE, WHOLE])
    assert requests(fake, lambda x: x.log_softmax(-1)) == ([WHOLE], [WHOLE])


def test_an_averaged_loss_keeps_the_storage_of_the_whole(fake: Fake) -> None:  # noqa: F811
    target = torch.empty(ROWS, WIDTH, device="cuda")
    losses: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "mse": lambda x: F.mse_loss(x, target),
        "smooth_l1": lambda x: F.smooth_l1_loss(x, target),
        "soft_margin": lambda x: F.soft_margin_loss(x, target),
        "bce": lambda x: F.binary_cross_entropy(x, target),
    }
    for name, loss in losses.items():
        out = loss(torch.empty(ROWS, WIDTH, device="cuda", requires_grad=True))
        assert (name, out.shape, out.untyped_storage().nbytes()) == (name, (), WHOLE)
    assert F.mse_loss(target, target, reduction="none").untyped_storage().nbytes() == WHOLE
    assert F.huber_loss(target, target).untyped_storage().nbytes() == SCALAR


def test_a_gradient_is_written_into_its_zeros(fake: Fake) -> None:  # noqa: F811
    index = torch.zeros(ROWS, 2, dtype=torch.int64, device="cuda")
    assert requests(fake, lambda x: x.gather(1, index)) == ([4 * ROWS * 2], [WHOLE])
    assert requests(fake, lambda x: x.max(1)[0]) == ([4 * ROWS, INDEX_BYTES * ROWS], [WHOLE])
    assert requests(fake, lambda x: x.index_select(0, index[:, 0])) == ([WHOLE], [WHOLE])


def test_a_norm_has_a_kernel_of_its_own(fake: Fake) -> None:  # noqa: F811
    assert requests(fake, lambda x: torch.rms_norm(x, (WIDTH,))) == ([WHOLE, 4 * ROWS], [WHOLE])
    weight = torch.empty(WIDTH, device="cuda", requires_grad=True)
    assert requests(fake, lambda x: torch.rms_norm(x, (WIDTH,), weight)) == ([WHOLE, 4 * ROWS], [WHOLE, 4 * WIDTH])
    assert requests(fake, F.logsigmoid) == ([WHOLE], [WHOLE])
