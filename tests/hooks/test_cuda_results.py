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


@pytest.mark.skipif(not hasattr(torch.ops.aten, "_grouped_mm"), reason="this torch has no products of groups")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_experts_multiply_in_any_type(fake: Fake, dtype: torch.dtype) -> None:  # noqa: F811
    experts, width = 4, 24
    rows = torch.empty(ROWS, WIDTH, dtype=dtype, device="cuda", requires_grad=True)
    weights = torch.empty(experts, WIDTH, width, dtype=dtype, device="cuda", requires_grad=True)
    offsets = torch.zeros(experts, dtype=torch.int32, device="cuda")
    out = torch._grouped_mm(rows, weights, offs=offsets)
    assert (out.shape, out.dtype) == ((ROWS, width), dtype)
    out.backward(torch.empty_like(out))
    assert rows.grad is not None
    assert weights.grad is not None
    assert (rows.grad.shape, weights.grad.shape) == (rows.shape, weights.shape)


def test_a_sum_within_a_formula_is_no_sum_of_the_engine(fake: Fake) -> None:  # noqa: F811
    """The gradient of the mean is added to that of the deviation, where nothing may be written over."""

    def whole_requests(loss: Callable[[torch.Tensor], torch.Tensor]) -> int:
        one = torch.empty(ROWS, WIDTH, device="cuda", requires_grad=True)
        return requests_of(fake, loss(one)).count(WHOLE)

    alone = whole_requests(torch.var) + whole_requests(torch.mean)
    assert whole_requests(lambda x: torch.add(*torch.var_mean(x))) == alone + 1


def requests_of(fake: Fake, loss: torch.Tensor) -> list[int]:  # noqa: F811
    """Return the sizes that a backward pass asks for."""
    fake.taken()
    loss.backward()
    return fake.taken()


def test_numbers_that_are_not_zero_are_counted_as_flags(fake: Fake) -> None:  # noqa: F811
    one = torch.empty(ROWS, WIDTH, device="cuda")
    fake.taken()
    torch.count_nonzero(one, 0)
    assert fake.taken() == [ROWS * WIDTH, WIDTH * INDEX_BYTES]


def test_composites_are_taken_apart_where_autograd_is_off(fake: Fake) -> None:  # noqa: F811
    one = torch.empty(ROWS, WIDTH, device="cuda")
    fake.taken()
    with torch.inference_mode():
        F.cosine_similarity(one, one)
    whole = [size for size in fake.taken() if size == WHOLE]
    with torch.no_grad():
        F.cosine_similarity(one, one)
    assert whole
    assert whole == [size for size in fake.taken() if size == WHOLE]


def test_a_bilinear_layer_multiplies_for_each_of_its_results(fake: Fake) -> None:  # noqa: F811
    left, right = torch.empty(ROWS, 8, device="cuda"), torch.empty(ROWS, WIDTH, device="cuda")
    weight = torch.empty(3, 8, WIDTH, device="cuda")
    fake.taken()
    assert F.bilinear(left, right, weight).shape == (ROWS, 3)
    assert fake.taken().count(WHOLE) == len(weight)
    assert fake.taken() == []
