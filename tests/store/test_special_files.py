"""What is no regular file is refused wherever a file is read, and never waited for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from memtrace.cli import group
from memtrace.cli.fitting.state import SUFFIX, State
from memtrace.errors import MemtraceError
from memtrace.schema.status import STATUS_SUFFIX
from tests.builders import parts

pytestmark = pytest.mark.timeout(60)
NAME = "rank00000-host-7-0000"


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


SPECIAL = pytest.mark.parametrize("special", [make_pipe, link_to_endless])
Special = Callable[[Path], None]


def run(words: str) -> tuple[int, str]:
    result = CliRunner().invoke(group, words.split())
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "bug in memtrace" not in result.output
    return result.exit_code, result.output


@SPECIAL
@pytest.mark.parametrize(
    "words",
    [
        "estimate --config {0}",
        "plan --config {0} --gpus 8 --gpu 24GiB --gbs-tokens 64K --sequence 512",
        "plan --evaluate {0}",
        "report file://{0}",
        "report {0}",
        "diff {0} {0}",
        "check {0} --budget peak=1GiB",
        "whatif {0}",
        "inspect {0}",
        "export {0} --to csv -o {0}.csv",
    ],
)
def test_named_file(words: str, special: Special, tmp_path: Path) -> None:
    special(tmp_path / "input")
    code, said = run(words.format(tmp_path / "input"))
    assert code == 1
    assert "not a regular file" in said


@SPECIAL
@pytest.mark.parametrize("words", ["merge {0} -o {0}.json", "live {0} --once", "report {0}", "report file://{0}"])
@pytest.mark.parametrize(
    "name",
    [
        "launcher.json",
        f"{NAME}{STATUS_SUFFIX}",
        f"{NAME}.chunk-000000.pickle",
        f"{NAME}.chunk-000000.kineto.json",
        f"{NAME}.chunk-000001.jsonl",
    ],
)
def test_file_in_a_folder_of_parts(words: str, name: str, special: Special, tmp_path: Path) -> None:
    folder = tmp_path / "trace.json.parts"
    parts(folder, NAME).header(rank=0).chunk([("alloc", 4096, 512)]).end()
    special(folder / name)
    assert run(words.format(folder))[0] == 0


@SPECIAL
def test_main_part_of_the_only_process(special: Special, tmp_path: Path) -> None:
    folder = tmp_path / "trace.json.parts"
    folder.mkdir()
    special(folder / f"{NAME}.jsonl")
    assert run(f"report {folder}")[0] == 1


@SPECIAL
def test_file_beside_the_ranks_of_a_run(special: Special, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    parts(folder / "a.parts", NAME).header(rank=0).chunk([("alloc", 4096, 512)]).end()
    special(folder / "other.json")
    for words in (f"report {folder}", f"report file://{folder}", f"inspect {folder}"):
        assert run(words)[0] == 0


@SPECIAL
def test_state_of_a_search(special: Special, tmp_path: Path) -> None:
    special(tmp_path / f"fit.json{SUFFIX}")
    with pytest.raises(MemtraceError, match="no state of a search"):
        State.open(tmp_path / "fit.json", {}, force=False)


@pytest.mark.parametrize("search", [[], "text", 7, None, [["a", "b"]]])
def test_state_whose_search_is_of_another_kind(search: object, tmp_path: Path) -> None:
    (tmp_path / f"fit.json{SUFFIX}").write_text(json.dumps({"runs": [], "search": search}))
    with pytest.raises(MemtraceError, match=r"state of a search|is of another search"):
        State.open(tmp_path / "fit.json", {"steps": 2}, force=False)


def test_configuration_that_is_larger_than_any(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 33)
    code, said = run(f"estimate --config {tmp_path / 'config.json'}")
    assert code == 1
    assert "larger than" in said


@pytest.mark.parametrize("kind", [["gpt2"], {"a": 1}, None, 7, "unheard-of"])
def test_configuration_with_an_odd_architecture_within(kind: object, tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "text_config": {"model_type": kind}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # What is within is then not what the file is about.
    assert run(f"estimate --config {tmp_path / 'config.json'}")[0] == 0


def test_configuration_with_more_layers_than_a_model_has(tmp_path: Path) -> None:
    config = {"model_type": "qwen2_moe", "hidden_size": 64, "num_hidden_layers": 2**30, "num_attention_heads": 4}
    config |= {"intermediate_size": 64, "vocab_size": 100, "num_experts": 2, "num_experts_per_tok": 1}
    config |= {"moe_intermediate_size": 64, "shared_expert_intermediate_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, said = run(f"estimate --config {tmp_path / 'config.json'}")
    assert code == 1
    assert "num_hidden_layers must be at most" in said
