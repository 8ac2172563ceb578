"""`memtrace plan --evaluate` as it is typed: files, standard input, defaults from options, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group

TABLE = "model,gpu,sequence,dp,zero\ngpt2,h100-80gb,1024,8,1\nllama-3-8b,a100-40gb,2048,8,3\n"
KEYS = {"step_seconds", "tokens_per_second_per_gpu", "mfu", "peak_bytes", "reserved_bytes", "fits"}


def invoke(*args: str | Path, text: str | bytes = "") -> Result:
    return CliRunner().invoke(group, ["plan", *map(str, args)], input=text)


def test_document_has_an_object_a_row() -> None:
    found = json.loads(invoke("--evaluate", "-", "--json", text=TABLE).stdout)
    assert (found["format"], found["version"]) == ("memtrace-plan-evaluation", 1)
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
        (("--evaluate", "nowhere.csv"), "", "does not exist", 2),
        (("--evaluate", "-", "--html", "page.html"), TABLE, "--html draws a search", 2),
        (("--preset", "gpt2"), "", "Missing option '--gpus'", 2),
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
