"""Tables of layouts: what is read, what is refused and where, and that a row is evaluated as a plan evaluates it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.errors import MemtraceError
from memtrace.forecast.evaluation.columns import COLUMNS, MAX_CELL, read_cells
from memtrace.forecast.evaluation.evaluate import evaluate_table
from memtrace.forecast.evaluation.layouts import GivenLayout, given_layout
from memtrace.forecast.evaluation.table import read_table
from memtrace.forecast.gpus import GPUS, gpu_named
from memtrace.forecast.model.parameters import num_parameters
from memtrace.forecast.model.presets import preset
from memtrace.forecast.planning.doubt import DOUBTS
from memtrace.forecast.planning.plan import Question, evaluate
from memtrace.forecast.results import EvaluatedLayout
from tests.forecast.test_plan import grid_of

ROW = {"model": "gpt2", "gpu": "24GiB", "sequence": 512}


def one(**cells: Any) -> EvaluatedLayout:
    (found,) = evaluate_table(json.dumps([ROW | cells]), {})
    return found


def placed(**cells: Any) -> GivenLayout:
    return given_layout(read_cells(cells, 1), 1, {"gpu": "24GiB", "sequence": 512})


def test_rows_are_answered_in_the_order_in_which_they_are_given() -> None:
    # Two models alternate, so that rows evaluated at once do not lie together.
    rows = [ROW | {"model": name, "dp": dp} for dp in (1, 2, 4) for name in ("gpt2", "gpt2-xl")]
    together = evaluate_table(json.dumps(rows), {})
    assert [row.gpus for row in together] == [1, 1, 2, 2, 4, 4]
    assert list(together) == [one(**row) for row in rows]


def test_a_row_is_evaluated_as_a_plan_evaluates_that_layout() -> None:
    question = Question(gpus=16, gpu=gpu_named("h100-80gb"), global_tokens=2**19, sequence=4096)
    grid = grid_of("llama-3-8b", question)
    found = evaluate(preset("llama-3-8b"), question, grid)
    for at in range(0, len(grid), 23):
        names = ("dp", "tp", "pp", "virtual_stages", "cp", "ep", "zero", "micro_batch", "accumulation")
        cells = {name: int(getattr(grid, name)[at]) for name in names}
        cells["recompute"] = ("none", "selective", "full")[grid.recompute[at]]
        row = one(model="llama-3-8b", gpu="h100-80gb", sequence=4096, **cells)
        outside = row.process_bytes - row.reserved_bytes
        assert (row.peak_bytes + outside, row.process_bytes) == (found.peak[at], found.needed[at])
        assert row.step_seconds == pytest.approx(float(found.seconds[at]), rel=1e-12)


def test_terms_of_the_time_add_up_and_stages_hold_the_peak() -> None:
    row = one(model="llama-3-8b", gpu="h100-80gb", dp=2, tp=2, pp=4, accumulation=8, sequence=4096)
    assert sum(row.time_seconds.values()) == pytest.approx(row.step_seconds, rel=1e-12)
    outside = row.process_bytes - row.reserved_bytes
    assert max(sum(stage.values()) for stage in row.stages.values()) == row.peak_bytes + outside
    # The context and three communicators of 256 MiB are no allocations of torch.
    assert outside == GPUS["h100-80gb"].context.predicted_bytes + 3 * 2**28
    tokens = 2 * 8 * 4096
    assert row.tokens_per_second_per_gpu == pytest.approx(tokens / row.step_seconds / 16)


def test_csv_and_json_say_the_same() -> None:
    csv = "\ufeffmodel,gpu, dp ,sequence,zero\r\ngpt2,24GiB,8,512,1\r\n\r\ngpt2,24GiB,4,512,\r\n"
    rows = [ROW | {"dp": 8, "zero": 1}, ROW | {"dp": 4, "zero": None}]
    assert evaluate_table(csv, {}) == evaluate_table(json.dumps(rows), {})
    assert evaluate_table(json.dumps({"rows": rows}), {}) == evaluate_table(csv, {})


def test_an_empty_cell_takes_the_default_that_is_given_and_a_cell_overrides_it() -> None:
    defaults = {"spec": preset("gpt2-xl"), "gpu": "24GiB", "sequence": 512}
    given_row, own = evaluate_table("dp,model\n1,\n1,gpt2\n", defaults)
    assert given_row == one(model="gpt2-xl")
    assert own == one()


@pytest.mark.parametrize(
    ("dimensions", "gated", "tied"),
    [
        ({"hidden": 768, "layers": 12, "heads": 12}, False, True),
        ({"hidden": 768, "layers": 12, "heads": 12, "ffn": 2048}, True, True),
        ({"hidden": 2048, "layers": 16, "heads": 32, "ffn": 8192, "framework": "nanotron"}, True, True),
        ({"hidden": 4096, "layers": 32, "heads": 32, "ffn": 14336}, True, False),
        ({"hidden": 12288, "layers": 96, "heads": 96}, False, True),
        ({"hidden": 4096, "layers": 32, "heads": 32, "ffn": 14336, "gated": "no", "tied": "yes"}, False, True),
    ],
)
def test_dimensions_make_a_gpt_or_a_llama(dimensions: dict[str, Any], gated: bool, tied: bool) -> None:
    spec = placed(**dimensions).spec
    assert (spec.gated, spec.tied) == (gated, tied)
    hidden, ffn = spec.hidden, dimensions.get("ffn", 4 * spec.hidden)
    matrices = spec.num_layers * (4 * hidden**2 + (3 if gated else 2) * hidden * ffn) + (2 - tied) * 50257 * hidden
    # Norms and biases are less than a hundredth.
    assert matrices <= num_parameters(spec) < 1.01 * matrices


def test_what_a_row_leaves_out_is_said() -> None:
    assert placed(hidden=768, layers=12, heads=12).assumed == (
        *("kv_heads 12", "ffn 3072", "vocabulary 50257"),
        *("gated no", "tied yes"),
        *("precision bf16-mixed", "loss plain", "attention flash"),
    )
    said = {"precision": "fp32", "loss": "fused", "attention": "flash"}
    assert placed(model="gpt2", **said).assumed == ()
    # nanotron's mixed precision is not that of the cell.
    own = said | {"precision": "bf16-mixed", "framework": "nanotron"}
    assert placed(model="gpt2", **own).assumed == ("precision bf16-mixed-fp32-grad",)


def test_links_and_gpus_of_a_node_replace_those_of_the_data_sheet() -> None:
    gpu = placed(model="gpt2", gpu="A100_80GB", gpus_per_node=4, intra_gbs=100, inter_gbs="6.25").gpu
    expected = replace(gpu_named("a100-80gb"), gpus_per_node=4, intra_bytes_s=100e9, inter_bytes_s=6.25e9)
    assert gpu == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no rows"),
        ("model,dp\n", "no rows"),
        ("[]", "no rows"),
        ("model,colour\ngpt2,red\n", "no column 'colour'"),
        ('[{"model": "gpt2", "colour": 1}]', "row 1: there is no column 'colour'"),
        ("model,model\na,b\n", "column model is there twice"),
        ("model,dp\ngpt2,1,2\n", "row 1 has 3 cells for 2 columns"),
        ('model,dp\n"gpt2,1\n', "cannot be read as CSV"),
        ('[{"model": "gpt2", "dp": 1, "dp": 2}]', "column dp is there twice"),
        ("[1]", "row 1 is no object"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"rows": 3}', "not a list"),
    ],
)
def test_what_is_no_table_is_refused(text: str, words: str) -> None:
    with pytest.raises(MemtraceError, match=words):
        read_table(text)


@pytest.mark.parametrize(
    ("cells", "column"),
    [
        ({"dp": 0}, "dp"),
        ({"dp": "2.5"}, "dp"),
        ({"dp": True}, "dp"),
        ({"dp": "nan"}, "dp"),
        ({"dp": "9" * 400}, "dp"),
        ({"dp": [1]}, "dp"),
        ({"dp": "=1+1"}, "dp"),
        ({"zero": 4}, "zero"),
        ({"zero": "none"}, "zero"),
        ({"inter_gbs": -1}, "inter_gbs"),
        ({"inter_gbs": "inf"}, "inter_gbs"),
        ({"reshard": "perhaps"}, "reshard"),
        ({"recompute": "some"}, "recompute"),
        ({"precision": 16}, "precision"),
        ({"framework": "\x00"}, "framework"),
        ({"model": "gpt-99"}, "model"),
        ({"model": "x" * (MAX_CELL + 1)}, "model"),
        ({"gpu": "toaster"}, "gpu"),
        ({"gpu": None}, "gpu"),
        ({"sequence": ""}, "sequence"),
        ({"model": None, "layers": 3}, "hidden"),
        ({"model": None, "hidden": 10, "layers": 3, "heads": 3}, "heads"),
        ({"tp": 7}, "tp"),
        ({"pp": 13}, "pp"),
        ({"pp": 4, "virtual_stages": 4}, "virtual_stages"),
        ({"virtual_stages": 2}, "virtual_stages"),
        ({"schedule": "zbv"}, "schedule"),
        ({"schedule": "zb-h1", "pp": 2, "accumulation": 3}, "schedule"),
        ({"schedule": "zb-h1", "pp": 2, "virtual_stages": 2, "accumulation": 8}, "schedule"),
        ({"schedule": "gpipe", "pp": 2}, "schedule"),
        ({"ep": 2}, "ep"),
        ({"cp": 3}, "cp"),
        ({"dp": 10**6, "cp": 512}, "dp"),
        ({"micro_batch": 10**6, "sequence": 10**6}, "micro_batch"),
        ({"dp": 10**6, "accumulation": 10**6}, "accumulation"),
        ({"precision": "fp8-mixed", "gpu": "a100-80gb"}, "precision"),
        ({"precision": "fp8-deepseek", "gpu": "t4"}, "precision"),
        # What a row says of a model that it names must be so.
        ({"hidden": 4096}, "hidden"),
        ({"layers": 24}, "layers"),
        ({"kv_heads": 4}, "kv_heads"),
        ({"ffn": 768}, "ffn"),
        ({"vocabulary": 50304}, "vocabulary"),
        ({"gated": "yes"}, "gated"),
        ({"tied": False}, "tied"),
    ],
)
def test_a_broken_row_is_refused_by_its_number_and_column(cells: dict[str, Any], column: str) -> None:
    with pytest.raises(MemtraceError, match=f"row 2, column {column}: "):
        evaluate_table(json.dumps([ROW, ROW | cells]), {})


def test_a_row_may_repeat_what_a_named_model_is() -> None:
    plain = evaluate_table(json.dumps([ROW]), {})
    own = {"hidden": 768, "layers": 12, "heads": 12, "kv_heads": 12, "ffn": 3072, "vocabulary": 50257, "tied": "yes"}
    assert evaluate_table(json.dumps([ROW | own]), {}) == plain
    experts = placed(model="mixtral-8x7b", ffn=14336, ep=8, dp=8)
    assert experts.layout.ep == 8


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_may_be_delimited_as_spreadsheets_do_it(delimiter: str) -> None:
    lines = [("model", "dp", "gpu"), ("gpt2", "8", "GB200"), ("gpt2", "", "")]
    text = "\r\n".join(delimiter.join(line) for line in lines)
    rows = read_table("\ufeff" + text)
    assert rows == [{"model": "gpt2", "dp": "8", "gpu": "GB200"}, {"model": "gpt2", "dp": "", "gpu": ""}]


def test_a_family_of_one_card_names_it() -> None:
    alone = {"GB200": "gb200-186gb", "gb300": "gb300-288gb", "B300": "b300-288gb", "H200": "h200-141gb"}
    assert {short: placed(model="gpt2", gpu=short).gpu.name for short in alone} == alone
    with pytest.raises(MemtraceError, match=r"row 1, column gpu: there is no GPU 'h100'.*h100-80gb"):
        placed(model="gpt2", gpu="h100")


@given(
    name=st.sampled_from(list(COLUMNS)), cell=st.one_of(st.text(max_size=20), st.floats(), st.integers(), st.booleans())
)
def test_a_cell_is_a_value_or_an_error_that_names_it(name: str, cell: object) -> None:
    with contextlib.suppress(MemtraceError):
        assert set(read_cells({name: cell}, 3)) <= {name}
        return
    with pytest.raises(MemtraceError, match=f"row 3, column {name}: "):
        read_cells({name: cell}, 3)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"framework": "nanotron"}, ("bf16-mixed-fp32-grad", "parallel", "flash", True)),
        ({"framework": "nanotron", "precision": "fp32", "loss": "fused"}, ("fp32", "fused", "flash", True)),
        ({"framework": "deepspeed"}, ("deepspeed-zero", "parallel", "explicit", False)),
        ({"framework": "megatron", "recompute": "selective"}, ("bf16-mixed", "parallel", "explicit", True)),
        ({"framework": "megatron", "recompute": "full"}, ("bf16-mixed", "parallel", "flash", True)),
        ({"framework": "torchtitan", "precision": "fp8-mixed"}, ("fp8-dynamic", "plain", "flash", True)),
        ({"framework": "megatron", "precision": "fp8-mixed"}, ("fp8-mixed", "parallel", "flash", True)),
        ({"framework": "fsdp"}, ("bf16-mixed", "plain", "flash", True)),
        ({}, ("bf16-mixed", "plain", "flash", True)),
    ],
)
def test_a_framework_chooses_what_a_row_leaves_open(cells: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = placed(model="gpt2", **cells)
    run = found.run
    assert (run.precision.name, run.loss, run.attention, found.layout.sequence_parallel) == expected


def test_torchtitan_keeps_weights_in_a_pipeline_unless_told_otherwise() -> None:
    cells = {"model": "gpt2", "framework": "torchtitan", "zero": 3, "dp": 2}
    settings = ({}, {"pp": 2}, {"pp": 2, "reshard": "yes"})
    assert [placed(**cells, **more).layout.reshard for more in settings] == [1, 0, 1]


def test_a_layout_that_published_runs_are_unlike_says_in_what() -> None:
    known = {"hidden": 4096, "layers": 32, "heads": 32, "ffn": 14336, "gpu": "h100-80gb", "sequence": 4096}
    known |= {"framework": "nanotron", "dp": 8}
    assert one(**{"model": None}, **known).beyond == ()
    beyond = one(**{"model": None}, **known | {"gpu": "b200-192gb", "cp": 2, "sequence": 8192}).beyond
    assert [text.split()[0] for text in beyond] == ["GPU", "8,192", "cp"]


def test_ranges_hold_what_is_predicted_and_decide_what_fits() -> None:
    low, high = DOUBTS["fsdp"].memory
    for capacity, said in ((2.0, "yes"), (1.0, "close"), (0.5, "no")):
        needed = one(framework="fsdp").process_bytes
        row = one(framework="fsdp", gpu=f"{round(capacity * needed / 2**20)}MiB")
        assert row.fits == said
        assert row.process_bytes_range == (round(needed * low), round(needed * high))
        least, most = row.tokens_per_second_per_gpu_range
        assert least < row.tokens_per_second_per_gpu < most


def test_the_documentation_lists_every_column(repo_root: Any) -> None:
    page = (repo_root / "docs/plan.md").read_text(encoding="utf-8")
    for name, column in COLUMNS.items():
        assert f"| `{name}` | {column.meaning} |" in page


LLAMA_405B = {"model": "llama-3.1-405b", "gpu": "h100-80gb", "sequence": 8192, "tp": 8, "pp": 16}
"""As its paper has it (arXiv 2407.21783, table 4), but for data parallelism and micro-batches."""


@pytest.mark.parametrize(("dp", "accumulation"), [(128, 16), (64, 32)])
def test_the_published_layouts_of_llama_3_405b_are_never_said_not_to_fit(dp: int, accumulation: int) -> None:
    # One layer a stage, gradients sharded, no recomputation.
    cells = LLAMA_405B | {"dp": dp, "accumulation": accumulation, "virtual_stages": 8, "framework": "megatron"}
    found = one(**cells, zero=2)
    assert found.fits == ("yes" if accumulation == 16 else "close")
    assert one(**cells, zero=2, group=12).fits == "yes"
    # The embedding stands for a layer of the first stage, so that the second is fuller, and holds the peak.
    activations = {name: categories["activation"] for name, categories in found.stages.items()}
    assert list(activations) == ["first", "second", "last"]
    assert activations["second"] > activations["first"] > activations["last"]
    assert sum(found.stages["second"].values()) == found.peak_bytes + found.process_bytes - found.reserved_bytes


def test_fewer_micro_batches_in_a_row_hold_less_and_wait_longer() -> None:
    cells = LLAMA_405B | {"dp": 64, "accumulation": 64, "virtual_stages": 8, "framework": "megatron", "zero": 1}
    found = [one(**cells, group=group) for group in (8, 12, 16)]
    assert [row.peak_bytes for row in found] == sorted({row.peak_bytes for row in found})
    bubbles = [row.time_seconds["bubble"] for row in found]
    assert bubbles == sorted(set(bubbles), reverse=True)
    assert found[-1] == one(**cells)
    # Seven times 16 - 8 stages of an eighth of a micro-batch each, beside the 15 of any group.
    assert bubbles[0] == pytest.approx(bubbles[-1] * (15 + 7 * 8) / 15)


def test_gradients_are_scattered_once_for_the_micro_batches_that_a_stage_runs_in_a_row() -> None:
    # Links so slow that nothing hides what scattering takes.
    cells = {
        "model": "llama-3-8b",
        "gpu": "h100-80gb",
        "inter_gbs": 0.1,
        "sequence": 4096,
        "dp": 64,
        "pp": 4,
        "zero": 2,
    }
    cells |= {"virtual_stages": 2, "accumulation": 8}
    in_fours, in_eights = (one(**cells, group=group).time_seconds["gather"] for group in (4, 8))
    each = one(**cells, framework="megatron").time_seconds["gather"]
    assert in_eights < in_fours < each
    whole = [one(**cells, framework=name).stages["first"]["communication"] for name in ("none", "megatron")]
    assert whole[0] > whole[1]
