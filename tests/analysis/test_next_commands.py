"""The commands that a report ends with can be typed as they stand, and fit what was read."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from memtrace.analysis.sentences.next_commands import next_commands
from memtrace.cli import group
from tests.fake_report import finding, gpt_rank, snapshot_rank

PATH = "my runs/it's.json"


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("source", ["recorded", "snapshot", "kineto"])
def test_commands_exist_with_their_options_and_name_the_file(device: str, source: str) -> None:
    rank = replace(gpt_rank(device=device), source=source)
    findings = [replace(finding(), slug=slug) for slug in ("oom", "full-recomputation", "fragmentation")]
    found = next_commands(PATH, [rank], findings)
    assert found
    assert len(found) == len(set(found)) <= 4
    for command in found:
        program, name, *words = shlex.split(command)
        assert program == "memtrace"
        params = {option for param in group.get_command(None, name).params for option in param.opts}  # type: ignore[arg-type,union-attr]
        before_script = words[: words.index("--")] if "--" in words else words
        assert {word for word in before_script if word.startswith("-")} <= params
        assert name == "record" or words[0] == PATH


def test_a_profile_and_a_lone_state_cannot_be_replayed() -> None:
    for rank in (replace(gpt_rank(), source="kineto"), snapshot_rank(gpt_rank())):
        assert not any("whatif" in command for command in next_commands(PATH, [rank], []))


def test_of_several_files_none_is_named() -> None:
    assert next_commands("a.json and 2 more", [gpt_rank()], [])[0].startswith("memtrace report TRACE... ")


def test_where_nothing_was_recorded_a_recording_is_proposed() -> None:
    rank = replace(gpt_rank(), num_events=0)
    empty = replace(rank, peak=replace(rank.peak, requested_bytes=None))
    assert next_commands(PATH, [empty], []) == ("memtrace record -o trace.json -- python train.py",)
