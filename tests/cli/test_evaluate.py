"""`memtrace plan --evaluate` as it is typed: files, standard input, defaults from options, refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group
from tests.document_schemas import validate

TABLE = "model,gpu,sequence,dp,zero\ngpt2,h100-80gb,1024,8,1\nllama-3-8b,a100-40gb,2048,8,3\n"
KEYS = {"step_seconds", "tokens_per_second_per_gpu", "mfu", "peak_bytes", "reserved_bytes", "fits"}


def invoke(*args: str | Path, text: str | bytes = "") -> Result:
    return CliRunner().invoke(group, ["plan", *map(str, args)], input=text)


def test_document_has_an_object_a_row() -> None:
    found = json.loads(invoke("--evaluate", "-", "--json", text=TABLE).stdout)
    validate("plan-evaluation", found, exactly=True)
    assert [set(row) >= KEYS for row in found["rows"]] == [True, True]
    assert [row["gpus"] for row in found["rows"]] == [8, 8]
    assert {row["fits"] for row in found["rows"]} <= {"yes", "close", "no"}


def test_text_has_a_line_a_row(tmp_path: Path) -> None:
    path = tmp_path / "layouts.csv"
    path.write_text(TABLE)
    lines = invoke("--evaluate", path).stdout.splitlines()
    assert len(lines) == 1 + 2
    assert [word in lines[0] for word in ("tok/s/GPU", "peak", "fits")] == [True, True, True]


def test_options_stand_in_for_empty_cells() -> None:
    bare = invoke("--evaluate", "-", "--json", "--preset", "gpt2", "--gpu", "24GiB", "--seq", "512", text="dp\n2\n")
    full = invoke("--evaluate", "-", "--json", text="model,gpu,sequence,dp\ngpt2,24GiB,512,2\n")
    assert (bare.exit_code, bare.stdout) == (0, full.stdout)


@pytest.mark.parametrize(
    ("args", "text", "message", "code"),
    [
        (("--evaluate", "-"), "model,color\ngpt2,red\n", "no column 'color'", 1),
        (("--evaluate", "-"), b"\xff\xfe\x00", "not text that can be read", 1),
        (("--evaluate", "nowhere.csv"), "", "there is no file or folder nowhere.csv", 1),
        (("--preset", "gpt2"), "", "missing: --gpus", 2),
    ],
)
def test_what_cannot_be_is_refused_in_words(args: tuple[str, ...], text: str, message: str, code: int) -> None:
    result = invoke(*args, text=text)
    assert (result.exit_code, message in result.stderr) == (code, True)


def test_measured_runs_scale_layouts_and_plans(tmp_path: Path) -> None:
    path = tmp_path / "measured.csv"
    path.write_text(
        "model,gpu,sequence,dp,zero,measured_tokens_per_second_per_gpu\nllama-3-8b,a100-40gb,2048,8,3,1000\n"
    )
    plain, scaled = (
        json.loads(invoke("--evaluate", "-", "--json", *more, text=TABLE).stdout)["rows"][1]
        for more in ((), ("--calibrate", path))
    )
    assert scaled["tokens_per_second_per_gpu"] == pytest.approx(1000)
    assert plain["tokens_per_second_per_gpu"] > 1000
    asked = ("--preset", "gpt2", "--gpus", "8", "--gpu", "a100-40gb", "--gbs-tokens", "64K", "--seq", "1024")
    assert "Measured runs (1) took" in invoke(*asked, "--calibrate", path).stdout


def test_an_option_that_nobody_typed_leaves_the_attention_to_the_framework() -> None:
    rows = "model,gpu,sequence,tp,framework,recompute\ngpt3-175b,a100-80gb,2048,8,megatron,selective\n"
    own, flash, explicit = (
        json.loads(invoke("--evaluate", "-", "--json", *more, text=rows).stdout)["rows"][0]["step_seconds"]
        for more in ((), ("--attention", "flash"), ("--attention", "explicit"))
    )
    assert own == explicit > flash


MEASURED = "model,gpu,sequence,dp,measured_tokens_per_second_per_gpu,measured_peak_bytes\n"


def test_what_was_measured_stands_beside_what_is_predicted() -> None:
    plain = json.loads(invoke("--evaluate", "-", "--json", text=TABLE).stdout)["rows"]
    (first, second) = plain
    heads, *rows = TABLE.splitlines()
    measured = [
        f"{heads},measured_tokens_per_second_per_gpu,measured_peak_bytes",
        f"{rows[0]},{first['tokens_per_second_per_gpu'] / 1.1},{first['peak_bytes'] * 2}",
        f"{rows[1]},{second['tokens_per_second_per_gpu'] / 0.8},",
    ]
    found = json.loads(invoke("--evaluate", "-", "--json", text="\n".join(measured)).stdout)
    throughput = found["agreement"]["throughput"]
    assert (throughput["runs"], round(throughput["median_error"], 9)) == (2, 0.15)
    assert (round(throughput["worst_error"], 9), throughput["rank_correlation"]) == (-0.2, 1.0)
    assert "memory" not in found["agreement"]  # One row alone agrees with nothing.
    assert [row["peak_bytes"] for row in found["rows"]] == [row["peak_bytes"] for row in plain]
    text = invoke("--evaluate", "-", text="\n".join(measured)).stdout
    assert ["+10.0%" in text, "-20.0%" in text, "-50.0%" in text] == [True, True, True]
    assert "of 2 measured layouts is off by 15.0% in the median, -20% at worst" in text


@pytest.mark.parametrize("cell", ["-1", "x", "nan", "0"])
def test_what_cannot_have_been_measured_is_refused(cell: str) -> None:
    result = invoke("--evaluate", "-", text=f"{MEASURED}gpt2,h100-80gb,1024,8,{cell},\n")
    assert (result.exit_code, "row 1, column measured_tokens_per_second_per_gpu" in result.stderr) == (1, True)


def test_page_draws_a_dot_for_each_measured_layout_where_it_belongs(tmp_path: Path) -> None:
    plain = json.loads(invoke("--evaluate", "-", "--json", text=TABLE).stdout)["rows"]
    heads, *rows = TABLE.splitlines()
    lines = [f"{heads},measured_tokens_per_second_per_gpu"]
    lines += [f"{row},{one['tokens_per_second_per_gpu']}" for row, one in zip(rows, plain, strict=True)]
    path = tmp_path / "page.html"
    result = invoke("--evaluate", "-", "--html", path, text="\n".join(lines))
    assert (result.exit_code, f"Wrote {path}" in result.stdout) == (0, True)
    dots = re.findall(r'<circle class="dot" cx="([\d.]+)" cy="([\d.]+)"', path.read_text(encoding="utf-8"))
    assert len(dots) == 2
    # What was measured is what was predicted, so that every dot is as far to the right of the origin as above it.
    (origin_x, origin_y) = (70, 14 + 460)
    assert [round(float(x) - origin_x, 1) for x, _ in dots] == [round(origin_y - float(y), 1) for _, y in dots]


def test_page_of_layouts_that_measured_nothing_has_their_table(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert invoke("--evaluate", "-", "--html", path, text=TABLE).exit_code == 0
    page = path.read_text(encoding="utf-8")
    assert ("Predicted against measured" in page, page.count("<tr>")) == (False, 3)
