"""What is wrong with the programs that people reported, and how their recordings are held against it.

Of each the finding, code of the line that it names, and what it says keeps the bytes. The programs are not ours: the
file of each begins with what is to be found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Report
from memtrace.store.reading.read import read_trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The fault of a program."""

    slug: str
    code: tuple[str, ...]
    """Code of the line that is named; with several, each is as good: what is as large is made in one as in the other,
    or an input is made in one and given to the model in the other."""
    has_line_on_cpu: bool = True
    """Whether a line can be named where the recorder of the CPU keeps none outside the passes."""
    keeper: str | None = None
    is_exact: bool = False
    """Whether the peak that is promised is that of the repaired program."""
    grows_alone: bool = False
    """Whether the repaired program keeps nothing at all: neither this nor any other finding about what is kept."""


CASES = {
    "c01_val_loss_graph": Reported(slug="evaluation-graph", code=("total = total + ce(net(x), y)",), is_exact=True),
    "c03_torchmetrics_list_state": Reported(slug="leak", code=("ap.update(",), keeper="ap.", grows_alone=True),
    "c05_exception_kept": Reported(
        slug="kept",
        code=("h = torch.tanh(",),
        keeper="in the traceback of OutOfMemoryError kept by list 'failures'",
        grows_alone=True,
    ),
    "c07_eval_keeps_logits": Reported(
        slug="evaluation-outputs", code=("found.append(",), keeper="list 'found'", is_exact=True
    ),
    "c09_checkpoint_kept": Reported(
        slug="second-copy", code=("ckpt = torch.load(",), keeper="dict 'ckpt'", is_exact=True
    ),
    "c10_frozen_base_gets_grads": Reported(slug="unstepped-gradients", code=("loss.backward()",)),
    "c15_cached_masks": Reported(slug="leak", code=(").triu(1)",), keeper="the cache of causal_mask", grows_alone=True),
    "c17_longest_batch": Reported(slug="odd-batch", code=("logits = net(ids)", "ids = torch.randint("), is_exact=True),
    "c18_checkpointing_off_after_eval": Reported(
        slug="recomputation-off", code=("checkpoint(block, x",), is_exact=True
    ),
    "c21_logprob_gather": Reported(slug="large-logits", code=("log_softmax(-1).gather(",), is_exact=True),
    "c26_reference_cycle": Reported(
        slug="kept-for-steps", code=("self.features = ",), keeper="cycle through Result.score", grows_alone=True
    ),
    "c27_outputs_kept": Reported(
        slug="outputs-of-step-before", code=("x = torch.tanh(layer(x))",), keeper="dict 'out'", is_exact=True
    ),
    "c29_folds_keep_models": Reported(slug="second-copy", code=("self.net = nn.Sequential(",), has_line_on_cpu=False),
    "c31_autocast_around_loop": Reported(slug="autocast-copies", code=("loss = net(x)",), is_exact=True),
    "c32_growing_lengths_fragment": Reported(slug="growing-batches", code=("loss = (net(x) - x)", "x = torch.randn(")),
    "c35_epoch_outputs": Reported(slug="kept-for-steps", code=("x = torch.randn(", "x_hat"), keeper="list 'outputs'"),
    # Last: what it leaks is there in those after it.
    "c12_create_graph_backward": Reported(
        slug="leak", code=("backward(create_graph=True)",), keeper="its own .grad", grows_alone=True
    ),
}
"""Those of one process."""
OF_TWO_RANKS = {
    "c24_fsdp_root_only": Reported(slug="one-fsdp-unit", code=("loss = net(x)",)),
    "c37_data_parallel_reduce_all_at_once": Reported(slug="flat-gradients", code=("flat = torch.cat(",), is_exact=True),
}
CONTROLS = ("c41_control_unfreezing",)
"""Nothing is wrong with these, asked either way."""
NEEDS = {"c03_torchmetrics_list_state": "torchmetrics"}
"""Packages beside torch."""
_OF_KEEPING = ("leak", "kept", "kept-for-steps")


def report_of(folder: Path, name: str) -> Report:
    """Return the report of a recording; of one that could not be made, skip the test."""
    path = folder / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{name.partition('-')[0]} was not run: its Python has no {NEEDS[name.partition('-')[0]]}")
    return analyze(read_trace([path]))


def check_case(folder: Path, programs: Path, name: str, *, on_device: bool = False) -> None:
    """Hold the recordings of a program, with its fault and without, against what is wrong with it and in which line."""
    fault = CASES.get(name) or OF_TWO_RANKS[name]
    faulty, healthy = report_of(folder, name), report_of(folder, f"{name}-healthy")
    keeper = fault.keeper or ""
    found = [
        one
        for one in faulty.findings[:2]
        if one.slug == fault.slug and keeper in one.title and keeper in str(one.evidence.get("kept_by", ""))
    ]
    assert found, [(one.slug, one.title, one.evidence.get("kept_by")) for one in faulty.findings]
    silent = {fault.slug, *(_OF_KEEPING if fault.grows_alone else ())}
    assert [one.title for one in healthy.findings if one.slug in silent] == []
    if on_device or fault.has_line_on_cpu:
        assert found[0].where is not None
        line = (programs / f"{name}.py").read_text(encoding="utf-8").splitlines()[found[0].where["line"] - 1]
        assert any(code in line for code in fault.code), line
    if fault.is_exact:
        twin = healthy.ranks[0]
        marks = [step.high_water_bytes for step in twin.steps if step.high_water_bytes is not None]
        # A remedy that was replayed has the peak of what the allocator gives, which is rounded, as its own counter is.
        # The counter also has what programs before this one left.
        truths = [*([max(marks)] if found[0].evidence.get("is_replayed") else []), twin.peak.requested_bytes]
        assert any(found[0].new_peak_bytes == pytest.approx(truth, rel=0.02) for truth in truths), truths


def check_control(folder: Path, name: str) -> None:
    """Assert that nothing is warned of, whichever way a healthy program is asked."""
    for report in (report_of(folder, name), report_of(folder, f"{name}-healthy")):
        # What the step of an optimizer makes besides is a trade, and true.
        warned = [one.slug for one in report.findings if one.severity != "info" and one.slug != "foreach-temporaries"]
        assert warned == []
