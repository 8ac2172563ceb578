"""What each callback of torch means for phases, steps, microbatches and facts, told by a fake torch in milliseconds."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memtrace.schema.records import TRIGGER_FILE
from memtrace.schema.status import STATUS_SUFFIX
from tests.hooks.conftest import Follow
from tests.hooks.fake_torch import FakeTorch, Tensor
from tests.hooks.followed import Followed, in_thread

_TRAINING = ("forward", "backward", "optimizer")


class Program:
    """A model with one parameter and one optimizer, and the loop that trains them."""

    def __init__(self, fake: FakeTorch, *, optimized: bool = True) -> None:
        self.fake = fake
        self.weight = Tensor(3, 2)
        self.model = fake.model_class("Net")(weight=self.weight)
        self.optimizer = fake.optimizer_class("SGD")([self.weight], lr=0.1) if optimized else None

    def pass_once(self, **about: Any) -> None:
        """Run a forward and a backward."""
        self.model(Tensor(5))
        self.fake.loss(of=[self.weight], **about).backward()

    def step(self, num_microbatches: int = 1) -> None:
        """Run one step of gradient accumulation."""
        for _ in range(num_microbatches):
            self.pass_once()
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()


@pytest.fixture
def followed(follow: Follow) -> Followed:
    """A fake torch that is followed from before the program began, in every step."""
    return follow()


@pytest.fixture
def program(followed: Followed) -> Program:
    """A program on that torch."""
    return Program(followed.fake)


def expected(step: int, microbatch: int, *phases: str) -> list[tuple[str, int, int]]:
    """Return what `Followed.phases` gives for these phases of one microbatch."""
    return [(phase, step, microbatch) for phase in phases]


# Steps and microbatches


def test_a_step_is_a_forward_a_backward_and_an_optimizer_step(followed: Followed, program: Program) -> None:
    for _ in range(2):
        program.step()
    assert followed.phases() == expected(1, 0, *_TRAINING) + expected(2, 0, *_TRAINING)
    assert followed.steps() == [0, 1, 2]
    assert followed.loop.step == 3


def test_a_step_lasts_from_the_end_of_the_one_before_to_the_end_of_its_optimizer(
    followed: Followed, program: Program
) -> None:
    for _ in range(2):
        program.step()
    before, first, second = followed.written("step")
    ended = [row["end_ns"] for row in followed.rows("phases", phase="optimizer")]
    assert before["start_ns"] == followed.start_ns
    assert (first["start_ns"], first["end_ns"]) == (before["end_ns"], ended[0])
    assert (second["start_ns"], second["end_ns"]) == (ended[0], ended[1])
    assert [record["skipped"] for record in (before, first, second)] == [False] * 3


def test_forwards_and_backwards_before_an_optimizer_step_are_microbatches_of_one_step(
    followed: Followed, program: Program
) -> None:
    program.step(num_microbatches=3)
    passes = [row for number in range(3) for row in expected(1, number, "forward", "backward")]
    assert followed.phases() == [*passes, *expected(1, 2, "optimizer")]
    assert [record["num_microbatches"] for record in followed.written("step")] == [0, 3]


def test_a_forward_lasts_until_the_backward_begins(followed: Followed, program: Program) -> None:
    program.step()
    forward, backward = followed.rows("phases")[:2]
    assert forward["end_ns"] == backward["start_ns"]


def test_forwards_without_gradients_are_evaluation_and_count_for_nothing(followed: Followed, program: Program) -> None:
    with followed.fake.world.no_grad():
        program.model(Tensor(5))
    assert followed.steps() == []
    program.step()
    for _ in range(2):
        program.pass_once()
        with followed.fake.world.no_grad():
            program.model(Tensor(5))
    program.optimizer.step()
    assert [record["num_microbatches"] for record in followed.written("step")] == [0, 1, 2]
    evaluations = followed.rows("phases", phase="other")
    assert [(row["step"], row["detail"]) for row in evaluations] == [(0, "evaluation"), *[(2, "evaluation")] * 2]
    assert all(row["end_ns"] is not None for row in evaluations)


def test_an_evaluation_between_forward_and_backward_ends_with_its_model(followed: Followed, program: Program) -> None:
    program.model()
    with followed.fake.world.no_grad():
        program.model()
    program.model()
    assert followed.phases() == expected(1, 0, "forward", "other")
    assert followed.sources.chosen_by == ["Net"] * 2


def test_a_backward_before_any_forward_begins_training(followed: Followed, program: Program) -> None:
    program.fake.loss(of=[program.weight]).backward()
    assert followed.steps() == [0]
    assert followed.phases() == expected(1, 0, "backward")


def test_an_optimizer_step_before_any_forward_leaves_nothing_before_training(
    followed: Followed, program: Program
) -> None:
    program.optimizer.step()
    before, first = followed.written("step")
    assert before["start_ns"] == before["end_ns"] == first["start_ns"] == followed.start_ns


@pytest.mark.parametrize("differentiate", ["backward", "grad"])
def test_a_call_of_autograd_is_a_backward(followed: Followed, program: Program, differentiate: str) -> None:
    getattr(followed.fake.autograd, differentiate)(program.fake.loss())
    assert followed.phases() == expected(1, 0, "backward")


def test_a_backward_inside_a_backward_is_of_the_same_microbatch(followed: Followed, program: Program) -> None:
    inner = program.fake.loss(saved=[Tensor(7)])
    program.pass_once(saved=[Tensor(9)], during=inner.backward)
    assert followed.phases() == expected(1, 0, "forward", "backward", "backward")
    # What the inner graph keeps was made during backward: it is not what forward kept.
    assert [row["shape"] for row in followed.rows("saved")] == ["9"]


def test_without_an_optimizer_the_forward_after_a_backward_ends_a_step(followed: Followed) -> None:
    program = Program(followed.fake, optimized=False)
    program.model()
    for _ in range(3):
        program.step()
    assert followed.steps() == [0, 1, 2]


def test_a_second_backward_of_one_forward_ends_no_step(followed: Followed) -> None:
    program = Program(followed.fake, optimized=False)
    program.pass_once()
    program.fake.loss().backward()
    assert followed.steps() == [0]


def test_when_the_last_optimizer_is_gone_forwards_end_steps(followed: Followed, program: Program) -> None:
    program.step()
    program.optimizer = None
    gc.collect()
    for _ in range(2):
        program.step()
    assert followed.steps() == [0, 1, 2]


def test_a_forward_inside_the_loading_of_data_ends_no_step(followed: Followed) -> None:
    program = Program(followed.fake, optimized=False)
    program.step()
    next(SimpleIterator(followed.fake.DataIterator(program.model)))
    assert followed.steps() == [0]
    assert followed.phases(phase="data") == expected(1, 0, "data")


class SimpleIterator:
    """Makes an iterator of what has only `__next__`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __next__(self) -> object:
        return self._inner.__next__()


def test_a_closure_runs_forward_and_backward_inside_its_optimizer_step(followed: Followed, program: Program) -> None:
    for _ in range(2):
        program.optimizer.step(program.pass_once)
    nested = ("forward", "backward", "optimizer")
    assert followed.phases() == expected(0, 0, *nested) + expected(2, 0, *nested)
    assert followed.steps() == [0, 1, 2]


def test_marks_of_the_program_end_steps(followed: Followed, program: Program) -> None:
    followed.loop.steps.explicit = True
    program.step()
    program.step()
    assert followed.steps() == [0]
    followed.loop.steps.mark(followed.start_ns + 1)
    assert [record["end_ns"] for record in followed.written("step")][1:] == [followed.start_ns + 1]


# Optimizers


def test_with_two_optimizers_a_step_ends_when_both_have_stepped(followed: Followed, program: Program) -> None:
    second = followed.fake.optimizer_class("Adam")([Tensor(4)])
    for _ in range(2):
        program.step()
        second.step()
    assert followed.steps() == [0, 1, 2]
    assert [row["detail"] for row in followed.rows("phases", phase="optimizer")] == ["SGD", "Adam"] * 2
    assert [record["class_name"] for record in followed.written("optimizer")] == ["SGD", "Adam"]


def test_an_optimizer_that_steps_again_ends_the_step_that_waited_for_another(
    followed: Followed, program: Program
) -> None:
    waited_for = followed.fake.optimizer_class("Adam")([Tensor(4)])
    program.step()
    assert followed.steps() == [0]
    program.step()
    assert followed.steps() == [0, 1, 2]
    del waited_for


def test_a_new_optimizer_at_the_address_of_an_old_one_is_another(followed: Followed) -> None:
    seen: set[int] = set()
    while True:
        program = Program(followed.fake)
        if id(program.optimizer) in seen:
            break
        seen.add(id(program.optimizer))
        program.optimizer = None
        gc.collect()
    program.pass_once()
    program.pass_once()
    assert followed.steps() == [0]


def test_an_optimizer_that_was_freed_is_not_waited_for(followed: Followed, program: Program) -> None:
    second = followed.fake.optimizer_class("Adam")([Tensor(4)])
    del second
    gc.collect()
    program.step()
    assert followed.steps() == [0, 1]


def test_an_optimizer_made_before_the_recording_is_known_by_its_step(follow: Follow) -> None:
    fake = FakeTorch()
    program = Program(fake)
    followed = follow(fake)
    program.step(num_microbatches=2)
    program.step(num_microbatches=2)
    assert followed.steps()[-1] == followed.loop.step - 1
    assert followed.written("step")[-1]["num_microbatches"] == 2
    assert [record["class_name"] for record in followed.written("optimizer")] == ["SGD"]


def test_optimizers_are_described_before_the_first_step(followed: Followed, program: Program) -> None:
    program.model()
    (described,) = followed.written("optimizer")
    assert (described["num_parameters"], json.loads(described["options"])) == (6, {"lr": 0.1})


def test_an_optimizer_inside_backward_shows_the_gradient_that_it_frees(followed: Followed, program: Program) -> None:
    # One that does not step keeps the step, and the look at all owners at its end, away.
    waited_for = followed.fake.optimizer_class("Adam")([])
    program.model()
    program.weight.grad = gradient = Tensor(3, 2)

    def step_and_free() -> None:
        program.optimizer.step()
        program.optimizer.zero_grad()

    program.fake.loss(during=step_and_free).backward()
    seen = [(row["address"], row["name"], row["step"]) for row in followed.rows("owners", category="gradient")]
    assert seen == [(gradient.address, "weight", 1)]
    del waited_for


def test_an_optimizer_after_backward_shows_its_gradients_at_the_end_of_the_step_only(
    followed: Followed, program: Program
) -> None:
    waited_for = followed.fake.optimizer_class("Adam")([program.weight])
    program.pass_once()
    program.optimizer.step()
    assert followed.rows("owners", category="gradient") == []
    waited_for.step()
    assert [row["name"] for row in followed.rows("owners", category="gradient")] == ["weight"]


def test_an_optimizer_on_a_thread_of_autograd_is_followed(followed: Followed, program: Program) -> None:
    def step_in_backward() -> None:
        with program.fake.world.in_backward():
            program.optimizer.step()

    program.pass_once(during=lambda: in_thread(step_in_backward))
    assert followed.steps() == [0, 1]
    assert followed.warnings() == []


@pytest.mark.parametrize("call", [{}, {"set_to_none": True}, {"set_to_none": False}])
@pytest.mark.parametrize("owner", ["optimizer", "model"])
def test_only_gradients_that_are_set_to_zero_are_kept(
    followed: Followed, program: Program, owner: str, call: dict[str, bool]
) -> None:
    getattr(program, owner).zero_grad(**call)
    getattr(program, owner).zero_grad(*call.values())
    kept = not call.get("set_to_none", True)
    assert followed.facts() == ({"keeps_gradients": True} if kept else {})


def test_a_scaler_that_skips_ends_a_skipped_step(followed: Followed, program: Program) -> None:
    scaler = followed.fake.Scaler()
    for found_inf in (False, True, False):
        scaler.found_inf = found_inf
        program.pass_once()
        scaler.step(program.optimizer)
    assert [record["skipped"] for record in followed.written("step")] == [False, False, True, False]
    assert followed.facts() == {"uses_grad_scaler": True}


def test_a_scaler_that_is_disabled_is_none(followed: Followed, program: Program) -> None:
    program.pass_once()
    followed.fake.Scaler(enabled=False).step(program.optimizer)
    assert followed.facts() == {}
    assert followed.steps() == [0, 1]


def test_a_step_is_skipped_only_where_a_scaler_skips_all_its_optimizers(followed: Followed, program: Program) -> None:
    second, scaler = followed.fake.optimizer_class("Adam")([Tensor(4)]), followed.fake.Scaler()
    for skipped in ((True, False), (True, True), (False, True)):
        program.pass_once()
        for optimizer, found_inf in zip((program.optimizer, second), skipped, strict=True):
            scaler.found_inf = found_inf
            scaler.step(optimizer)
    assert [record["skipped"] for record in followed.written("step")] == [False, False, True, False]


def test_an_optimizer_that_a_scaler_skips_first_is_known_from_then_on(follow: Follow) -> None:
    fake = FakeTorch()
    program, scaler = Program(fake), fake.Scaler()
    followed = follow(fake)
    program.pass_once()
    scaler.found_inf = True
    scaler.step(program.optimizer)
    program.pass_once()
    program.pass_once()
    assert followed.steps() == [0, 1]


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
    assert watched.was_recording == []
    program.step()
    assert watched.was_recording == ([False] if followed.window.is_open else [])


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


def test_frames_are_recorded_from_a_training_forward_to_the_next_data(followed: Followed, program: Program) -> None:
    loader = followed.fake.DataIterator(lambda: followed.sources.has_frames_on)
    assert frames_during(followed, program.model)
    assert frames_during(followed, program.fake.loss(saved=[Tensor(9)]).backward)
    assert loader.__next__() is False
    with followed.fake.world.no_grad():
        assert not frames_during(followed, program.model)


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


# Checkpointing


def test_a_module_that_runs_again_in_backward_is_recomputed(followed: Followed) -> None:
    fake = followed.fake
    inside = fake.model_class("Inside")()
    block = fake.model_class("Block")(lambda: inside(), inside=inside)
    model = fake.model_class("Net")(lambda: block(), block=block)
    optimizer = fake.optimizer_class("SGD")([])
    for _ in range(2):
        model()
        fake.loss(during=block).backward()
    optimizer.step()
    both = [row for number in range(2) for row in expected(1, number, "forward", "recompute", "backward")]
    assert followed.phases() == [*both, *expected(1, 1, "optimizer")]
    again = [row["module"] for row in followed.rows("scopes", recompute=True)]
    assert again == ["block.inside", "block"] * 2
    assert [row["module"] for row in followed.rows("scopes", recompute=False)] == ["block.inside", "block", "Net"] * 2
    recomputed, scope = followed.rows("phases", phase="recompute")[0], followed.rows("scopes", recompute=True)[1]
    assert (recomputed["start_ns"], recomputed["end_ns"]) == (scope["start_ns"], scope["end_ns"])


# Errors


def fail() -> None:
    """Fail as a program does."""
    raise KeyError("the program's own")


@pytest.mark.parametrize("where", ["forward", "backward", "data"])
def test_a_loop_that_goes_on_after_an_error_is_followed_on(followed: Followed, program: Program, where: str) -> None:
    program.step()
    broken = followed.fake.model_class("Broken")(fail)
    work = {
        "forward": broken,
        "backward": followed.fake.loss(during=fail).backward,
        "data": followed.fake.DataIterator(fail).__next__,
    }
    with pytest.raises(KeyError):
        work[where]()
    program.step()
    assert followed.steps() == [0, 1, 2]
    assert followed.phases()[-2:] == [
        (phase, 2, row[2]) for phase, row in zip(_TRAINING[1:], followed.phases()[-2:], strict=True)
    ]
    assert not followed.loop._phases.inside


def test_a_program_that_ends_inside_a_step_leaves_that_step_without_an_end(
    followed: Followed, program: Program
) -> None:
    def end_inside() -> None:
        followed.loop.break_off()
        followed.loop.break_off()

    program.step()
    followed.fake.model_class("Net")(end_inside)()
    assert [(record["step"], record["end_ns"] is None) for record in followed.written("step")][1:] == [
        (1, False),
        (2, True),
    ]
    assert [(row["phase"], row["end_ns"]) for row in followed.rows("phases", step=2)] == [("forward", None)]
    assert followed.rows("scopes", step=2, end_ns=None) != []
    assert {row["category"] for row in followed.rows("owners", step=2)} == {"parameter", "optimizer_state"}


def test_a_program_that_ends_between_steps_leaves_no_further_step(followed: Followed, program: Program) -> None:
    program.step()
    followed.loop.break_off()
    assert followed.steps() == [0, 1]


def test_a_program_that_ends_before_training_leaves_no_step(followed: Followed, program: Program) -> None:
    with followed.fake.world.no_grad():
        followed.fake.model_class("Net")(followed.loop.break_off)()
    assert followed.steps() == []


def test_a_program_that_ends_inside_its_first_closure_leaves_no_step(followed: Followed, program: Program) -> None:
    program.optimizer.step(lambda: [program.pass_once(), followed.loop.break_off()])
    assert followed.steps() == [0, 1]
    assert [record["end_ns"] is None for record in followed.written("step")] == [False, False]


def test_a_program_that_ends_outside_the_window_looks_for_no_owners(follow: Follow) -> None:
    followed = follow(steps="5")
    program = Program(followed.fake)
    program.step()
    followed.loop.break_off()
    assert {row["step"] for row in followed.rows("owners")} == {0}


def test_an_out_of_memory_is_told_with_its_owners(followed: Followed, program: Program) -> None:
    program.model()
    in_thread(followed.loop.before_oom_dump)
    assert followed.rows("owners", step=1) == []
    followed.loop.before_oom_dump()
    assert [row["address"] for row in followed.rows("owners", step=1)] == [program.weight.address]


# Other threads


def test_a_loop_on_another_thread_is_not_followed(followed: Followed) -> None:
    def train() -> None:
        program = Program(followed.fake)
        replica = followed.fake.Replicated(inside=program.model)
        followed.loop.replicas.add(replica, step=0)
        scaler = followed.fake.Scaler()
        for found_inf in (False, True):
            with followed.fake.Range("theirs"):
                replica(Tensor(5))
            followed.fake.DataIterator(lambda: None).__next__()
            followed.fake.loss(saved=[Tensor(9)]).backward()
            scaler.found_inf = found_inf
            scaler.step(program.optimizer)

    in_thread(train)
    tables = ("phases", "owners", "saved", "annotations", "replica_forwards")
    assert {table: followed.rows(table) for table in tables} == {table: [] for table in tables}
    assert followed.steps() == []
    assert followed.warnings() == ["steps-on-other-thread"]
    assert followed.sources.chosen_by == []
    followed.loop.break_off()
    assert followed.rows("phases") == []


def test_another_thread_ends_nothing_of_the_loop(followed: Followed, program: Program) -> None:
    other = followed.fake.model_class("Other")()
    ended: list[object] = []
    ours = SimpleNamespace(range=followed.fake.Range("ours"))

    def meanwhile() -> None:
        other()
        followed.fake.loss().backward()
        followed.fake.DataIterator(lambda: None).__next__()
        ours.range.__exit__(None, None, None)
        followed.fake.Range("theirs").__enter__()

    with ours.range, followed.fake.world.no_grad():
        followed.fake.model_class("Net")(lambda: [in_thread(meanwhile), ended.extend(followed.phases())])()
        assert followed.rows("annotations") == []
    assert ended == []
    assert [row["name"] for row in followed.rows("annotations")] == ["ours"]
    assert followed.phases() == expected(0, 0, "other")
    program.pass_once(during=lambda: [in_thread(meanwhile), ended.extend(followed.phases(phase="backward"))])
    assert ended == []
    assert followed.phases()[1:] == expected(1, 0, "forward", "backward")
