"""Commits of the user's repository: which lie between two, what one changed, and a worktree of each, removed again.

Only git is asked. The user's own working tree, index and branches stay as they are.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from memtrace.errors import MemtraceError

_HUNK = re.compile(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@")
_TREE = "tree"


class Repository:
    """The repository that a folder lies in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.top = Path(self._git("rev-parse", "--show-toplevel"))
        """Its top folder."""
        self.below = Path(os.path.relpath(folder.resolve(), self.top.resolve()))
        """The folder, from the top: where the program is started in each worktree."""

    def commit(self, name: str) -> str:
        """Return the whole hash of a commit, branch or tag.

        Raises:
            MemtraceError: there is none.
        """
        return self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", what=name)

    def between(self, good: str, bad: str) -> list[str]:
        """Return the commits after one up to another, oldest first; of what was merged, the merges.

        Raises:
            MemtraceError: the first is no ancestor of the second.
        """
        base = self._git("merge-base", good, bad, what=f"{good} and {bad}")
        if base != good or good == bad:
            raise MemtraceError(
                f"{good[:12]} is not an ancestor of {bad[:12]}",
                hint="GOOD is the older one: memtrace bisect v1.0 HEAD -- python train.py",
                slug="bisect-range",
            )
        return self._git("rev-list", "--reverse", "--first-parent", f"{good}..{bad}").split()

    def merged(self, commit: str) -> str | None:
        """Return the second parent of a merge, `None` for any other commit."""
        parents = self._git("rev-list", "--parents", "-n", "1", commit).split()[1:]
        return parents[1] if len(parents) == 2 else None

    def merge_base(self, one: str, other: str) -> str:
        """Return the commit that two histories have in common."""
        return self._git("merge-base", one, other)

    def subject(self, commit: str) -> str:
        """Return the first line of a commit's message."""
        return self._git("log", "-1", "--format=%s", commit)

    def changes(self, before: str, after: str) -> dict[str, list[tuple[int, int]]]:
        """Return by path the stretches of lines, first and last, that differ in the second commit from the first."""
        found: dict[str, list[tuple[int, int]]] = {}
        path = None
        options = ("--unified=0", "--no-color", "--no-ext-diff", "--no-prefix")
        for line in self._git("diff", *options, before, after).splitlines():
            if line.startswith("+++ "):
                path = None if line == "+++ /dev/null" else line[4:].split("\t")[0]
            elif path is not None and (hunk := _HUNK.match(line)):
                first, count = int(hunk[1]), int(hunk[2] or 1)
                found.setdefault(path, []).append((first, first + count - 1))
        return found

    @contextlib.contextmanager
    def worktree(self, commit: str, folder: Path, links: Sequence[Path]) -> Iterator[Path]:
        """Check a commit out into `folder/tree`, with links to files that git does not know, and remove it again."""
        tree = folder / _TREE
        self._git("worktree", "add", "--detach", "--force", str(tree), commit)
        try:
            for link in links:
                self._link(link, tree)
            yield tree
        finally:
            with contextlib.suppress(MemtraceError):
                self._git("worktree", "remove", "--force", "--force", str(tree))
            shutil.rmtree(tree, ignore_errors=True)
            with contextlib.suppress(MemtraceError):
                self._git("worktree", "prune")

    def _link(self, path: Path, tree: Path) -> None:
        target = Path(os.path.abspath(self._folder / path))
        inside = os.path.relpath(target, self.top.resolve())
        place = tree / inside
        if inside.startswith(os.pardir) or not target.exists():
            raise MemtraceError(f"--link {path}: not in the repository, or not there")
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(target)

    def _git(self, *words: str, what: str | None = None) -> str:
        try:
            done = subprocess.run(
                ["git", *words],
                cwd=self._folder,
                capture_output=True,
                text=True,
                errors="surrogateescape",
                check=False,
                # What a hook or an outer git command says of its own repository is not about this one.
                env={name: one for name, one in os.environ.items() if not name.startswith("GIT_")},
            )
        except OSError as error:
            raise MemtraceError(f"git cannot be run: {error.strerror or error}", slug="bisect-range") from None
        if done.returncode:
            said = next(iter(reversed(done.stderr.strip().splitlines())), f"no commit {what or words[-1]!r}")
            raise MemtraceError(f"git {words[0]}: {said}", slug="bisect-range")
        return done.stdout.strip()


@contextlib.contextmanager
def folder_for_worktrees() -> Iterator[Path]:
    """Give a temporary folder; each worktree lies at the same place in it, so that stacks name the same files."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="memtrace-bisect-")))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def command_inside(command: Sequence[str], repository: Repository, tree: Path) -> list[str]:
    """Return a command with what names files of the repository naming those of a worktree, where it has them.

    A program that git does not know, as the Python of an environment, stays where it is.
    """
    top, here = repository.top.resolve(), tree / repository.below
    words = []
    for at, word in enumerate(command):
        path = Path(os.path.abspath(repository.top / repository.below / word))
        is_named = os.path.isabs(word) and path.is_relative_to(top) and (tree / path.relative_to(top)).exists()
        if is_named:
            words.append(str(tree / path.relative_to(top)))
        elif at == 0 and os.sep in word and not os.path.isabs(word) and not (here / word).exists():
            words.append(str(path))
        else:
            words.append(word)
    return words


def python_path(tree: Path, inherited: str | None) -> str:
    """Return PYTHONPATH with a worktree first: the package that is installed for editing is the user's own tree."""
    own = [str(one) for one in (tree, tree / "src") if one.is_dir()]
    return os.pathsep.join([*own, *([inherited] if inherited else [])])
