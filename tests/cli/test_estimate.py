"""`memtrace estimate` as it is typed: ways to name a model, exit codes, JSON, the page, a real recording beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group
from tests.conftest import RunMemtrace
from tests.warm.start import warm_python

CONFIG = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
CONFIG |= {"intermediate_size": 96, "vocab_size": 100}


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(group, ["estimate", *map(str, args)])


def document(*args: str | Path) -> dict[str, object]:
    return dict(json.loads(invoke(*args, "--json").stdout))


def test_document_has_what_the_contract_names() -> None:
    found = document("--preset", "llama-3-8b")
    assert (found["format"], found["version"], found["num_parameters"]) == ("memtrace-estimate", 1, 8_030_261_248)
    per_gpu = found["per_gpu"]
    assert isinstance(per_gpu, dict)
    assert sum(per_gpu["by_category"].values()) == per_gpu["total_bytes"]
    assert per_gpu["low_bytes"] < per_gpu["total_bytes"] < per_gpu["high_bytes"]
    assert found["fits"] is None
    assert {"step", "phase", "peak_bytes"} <= set(found["phases"][0])  # type: ignore[index]
    assert all(isinstance(one, str) for one in found["assumptions"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(("gpu", "code", "fits"), [("h200-141gb", 0, True), ("8GiB", 3, False), ("0.9B", 3, False)])
def test_exit_code_says_whether_it_fits(gpu: str, code: int, fits: bool) -> None:
    result = invoke("--preset", "gpt2", "--optimizer", "sgd", "--micro-batch", "16", "--gpu", gpu, "--json")
    assert (result.exit_code, json.loads(result.stdout)["fits"]) == (code, fits)


def test_exit_code_4_where_the_memory_lies_within_the_doubt() -> None:
    per_gpu = document("--preset", "gpt2")["per_gpu"]
    assert isinstance(per_gpu, dict)
    result = invoke("--preset", "gpt2", "--gpu", f"{per_gpu['total_bytes']}B")
    assert result.exit_code == 4
    assert "too close" in result.stdout


def test_model_from_a_configuration_file_is_named_after_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert document("--config", folder / "config.json")["model"] == "my-model"


def test_model_from_dimensions_and_from_a_count() -> None:
    assert (
        document("--layers", "2", "--hidden", "64", "--heads", "4")["num_parameters"]
        == 50257 * 64 + 2 * (12 * 64 * 64 + 13 * 64) + 2 * 64
    )
    assert document("--params", "7B")["num_parameters"] == 7 * 10**9


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "no model is named"),
        (("--preset", "gpt2", "--params", "7B"), "several models"),
        (("--layers", "2"), "dimensions need --hidden, --heads too"),
        (("--layers", "2", "--hidden", "10", "--heads", "3"), "cannot be divided"),
        (("--params", "seven"), "not a count"),
        (("--preset", "gpt5"), "no preset"),
        (("--preset", "gpt2", "--precision", "int3"), "no precision"),
        (("--preset", "gpt2", "--optimizer", "sdg"), "no optimizer"),
        (("--preset", "gpt2", "--gpu", "abacus"), "no GPU"),
        (("--preset", "gpt2", "--tp", "5"), "heads cannot be divided"),
    ],
)
def test_what_cannot_be_is_refused_in_words(args: tuple[str, ...], message: str) -> None:
    result = invoke(*args)
    assert result.exit_code == (2 if message in ("not a count", "no GPU") else 1)
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"model_type": "llama"}', "\x00"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    result = invoke("--config", tmp_path / "config.json")
    assert result.exit_code == 1
    assert "unexpected" not in result.stderr


def test_page_is_complete_and_escapes_what_a_file_says(tmp_path: Path) -> None:
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    page = tmp_path / "estimate.html"
    assert invoke("--config", folder / "config.json", "--gpu", "24GiB", "--html", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text
    assert "{{" not in text
    assert "https://" not in text
    assert "style=" not in text
    again = invoke("--preset", "gpt2", "--html", page)
    assert again.exit_code == 1
    assert "exists" in again.stderr


def test_a_recording_of_the_sample_beside_its_estimate(
    tmp_path: Path, run_memtrace: RunMemtrace, repo_root: Path
) -> None:
    pytest.importorskip("torch")
    trace, sample = tmp_path / "trace.json", repo_root / "samples" / "train_gpt.py"
    options = ["--layers", "2", "--hidden", "64", "--heads", "4", "--sequence", "64", "--micro-batch", "4"]
    done = run_memtrace(
        "record", "-o", trace, "--", warm_python(), sample, *options, "--steps", "2", "--device", "cpu",
        env={"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    vocabulary = len(set((repo_root / "samples" / "corpus.txt").read_text(encoding="utf-8")))
    config = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 64}
    config |= {"vocab_size": vocabulary, "activation_function": "gelu"}
    config |= {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    run = ["--micro-batch", "4", "--sequence", "64", "--precision", "fp32", "--backend", "cpu", "--attention", "sdpa"]
    found = document("--config", tmp_path / "config.json", *run, "--against", trace)
    rows = {row["category"]: row for row in found["against"]["rows"]}  # type: ignore[index]
    assert [rows[name]["error_pct"] for name in ("parameter", "gradient", "optimizer_state")] == [0, 0, 0]
    assert abs(rows["activation"]["error_pct"]) < 1
    assert abs(rows["total"]["error_pct"]) < 1


def test_loss_says_what_of_the_logits_is_kept() -> None:
    tokens, vocabulary = 2 * 256, 128256
    kept = {}
    for loss in ("plain", "fused", "chunked"):
        found = document("--preset", "llama-3.2-1b", "--micro-batch", "2", "--sequence", "256", "--loss", loss)
        forward = next(one for one in found["phases"] if one["phase"] == "forward")  # type: ignore[attr-defined]
        kept[loss] = forward["by_category"]["activation"]
    # Plain: float32 log-probabilities beside 16-bit logits; fused: the logits alone; chunked: neither.
    assert kept["plain"] - kept["fused"] == 4 * tokens * vocabulary
    assert kept["fused"] - kept["chunked"] == 2 * tokens * vocabulary


@pytest.mark.parametrize(("name", "same"), [("adamw-8bit", "adam-8bit"), ("adam", "adamw")])
def test_weight_decay_changes_no_state(name: str, same: str) -> None:
    found, expected = (document("--preset", "gpt2", "--optimizer", one) for one in (name, same))
    assert found == expected


def test_adapters_are_asked_for_by_rank() -> None:
    whole, lora, quantized = (
        document("--preset", "llama-2-7b", *more) for more in ((), ("--lora", "8"), ("--lora", "8", "--base", "nf4"))
    )
    totals = [one["per_gpu"]["total_bytes"] for one in (quantized, lora, whole)]  # type: ignore[index]
    assert totals == sorted(set(totals))
    assert "adapters of rank 8" in str(quantized["assumptions"])
    assert "nf4" in str(quantized["assumptions"])


@pytest.mark.parametrize("args", [("--base", "nf4"), ("--lora-on", "qv")])
def test_a_frozen_base_without_adapters_is_refused(args: tuple[str, str]) -> None:
    result = invoke("--preset", "gpt2", *args)
    assert result.exit_code == 1
    assert "--lora RANK" in result.output


def test_a_target_sequence_is_the_decoders_and_as_long_as_the_other_where_nothing_is_said(tmp_path: Path) -> None:
    short, whole = (
        document("--preset", "t5-small", "--sequence", "256", *more) for more in (("--target-sequence", "32"), ())
    )
    assert [one["settings"]["sequence"] for one in (short, whole)] == [256, 256]  # type: ignore[index]
    assert [one["settings"]["target_sequence"] for one in (short, whole)] == [32, 256]  # type: ignore[index]
    assert short["per_gpu"]["by_category"]["activation"] < whole["per_gpu"]["by_category"]["activation"]  # type: ignore[index]
    assert invoke("--preset", "t5-small", "--html", tmp_path / "page.html").exit_code == 0
    assert "a layer of the decoder" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_attention_that_is_not_stated_is_what_the_architecture_has() -> None:
    settings = {name: document("--preset", name)["settings"] for name in ("t5-small", "bart-base", "gpt2")}
    assert {name: one["attention"] for name, one in settings.items()} == {  # type: ignore[index]
        "t5-small": "sdpa",
        "bart-base": "flash",
        "gpt2": "flash",
    }
    refused = invoke("--preset", "t5-small", "--attention", "flash")
    assert refused.exit_code == 1
    assert "learned scores" in refused.output
