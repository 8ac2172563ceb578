"""What each optimizer keeps of one tensor, element by element."""

from __future__ import annotations

import pytest

from memtrace.errors import MemtraceError
from memtrace.forecast.memory.optimizers import MIN_QUANTIZED, OPTIMIZERS, QUANTIZED_BLOCK, optimizer_named, state_bytes
from memtrace.forecast.model.parameter_tensors import Division, ParameterTensor, Place
from memtrace.forecast.model.precision import PRECISIONS

FP32, BF16, FP8_LM = (PRECISIONS[name] for name in ("fp32", "bf16", "fp8-lm"))


def tensor(*shape: int, place: Place = Place.DENSE_LAYER, copies: int = 1) -> ParameterTensor:
    return ParameterTensor(name="w", shape=shape, division=Division.SPLIT, place=place, copies=copies)


def kept(name: str, one: ParameterTensor, precision: object = FP32) -> int:
    """Return the bytes of one copy without its step count."""
    return OPTIMIZERS[name].tensor_bytes(one, precision)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "numbers"),
    # Numbers of 4 bytes that are kept of a matrix of 3 x 5.
    [("sgd", 0), ("sgd-momentum", 15), ("lion", 15), ("adamw", 30), ("muon", 15), ("adafactor", 3 + 5)],
)
def test_numbers_of_a_matrix(name: str, numbers: int) -> None:
    assert kept(name, tensor(3, 5)) == 4 * numbers


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ((7,), 7),
        ((1, 5), 6),
        ((3, 5), 8),
        # Each of two stacked experts has sums of its own.
        ((2, 3, 5), 2 * 8),
    ],
)
def test_adafactor_keeps_sums_of_rows_and_of_columns(shape: tuple[int, ...], numbers: int) -> None:
    assert kept("adafactor", tensor(*shape)) == 4 * numbers
    # In float32, whatever the weights are in.
    assert kept("adafactor", tensor(*shape), BF16) == 4 * numbers


@pytest.mark.parametrize(
    ("place", "shape", "numbers"),
    [
        (Place.DENSE_LAYER, (3, 5), 15),
        (Place.MOE_LAYER, (2, 3, 5), 30),
        (Place.DENSE_LAYER, (7,), 14),
        (Place.EMBEDDING, (3, 5), 30),
        (Place.HEAD, (3, 5), 30),
    ],
)
def test_muon_keeps_one_moment_of_hidden_matrices_and_both_of_the_rest(
    place: Place, shape: tuple[int, ...], numbers: int
) -> None:
    assert kept("muon", tensor(*shape, place=place)) == 4 * numbers


def test_states_are_as_wide_as_the_recipe_says() -> None:
    assert (kept("adamw", tensor(3, 5), BF16), kept("lion", tensor(3, 5), BF16)) == (2 * 30, 2 * 15)
    # FP8-LM: a first moment of 1 byte, a second of 2.
    assert kept("adamw", tensor(3, 5), FP8_LM) == 15 * (1 + 2)


def test_8_bit_adam_quantizes_tensors_of_4096_elements_and_more() -> None:
    assert (MIN_QUANTIZED, QUANTIZED_BLOCK) == (4096, 256)
    # Smaller: two float32 numbers an element. From there on two bytes, and a float32 scale for each 256 elements.
    found = [kept("adam-8bit", tensor(number)) for number in (4095, 4096, 4097)]
    assert found == [8 * 4095, 2 * (4096 + 4 * 16), 2 * (4097 + 4 * 17)]


def test_steps_are_counted_a_tensor_in_four_bytes() -> None:
    three = tensor(3, 5, copies=3)
    counted = {name: state_bytes(one, FP32, [three]) - 3 * kept(name, three) for name, one in OPTIMIZERS.items()}
    assert counted == {name: 3 * 4 * (name in ("adamw", "adafactor")) for name in OPTIMIZERS}


def test_temporaries_of_foreach() -> None:
    none = {name for name, one in OPTIMIZERS.items() if one.temporary_tensors == 0}
    assert none == {"adam-8bit", "sgd", "sgd-momentum"}
    assert {one.temporary_tensors for one in OPTIMIZERS.values()} == {0, 1}


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(MemtraceError, match="no optimizer 'adamant'"):
        optimizer_named("adamant")
