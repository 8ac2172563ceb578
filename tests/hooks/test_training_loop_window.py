"""What the training loop notes in which steps, and when Python frames are recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memtrace.hooks.parts.chunk import EventBatch
from memtrace.schema.records import TRIGGER_FILE
from memtrace.schema.status import STATUS_SUFFIX
from tests.hooks.conftest import Follow
from tests.hooks.fake_torch import FakeTorch, Tensor
from tests.hooks.followed import Followed, Program, expected

# The window


def trigger(folder: Path, name: str, num_steps: int) -> None:
    """Ask for the next steps, as `memtrace trigger` does."""
    (folder / TRIGGER_FILE).write_text(json.dumps({"id": name, "steps": num_steps}))


def test_every_step_that_was_asked_for_is_kept_the_last_one_too(follow: Follow, tmp_path: Path) -> None:
    followed = follow(steps="1")
    program = Program(followed.fake)
    for step in range(1, 8):
        if step == 3:
            trigger(tmp_path, "first", 2)
        program.step()
    assert followed.kept_steps() == {0, 1, 4, 5}
    assert [record["step"] for record in followed.written("step") if record["recorded"]] == [0, 1, 4, 5]


def test_a_second_request_does_not_cut_the_first_one_short(follow: Follow, tmp_path: Path) -> None:
    followed = follow(steps="1")
    program = Program(followed.fake)
    program.step()
    trigger(tmp_path, "first", 4)
    program.step()
    trigger(tmp_path, "second", 1)
    for _ in range(6):
        program.step()
    assert followed.kept_steps() == {0, 1, 3, 4, 5, 6}


def test_a_rolling_window_keeps_the_last_steps(follow: Follow) -> None:
    followed = follow(steps="last2")
    program = Program(followed.fake)
    for _ in range(6):
        program.step()
    assert followed.kept_steps() == {0, 5, 6}


def test_outside_the_window_nothing_is_noted_but_steps(follow: Follow) -> None:
    followed = follow(steps="5")
    program = Program(followed.fake)
    replica = followed.fake.Replicated(inside=program.model)
    followed.loop.replicas.add(replica, step=0)
    waited_for = followed.fake.optimizer_class("Adam")([program.weight])
    program.model()
    for _ in range(3):
        with followed.fake.Range("outside"):
            replica(Tensor(5))
            followed.fake.loss(saved=[Tensor(9)], during=waited_for.step).backward()
        followed.loop.before_oom_dump()
        # Now, since a step that is not kept takes along what was noted in it.
        assert [followed.rows(table) for table in ("saved", "annotations", "replica_forwards")] == [[], [], []]
        assert {row["step"] for row in followed.rows("owners")} == {0}
        # Whoever made a source run, this is no step that was asked for.
        followed.sources.recording = True
        program.optimizer.step()
    assert followed.steps() == [0, 1, 2, 3]
    assert [record["recorded"] for record in followed.written("step")] == [True, False, False, False]


def test_a_step_without_a_running_source_is_not_recorded(followed: Followed, program: Program) -> None:
    program.model()
    followed.sources.pause()
    program.pass_once()
    program.optimizer.step()
    assert [record["recorded"] for record in followed.written("step")] == [True, False]


def test_the_end_of_a_step_is_told_and_made_safe(followed: Followed, program: Program) -> None:
    told: list[int] = []
    followed.loop.on_window = lambda: told.append(followed.loop.step)
    program.step()
    assert told == [1, 2]
    assert followed.spool.num_flushes == 2
    assert followed.window.chunk.step == 2


def test_work_of_our_own_is_counted_for_the_step_that_it_delays(followed: Followed, program: Program) -> None:
    program.pass_once()
    followed.window.spent_ns = long_ns = 10**15
    program.optimizer.step()
    assert followed.written("step")[-1]["recording_ns"] >= long_ns
    # What the end of the step itself took delays the next one.
    assert 0 < followed.window.spent_ns < long_ns


class Watched(Tensor):
    """A parameter that notes whether events were recorded when somebody asked for its storage."""

    def __init__(self, followed: Followed) -> None:
        super().__init__(2)
        self._followed = followed
        self.was_recording: list[bool] = []

    def untyped_storage(self) -> Any:
        """Return the storage."""
        self.was_recording.append(self._followed.sources.recording)
        return super().untyped_storage()


@pytest.mark.parametrize("steps", ["1-", "5"])
def test_owners_are_looked_for_in_the_window_while_no_events_are_recorded(follow: Follow, steps: str) -> None:
    followed = follow(steps=steps)
    program, watched = Program(followed.fake), Watched(followed)
    model = followed.fake.model_class("Watched")(weight=watched)
    program.step()
    model()
    # Who keeps what is looked for from the program's variables on, which it is one of here: not while events are taken.
    assert True not in watched.was_recording
    watched.was_recording.clear()
    program.step()
    assert set(watched.was_recording) == ({False} if followed.window.is_open else set())


def test_a_walk_of_the_graph_is_work_of_our_own(followed: Followed, program: Program) -> None:
    program.model()
    followed.sources.pause()
    before = len(followed.rows("own_work"))
    program.fake.loss(saved=[Tensor(9)]).backward()
    assert len(followed.rows("own_work")) == before + 1


def test_the_status_tells_which_step_has_ended(followed: Followed, program: Program, tmp_path: Path) -> None:
    program.step()
    program.step()
    (file,) = tmp_path.glob(f"*{STATUS_SUFFIX}")
    told = json.loads(file.read_text())
    assert (told["step"], told["ended_step"]) == (3, 2)


# Python frames


def frames_during(followed: Followed, work: Any) -> bool:
    """Return whether frames are recorded after something."""
    work()
    return bool(followed.sources.has_frames_on)


def test_frames_are_recorded_from_a_forward_to_the_next_data(followed: Followed, program: Program) -> None:
    loader = followed.fake.DataIterator(lambda: followed.sources.has_frames_on)
    assert frames_during(followed, program.model)
    assert frames_during(followed, program.fake.loss(saved=[Tensor(9)]).backward)
    assert loader.__next__() is False
    with followed.fake.world.no_grad():
        assert frames_during(followed, program.model)


def test_the_walk_of_the_graph_is_not_recorded(followed: Followed, program: Program) -> None:
    program.model()
    seen = []
    walk = followed.loop._saved.rows
    followed.loop._saved.rows = lambda *args, **facts: [  # type: ignore[method-assign]
        seen.append(followed.sources.has_frames_on),
        walk(*args, **facts),
    ][1]
    program.fake.loss(saved=[Tensor(9)]).backward()
    assert seen == [False]


@pytest.mark.parametrize(("sharded", "has_state"), [(True, False), (True, True), (False, False)])
def test_the_first_step_of_an_optimizer_on_shards_is_not_recorded_with_frames(
    followed: Followed, program: Program, sharded: bool, has_state: bool
) -> None:
    if sharded:
        program.weight._local_tensor = Tensor(3)  # type: ignore[attr-defined]
    if has_state:
        program.optimizer.state[program.weight] = {"momentum": Tensor(3)}
    program.model()
    seen = []
    program.optimizer.update = lambda: seen.append(followed.sources.has_frames_on)
    program.optimizer.step()
    assert seen == [not sharded or has_state]


def test_a_long_chunk_is_written_when_a_model_has_returned(followed: Followed, program: Program) -> None:
    program.model()
    followed.sources.is_profiler, followed.window.chunk.start_ns = True, 0
    program.model()
    assert followed.window.chunk.reason == "ring"


def test_a_model_is_looked_at_once_more_before_its_forward(followed: Followed, program: Program) -> None:
    seen: list[int] = []
    followed.loop.on_root = lambda: seen.append(followed.loop.step)
    program.model()
    with followed.fake.world.no_grad():
        program.model()
    assert seen == [0, 1]


# Replicas, ranges, autocast


def test_forwards_of_a_replica_are_noted_with_their_microbatch(followed: Followed, program: Program) -> None:
    replica = followed.fake.Replicated(inside=program.model)
    replica()
    for synchronizes in (False, True):
        replica.require_backward_grad_sync = synchronizes
        replica()
        followed.fake.loss().backward()
    with followed.fake.world.no_grad():
        replica()
    noted = [(row["step"], row["microbatch"], row["synchronizes"]) for row in followed.rows("replica_forwards")]
    assert noted == [(1, 0, True), (1, 0, False), (1, 1, True)]


def test_named_ranges_are_noted(followed: Followed) -> None:
    with followed.fake.Range("outer"), followed.fake.Range("inner"):
        pass
    assert [row["name"] for row in followed.rows("annotations")] == ["inner", "outer"]


def test_a_dtype_of_autocast_is_a_fact(followed: Followed, program: Program) -> None:
    followed.fake.world.autocast_dtype = "torch.bfloat16"
    program.model()
    assert followed.facts() == {"autocast_dtypes": ["bfloat16"]}


def test_a_torch_that_does_not_show_what_is_saved_is_followed_without_it(follow: Follow) -> None:
    followed = follow(FakeTorch(shows_saved=False))
    Program(followed.fake).pass_once(saved=[Tensor(9)])
    assert followed.warnings() == ["saved-missing"]
    assert not followed.loop.finds_saved_tensors
    assert followed.rows("saved") == []
    assert followed.phases() == expected(1, 0, "forward", "backward")


def test_chunks_are_numbered_without_a_gap(followed: Followed, program: Program) -> None:
    for _ in range(3):
        program.step()
    numbers = sorted(followed.spool.chunks)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 3
    # A reader tells by the number in the record, not by the name, that one is missing.
    assert [followed.spool.chunks[number][0]["number"] for number in numbers] == numbers


@pytest.mark.parametrize(("has_columns", "is_native"), [(False, False), (True, False), (False, True)])
def test_a_chunk_is_written_if_there_are_columns_or_a_dump_of_torch(
    followed: Followed, has_columns: bool, is_native: bool
) -> None:
    batch = EventBatch("fake", is_native=is_native)
    batch.columns = {"time_ns": [1]} if has_columns else {}
    followed.sources.drain = lambda _path, *, keep, final: batch
    followed.window.drain("switch")
    assert bool(followed.spool.chunks) == (has_columns or is_native)
