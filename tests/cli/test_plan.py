"""`memtrace plan` as it is typed: the document, exit codes, the page and its chart in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ARGS = ("--gpus", "16", "--gpu", "h100-80gb", "--gbs-tokens", "512K", "--sequence", "2048")
KEYS = {"dp", "tp", "pp", "cp", "ep", "zero", "recompute", "micro_batch", "accumulation", "peak_bytes"}
KEYS |= {"step_time_ns", "tokens_per_second_per_gpu", "mfu", "fits"}


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(group, ["plan", *map(str, args)])


def test_document_has_what_the_contract_names() -> None:
    result = invoke("--preset", "llama-3-8b", *ARGS, "--json")
    found = json.loads(result.stdout)
    assert (found["format"], found["version"], result.exit_code) == ("memtrace-plan", 1, 0)
    assert found["num_fitting"] <= found["num_layouts"]
    # 512K tokens are 2^19.
    assert found["global_tokens"] == 2**19
    for row in found["rows"]:
        assert set(row) >= KEYS
        assert row["dp"] * row["tp"] * row["pp"] * row["cp"] == 16
        assert isinstance(row["peak_bytes"], int)


def test_text_lists_layouts_reasons_and_what_to_type() -> None:
    text = invoke("--preset", "llama-3-8b", *ARGS, "--top", "3").stdout
    for words in ("tokens a second and GPU", "Of the step it computes", "torchtitan:", "Megatron-LM:", "Assumed:"):
        assert words in text


def test_exit_code_3_where_nothing_fits() -> None:
    result = invoke("--preset", "llama-3-70b", "--gpus", "1", "--gpu", "24GiB", "--gbs-tokens", "8K", "--seq", "2048")
    assert result.exit_code == 3
    assert "fits 1 × 24GiB in no layout" in result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--preset", "gpt2", "--gpus", "0", *ARGS[2:]), "invalid value for '--gpus'"),
        (("--preset", "gpt2", *ARGS, "--inter-gbs", "0"), "invalid value for '--inter-gbs'"),
        (("--preset", "gpt2", *ARGS, "--compute-share", "nan"), "is not a number"),
        (("--preset", "gpt2", *ARGS[:4], "--gbs-tokens", "many", "--seq", "64"), "not a count"),
        (ARGS, "missing: --preset (or --config, --params)"),
    ],
)
def test_what_cannot_be_is_refused_in_words(args: tuple[str, ...], message: str) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.browser
def test_page_draws_every_layout_and_filters_them(tmp_path: Path, browser: Browser) -> None:
    folder = tmp_path / "</script><img src=x>"
    folder.mkdir(parents=True)
    config = {"model_type": "llama", "hidden_size": 1024, "num_attention_heads": 8, "num_hidden_layers": 8}
    config |= {"intermediate_size": 2048, "vocab_size": 32000}
    (folder / "config.json").write_text(json.dumps(config))
    page_path = tmp_path / "plan.html"
    assert invoke("--config", folder / "config.json", *ARGS, "--html", page_path).exit_code == 0
    text = page_path.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "https://" not in text
    payload = json.loads(text.partition('id="payload">')[2].partition("</script>")[0])
    page = browser.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(page_path.as_uri())
    page.wait_for_selector("html[data-drawn=true]")
    assert page.locator("#chart circle").count() == len(payload["columns"]["dp"])
    page.select_option("#filter-tp", "2")
    assert page.locator("#chart circle").count() == payload["columns"]["tp"].count(2)
    page.locator("#chart circle").first.dispatch_event("click")
    assert "tp 2" in page.inner_text("#told")
    assert messages == []
    page.close()
