"""Which operators autocast casts, and how: the lists are held against the header of the torch that is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.fake.tensors import autocast  # noqa: E402

HEADER = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"


def listed(macro: str) -> set[str]:
    """Return the operators of one list of the header, as the dispatcher names them."""
    text = HEADER.read_text(encoding="utf-8")
    found = re.search(rf"#define AT_FORALL_{macro}\(_\)((?:.*\\\n)*.*\n)", text)
    if found is None:
        pytest.skip("this torch lists them elsewhere")
    return {".".join(re.split(r",\s*", one)) for one in re.findall(r"_\(([\w, ]+)\)", found[1])}


def bases(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.fixture(autouse=True)
def header() -> None:
    if not HEADER.exists():
        pytest.skip("this torch comes without its header")


def test_what_runs_in_the_lower_type() -> None:
    missing = bases(listed("LOWER_PRECISION_FP")) - set(autocast._LOWER.split())
    assert missing == set()


def test_what_promotes() -> None:
    assert bases(listed("PROMOTE")) == set(autocast._PROMOTED.split())


def test_what_answers_in_float32() -> None:
    assert listed("FP32_SET_OPT_DTYPE") == {*autocast._ANSWERS_IN_FLOAT32.split(), *autocast._OWN_HALF}


def test_norms_that_are_told_the_type() -> None:
    text = HEADER.read_text(encoding="utf-8")
    assert set(re.findall(r'"(norm\.\w+)"', text)) == set(autocast._NORMS)


def test_all_others_are_cast_to_float32() -> None:
    special = {*autocast._LOWER.split(), *autocast._PROMOTED.split(), *autocast._REFUSED}
    exact = {*autocast._ANSWERS_IN_FLOAT32.split(), *autocast._OWN_HALF, *autocast._NORMS}
    registered = torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA")
    names = {name.removeprefix("aten::") for name in registered if name.startswith("aten::")}
    # What a build with CUDA writes by hand for recurrent layers, which are followed as layers.
    names.discard("_cudnn_rnn")
    others = {name for name in names if name not in exact and name.partition(".")[0] not in special}
    assert others == {one for one in listed("FP32") if one in names}
    assert len(others) > 30


@pytest.mark.parametrize(
    ("dtype", "wanted", "widens"),
    [
        (torch.float16, torch.float32, True),
        (torch.bfloat16, torch.float32, False),
        (torch.float16, None, False),
        (torch.float16, torch.float16, False),
        (torch.float32, torch.float32, False),
    ],
)
def test_softmax_widens_float16_alone(dtype: torch.dtype, wanted: torch.dtype | None, widens: bool) -> None:
    assert autocast.softmax_widens(torch.empty(2, dtype=dtype, device="meta"), wanted) is widens
    assert not autocast.softmax_widens(torch.empty(2, dtype=dtype), wanted)
