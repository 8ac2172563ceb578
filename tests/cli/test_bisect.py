"""`memtrace bisect` on generated repositories, with predictions whose bytes each commit decides."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group
from memtrace.cli.predicting.runs import PredictedRuns
from memtrace.errors import RecordError
from memtrace.forecast.gpus import gpu_named
from memtrace.forecast.prediction.judge import placed_trace
from tests.document_schemas import validate
from tests.forecast.predicted_run import MIB, PARAMETER, RULE, predicted_trace

COMMITS, PLANTED = 40, 27
SMALL, LARGE = 60, 90
"""MiB of the activation before and after the planted commit."""


class Repo:
    """A repository of one file that says how much a run takes; "broken" is a program that fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.email", "a@b.c")
        self.git("config", "user.name", "A")

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, needs: int | str, subject: str) -> str:
        (self.folder / "needs.txt").write_text(f"{needs}\n# {subject}\n", encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", subject)
        return self.git("rev-parse", "HEAD")


pytestmark = pytest.mark.process


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    monkeypatch.chdir(tmp_path)
    return Repo(tmp_path)


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the worktree of each prediction held, in order; its bytes are what the file says."""
    seen: list[str] = []

    def simulated(self: Any, _gpu: Any, *, without_end: bool = False) -> Any:
        assert without_end, "what does not fit is compared as well"
        needs, subject = (self._cwd / "needs.txt").read_text(encoding="utf-8").splitlines()
        seen.append(subject.removeprefix("# "))
        if needs == "broken":
            raise RecordError("the program cannot be predicted: it ended with SyntaxError")
        return placed_trace(predicted_trace(int(needs) * MIB), gpu_named("a100-40gb"))

    monkeypatch.setattr(PredictedRuns, "predicted", simulated)
    return seen


def bisect(*words: str) -> Result:
    return CliRunner().invoke(group, ["bisect", "--engine", "meta", *words, "--", "python", "train.py"])


def document(*words: str) -> Any:
    result = bisect("--json", *words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    validate("bisect", found, exactly=True)
    return found


def history(repo: Repo, needs: Callable[[int], int | str], num: int = COMMITS) -> list[str]:
    return [repo.commit(needs(number), f"change {number}") for number in range(num)]


def test_the_planted_commit_of_forty_is_found_with_few_predictions(repo: Repo, predicted: list[str]) -> None:
    names = history(repo, lambda number: SMALL if number < PLANTED else LARGE)
    found = document(names[0], "HEAD")
    assert found["guilty"] == {"name": names[PLANTED], "subject": f"change {PLANTED}"}
    assert found["good"]["commit"] == names[PLANTED - 1]
    assert found["good"]["num_bytes"] == PARAMETER + SMALL * MIB + RULE
    assert found["bad"]["num_bytes"] - found["good"]["num_bytes"] == (LARGE - SMALL) * MIB
    assert found["num_commits"] == COMMITS - 1
    # Both ends, and a halving for each bit of the number of commits.
    assert len(predicted) <= 2 + (COMMITS - 1).bit_length()
    grown = found["diff"]["peak"]["delta_by_category"]
    assert sum(grown.values()) == (LARGE - SMALL) * MIB


def test_nothing_of_the_users_tree_is_touched(repo: Repo, predicted: list[str]) -> None:
    names = history(repo, lambda number: SMALL + 10 * number, 3)
    (repo.folder / "needs.txt").write_text("not committed\n", encoding="utf-8")
    document(names[0], names[-1])
    assert (repo.folder / "needs.txt").read_text(encoding="utf-8") == "not committed\n"
    assert repo.git("worktree", "list").count("\n") == 0
    assert repo.git("status", "--short").splitlines() == ["M needs.txt", "?? memtrace-bisect.state"]


def test_a_search_that_broke_off_goes_on(repo: Repo, predicted: list[str]) -> None:
    names = history(repo, lambda number: SMALL if number < 5 else LARGE, 9)
    first = document(names[0], "HEAD")
    before = list(predicted)
    again = document(names[0], "HEAD")
    assert again == first
    # Only the two runs that are shown side by side are made again.
    assert sorted(predicted[len(before) :]) == ["change 4", "change 5"]
    other = bisect("--metric", "reserved", names[0], "HEAD")
    assert other.exit_code == 1
    assert "another bisection" in other.stderr
    assert document("--force", "--metric", "reserved", names[0], "HEAD")["guilty"]["name"] == names[5]


def test_commits_that_cannot_be_predicted_are_passed_by(repo: Repo, predicted: list[str]) -> None:
    names = history(repo, lambda number: "broken" if 3 <= number <= 5 else SMALL if number < 3 else LARGE, 10)
    found = document(names[0], "HEAD")
    assert found["guilty"] is None
    assert [one["name"] for one in found["suspects"]] == names[3:7]
    assert any("SyntaxError" in (one["problem"] or "") for one in found["measured"])
    text = bisect(names[0], "HEAD").stdout
    assert text.startswith("One of these raised steady_peak from")


def test_a_commit_within_a_merge_is_named(repo: Repo, predicted: list[str]) -> None:
    start = repo.commit(SMALL, "start")
    repo.git("checkout", "--quiet", "-b", "feature")
    inner = [repo.commit(SMALL if number < 2 else LARGE, f"feature {number}") for number in range(4)]
    repo.git("checkout", "--quiet", "main")
    (repo.folder / "other.txt").write_text("x", encoding="utf-8")
    repo.git("add", "--all")
    repo.git("commit", "--quiet", "--message", "other")
    repo.git("merge", "--quiet", "--no-ff", "--message", "merge", "feature")
    assert document(start, "HEAD")["guilty"]["name"] == inner[2]


def test_the_threshold_says_where_bad_begins(repo: Repo, predicted: list[str]) -> None:
    names = history(repo, lambda number: SMALL + 8 * number, 6)
    sizes = [PARAMETER + (SMALL + 8 * number) * MIB + RULE for number in range(6)]
    for threshold, limit in (
        ("+10%", int(sizes[0] * 1.1)),
        (f"{sizes[2] + 1}", sizes[2] + 1),
        ("+14MiB", sizes[0] + 14 * MIB),
        (None, (sizes[0] + sizes[5]) // 2),
    ):
        found = document("--force", *(() if threshold is None else ("--threshold", threshold)), names[0], "HEAD")
        assert found["threshold_bytes"] == limit
        assert found["guilty"]["name"] == names[next(at for at, size in enumerate(sizes) if size > limit)]


def test_what_is_no_range_is_said_in_a_sentence(repo: Repo, predicted: list[str]) -> None:
    names = history(repo, lambda _number: SMALL, 3)
    for words, said in (
        ((names[0], names[2]), "no commit between raised it"),
        ((names[2], names[0]), "is not an ancestor"),
        ((names[0], "nowhere"), "nowhere"),
        (("--metric", "speed", names[0], names[2]), "speed"),
        (("--threshold", "+x%", names[0], names[2]), "+x%"),
    ):
        result = bisect("--force", *words)
        assert result.exit_code in (1, 2), result.output
        assert said in result.stderr
        assert "Traceback" not in result.stderr


def test_outside_a_repository_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    result = bisect("a", "b")
    assert result.exit_code == 1
    assert "not a git repository" in result.stderr
