"""Loops with several optimizers, each at a rhythm of its own: every iteration is a step, with all that is its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.hooks.conftest import Follow
from tests.hooks.fake_torch import FakeTorch, Tensor
from tests.hooks.followed import Program
from tests.hooks.read_back import loop_of, read_back

_PASS = ["forward", "backward", "optimizer"]


class Players:
    """Several models, each with an optimizer; a turn trains one of them."""

    def __init__(self, fake: FakeTorch, num_players: int) -> None:
        self.players = [Program(fake) for _ in range(num_players)]
        self.batches: list[tuple[int, int]] = []
        """Of each turn, in order: number of the iteration, and address of the batch."""

    def play(self, iterations: Sequence[Sequence[int]], draw: Callable[[], object] = lambda: None) -> None:
        """Let players take turns: in each iteration those of these numbers, after a batch was drawn."""
        for number, turns in enumerate(iterations, start=1):
            draw()
            for turn in turns:
                self.turn(number, self.players[turn])

    def turn(self, iteration: int, player: Program) -> None:
        """Train one model on a new batch, its gradients dropped before."""
        player.optimizer.zero_grad()
        batch = Tensor(5)
        self.batches.append((iteration, batch.address))
        player.model(batch)
        player.fake.loss(of=[player.weight]).backward()
        player.optimizer.step()


RHYTHMS = {
    "WGAN-GP: the critic always, the generator each third time": [[0, 1], [0], [0], [0, 1], [0], [0], [0, 1], [0]],
    "TD3: the actor comes late, each second time": [[0], [0, 1], [0], [0, 1], [0], [0, 1]],
    "both always": [[0, 1]] * 5,
    "one at first, and both from the third on": [[0], [0], [0, 1], [0, 1], [0, 1]],
    "both at first, and one from the third on": [[0, 1], [0, 1], [0], [0], [0]],
}
TOLD_BY_BATCHES = {
    "the rare one first": [[2, 0, 1], [0, 1], [0, 1], [0, 1], [2, 0, 1], [0, 1]],
    "the rare one first, and late": [[0], [1, 0], [0], [0], [1, 0], [0]],
    "one each iteration, in turns": [[0], [1], [0], [1], [0], [1]],
    **RHYTHMS,
}


def num_passes(read: dict[str, Any]) -> dict[int, int]:
    """Return of each step how many optimizers stepped, each after a forward and a backward."""
    found = loop_of(read)
    for phases in found.values():
        assert [name for name, _ in phases] == _PASS * (len(phases) // 3), found
    return {step: len(phases) // 3 for step, phases in found.items()}


@pytest.mark.parametrize("rhythm", RHYTHMS)
@pytest.mark.parametrize("steps", ["1-", "1-3,last2"])
def test_each_iteration_is_a_step(follow: Follow, tmp_path: Path, rhythm: str, steps: str) -> None:
    iterations = RHYTHMS[rhythm]
    followed = follow(steps=steps)
    players = Players(followed.fake, 1 + max(map(max, iterations)))
    players.play(iterations)
    read = read_back(followed, tmp_path / "read")
    rows = [row for row in read["steps"] if row["step"]]
    assert [row["step"] for row in rows] == list(range(1, len(iterations) + 1))
    assert all(row["end_ns"] > row["start_ns"] for row in rows)
    assert {row["num_microbatches"] for row in rows} == {1}
    kept = [row["step"] for row in rows if row["recorded"]]
    assert kept == [one for one in range(1, len(rows) + 1) if steps == "1-" or one <= 3 or one > len(rows) - 2]
    found = num_passes(read)
    assert [found[step] for step in kept] == [len(iterations[step - 1]) for step in kept]
    numbers = {step: sorted({number for _, number in phases}) for step, phases in loop_of(read).items()}
    assert all(numbers[step] == list(range(found[step])) for step in kept)


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_each_step_has_the_batches_and_scopes_of_its_iteration(follow: Follow, tmp_path: Path, rhythm: str) -> None:
    iterations = RHYTHMS[rhythm]
    followed = follow()
    players = Players(followed.fake, 1 + max(map(max, iterations)))
    players.play(iterations)
    read = read_back(followed, tmp_path / "read")
    inputs = [(row["step"], row["address"]) for row in read["owners"] if row["category"] == "input"]
    assert inputs == players.batches
    assert sorted(row["step"] for row in read["scopes"]) == sorted(number for number, _ in players.batches)


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_the_gradients_of_a_step_are_those_at_its_end(follow: Follow, tmp_path: Path, rhythm: str) -> None:
    iterations = RHYTHMS[rhythm]
    followed = follow()
    players = Players(followed.fake, 1 + max(map(max, iterations)))
    alive: list[set[int]] = []
    for number, turns in enumerate(iterations, start=1):
        for turn in turns:
            players.turn(number, players.players[turn])
        gradients = (player.weight.grad for player in players.players)
        alive.append({gradient.address for gradient in gradients if gradient is not None})
    read = read_back(followed, tmp_path / "read")
    ends = {row["step"]: row["end_ns"] for row in read["steps"]}
    for number, addresses in enumerate(alive, start=1):
        rows = [row for row in read["owners"] if (row["step"], row["category"]) == (number, "gradient")]
        assert {row["address"] for row in rows if row["time_ns"] >= ends[number]} == addresses


@pytest.mark.parametrize("rhythm", TOLD_BY_BATCHES)
def test_a_batch_that_is_drawn_begins_an_iteration(follow: Follow, tmp_path: Path, rhythm: str) -> None:
    iterations = TOLD_BY_BATCHES[rhythm]
    followed = follow()
    data = followed.fake.DataIterator(lambda: Tensor(5))
    Players(followed.fake, 1 + max(map(max, iterations))).play(iterations, draw=lambda: next(data))
    read = read_back(followed, tmp_path / "read")
    found = {step: [name for name, _ in phases if name != "data"] for step, phases in loop_of(read).items() if step}
    assert found == {step: _PASS * len(turns) for step, turns in enumerate(iterations, start=1)}


def test_a_window_opens_for_the_step_that_may_have_begun(follow: Follow, tmp_path: Path) -> None:
    followed = follow(steps="3-4")
    Players(followed.fake, 2).play([[0, 1], [0], [0], [0, 1], [0], [0]])
    read = read_back(followed, tmp_path / "read")
    assert [row["step"] for row in read["steps"] if row["recorded"]] == [0, 3, 4]
    assert {step: [name for name, _ in phases] for step, phases in loop_of(read).items() if phases} == {
        3: _PASS,
        4: _PASS * 2,
    }


def test_a_program_that_fails_early_in_a_step_leaves_the_one_before_whole(follow: Follow, tmp_path: Path) -> None:
    followed = follow()
    players = Players(followed.fake, 2)
    players.play([[0, 1], [0], [0], [0]])
    players.players[0].model(Tensor(5))
    read = read_back(followed, tmp_path / "read")
    assert [row["end_ns"] is None for row in read["steps"]] == [False] * 5 + [True]
    assert [name for name, _ in loop_of(read)[4]] == _PASS
    assert [name for name, _ in loop_of(read)[5]] == ["forward"]


def test_a_program_that_fails_in_the_second_half_of_its_first_step_has_one_step(follow: Follow, tmp_path: Path) -> None:
    followed = follow()
    players = Players(followed.fake, 2)
    players.play([[0]])
    players.players[1].model(Tensor(5))
    read = read_back(followed, tmp_path / "read")
    assert [(row["step"], row["end_ns"] is None) for row in read["steps"]] == [(0, False), (1, True)]
    assert [name for name, _ in loop_of(read)[1]] == [*_PASS, "forward"]
