"""Activations computed again: peaks derived by hand, and the peak of a run that really does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memtrace.allocator.whatif import Change, Recording, read_recording, what_if
from memtrace.analysis.what_if.recompute import FULL, SELECTIVE, recomputed
from memtrace.analysis.what_if.request_sizes import Edit, edited_sizes
from memtrace.errors import MemtraceError
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace
from tests.builders import rank_trace
from tests.warm.start import warm_python

MIB = 1 << 20

TWO_LAYERS: tuple[tuple[str, int], ...] = (
    # Forward of blocks.0, at 1 to 6: its attention, at 1 to 4, with a projection, at 1.
    ("projected 0", 3),
    ("scores 0", 20),
    ("mixed 0", 4),
    ("inner 0", 30),
    ("out 0", 5),
    # The statistics of a norm that ends the layer come after its output.
    ("mean 0", 0),
    # Forward of blocks.1, at 7 to 12.
    ("projected 1", 3),
    ("scores 1", 20),
    ("mixed 1", 4),
    ("inner 1", 30),
    ("out 1", 5),
    ("mean 1", 0),
    # Outside any layer.
    ("logits", 7),
)
"""Name and MiB of each activation, in the order of their allocs; 0 is a few bytes."""


def two_layers(*, without: tuple[str, ...] = ()) -> RankTrace:
    """A forward of two layers, then a backward that frees all in the opposite order; an event each nanosecond."""
    sizes = {name: size * MIB or 64 for name, size in TWO_LAYERS}
    order = list(sizes)
    events = [_event("alloc", at, order.index(name), sizes[name]) for at, name in enumerate(order, 1)]
    saved = [
        {"time_ns": 14, "device": "cpu", "address": event["address"], "size_bytes": event["size_bytes"], "op": "x"}
        for event in events
    ]
    for at, name in enumerate(reversed(order), 15):
        events.append(_event("free_completed", at, order.index(name), sizes[name]))
    scopes = []
    for layer, start in (("blocks.0", 1), ("blocks.1", 7)):
        scopes += [
            _scope(f"{layer}.attn.qkv", "Linear", start, start + 1),
            _scope(f"{layer}.attn", "Attention", start, start + 3),
            _scope(f"{layer}.attn_norm", "LayerNorm", start + 4, start + 6),
            _scope(layer, "Block", start, start + 6),
        ]
    tables = {"events": events, "saved": saved, "scopes": scopes}
    return rank_trace(**{name: rows for name, rows in tables.items() if name not in without})


def _event(action: str, time_ns: int, number: int, size: int) -> dict[str, Any]:
    address = (number + 1) << 32
    return {"action": action, "device": "cpu", "address": address, "size_bytes": size, "time_ns": time_ns}


def _scope(module: str, class_name: str, start_ns: int, end_ns: int) -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "start_ns": start_ns, "end_ns": end_ns, "step": 1}


def peak(recording: Recording, what: str) -> int:
    """Return the largest requested MiB when activations are recomputed."""
    requests = recomputed(recording.rank, "cpu", recording.requests, what)
    return what_if(recording, [Change(name=what, requests=requests)]).rows[-1].peak_requested_bytes // MIB


def test_full_keeps_the_outputs_of_layers_and_one_layer_at_a_time() -> None:
    recording = read_recording(two_layers(), "cpu", as_cuda=True)
    assert what_if(recording, []).rows[0].peak_requested_bytes // MIB == 2 * 62 + 7
    # At the end of blocks.1: the output of blocks.0, and all that blocks.1 has made. Then all but the output goes, and
    # its 57 MiB come again when the logits have gone.
    assert peak(recording, FULL) == 5 + 62


def test_selective_drops_what_is_inside_attention_but_projections_and_its_output() -> None:
    recording = read_recording(two_layers(), "cpu", as_cuda=True)
    # The scores of blocks.0 have gone at the end of its attention, those of blocks.1 too before the 30 + 5 MiB: what is
    # kept of both is 2 * 42, and the logits. The scores come again when 30 + 5 of blocks.1 and the logits have gone.
    assert peak(recording, SELECTIVE) == 2 * 42 + 7


def test_what_is_made_again_is_freed_where_it_was_recorded() -> None:
    recording = read_recording(two_layers(), "cpu", as_cuda=True)
    for what, num_dropped in ((FULL, 2 * 5), (SELECTIVE, 2)):
        requests = recomputed(recording.rank, "cpu", recording.requests, what)
        assert len(requests.size) == len(TWO_LAYERS) + num_dropped
        assert len(requests.kind) == len(requests.number) == len(requests.event)
        assert requests.event == sorted(requests.event)
        in_use: set[int] = set()
        for kind, number in zip(requests.kind, requests.number, strict=True):
            assert (number in in_use) == (kind != 0)
            in_use = in_use | {number} if kind == 0 else in_use - {number} if kind == 2 else in_use
        assert not in_use


def test_a_program_that_ends_in_forward_makes_nothing_again() -> None:
    whole = two_layers()
    rows = whole.table("events")
    events = [
        _event("alloc", int(rows["time_ns"][at]), at, int(rows["size_bytes"][at])) for at in range(len(TWO_LAYERS))
    ]
    saved = [{"time_ns": 14, "device": "cpu", "address": one["address"], "size_bytes": 64} for one in events]
    scopes = [_scope("blocks.0", "Block", 1, 7), _scope("blocks.1", "Block", 7, 13)]
    recording = read_recording(rank_trace(events=events, saved=saved, scopes=scopes), "cpu", as_cuda=True)
    requests = recomputed(recording.rank, "cpu", recording.requests, FULL)
    assert requests.kind.count(0) == len(TWO_LAYERS)
    assert peak(recording, FULL) == 5 + 62


def test_sizes_apply_to_what_is_made_again() -> None:
    recording = read_recording(two_layers(), "cpu", as_cuda=True)
    requests = recomputed(recording.rank, "cpu", recording.requests, FULL)
    sizes = edited_sizes(recording.rank, "cpu", requests, [Edit.parse("activation=2")])
    row = what_if(recording, [Change(name="both", requests=requests, sizes=sizes)]).rows[-1]
    assert row.peak_requested_bytes // MIB == 2 * 67


@pytest.mark.parametrize(
    ("without", "message"), [("scopes", "knows no modules"), ("saved", "no activation of these modules is known")]
)
def test_a_recording_that_knows_too_little_is_refused(without: str, message: str) -> None:
    rank = two_layers(without=(without,))
    requests = read_recording(rank, "cpu", as_cuda=True).requests
    with pytest.raises(MemtraceError, match=message) as refused:
        recomputed(rank, "cpu", requests, FULL)
    assert refused.value.hint


def test_modules_without_a_layer_are_refused() -> None:
    events = [_event("alloc", 1, 1, MIB)]
    rank = rank_trace(events=events, scopes=[_scope("head", "Linear", 1, 2)])
    requests = read_recording(rank, "cpu", as_cuda=True).requests
    with pytest.raises(MemtraceError, match="no module is a layer"):
        recomputed(rank, "cpu", requests, FULL)


def test_full_comes_near_a_run_with_checkpointing(tmp_path: Path, run_memtrace: Any, repo_root: Path) -> None:
    recordings = []
    for options in ([], ["--checkpointing"]):
        trace = tmp_path / f"trace{len(options)}.json"
        script = [warm_python(), repo_root / "samples/train_gpt.py", "--steps", "2", "--hidden", "64", *options]
        assert run_memtrace("record", "-o", trace, "--device", "cpu", "--", *script, "--device", "cpu").returncode == 0
        recordings.append(read_recording(read_trace([trace]).ranks[0], "cpu", as_cuda=True))
    plain, real = recordings
    requests = recomputed(plain.rank, "cpu", plain.requests, FULL)
    base, predicted = what_if(plain, [Change(name="recompute full", requests=requests)]).rows
    recorded = what_if(real, []).rows[0]
    print(f"plain {base.peak_allocated_bytes}, predicted {predicted.peak_allocated_bytes}", end=", ")
    print(f"with checkpointing {recorded.peak_allocated_bytes}")
    assert base.peak_allocated_bytes > 1.5 * recorded.peak_allocated_bytes
    assert predicted.peak_allocated_bytes == pytest.approx(recorded.peak_allocated_bytes, rel=0.15)
    assert predicted.max_reserved_bytes == pytest.approx(recorded.max_reserved_bytes, rel=0.15)
