"""An output that no file can be is refused in a sentence by every command that writes one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from memtrace.cli import group
from tests.builders import parts, snapshot

LONG = "a" * 300
WORDS = [
    "report {input} --html {output}",
    "diff {input} {input} --html {output}",
    "whatif {input} --html {output}",
    "check {input} --budget peak=1GiB --junit {output}",
    "check {input} --budget peak=1GiB --markdown {output}",
    "export {input} --to csv -o {output}",
    "export {input} --to memory-viz -o {output}",
    "merge {parts} -o {output}",
    "estimate --preset gpt2 --html {output}",
    "plan --preset gpt2 --gpus 2 --gpu 24GiB --gbs-tokens 64K --sequence 512 --html {output}",
    "record -o {output} -- " + sys.executable,
    "fit -o {output} --capacity 1GiB -- " + sys.executable + " {{mbs}}",
]


@pytest.mark.parametrize("output", [LONG, f"{LONG}.json", f"{LONG}/x.json", f"missing/{LONG}"])
@pytest.mark.parametrize("words", WORDS)
def test_name_that_no_file_can_have(words: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snapshot().alloc(4096, 512).write(tmp_path / "input.pickle")
    parts(tmp_path / "input.parts").header().chunk([("alloc", 4096, 512)]).end()
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(group, words.format(input="input.pickle", parts="input.parts", output=output).split())
    assert result.exit_code == 1, result.output
    assert "bug in memtrace" not in result.output
    assert "File name too long" in result.stderr or "is not a folder" in result.stderr or "No such" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before
