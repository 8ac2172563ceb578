"""Documentation is tested: generated pages are up to date, everything public is described, links lead somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from memtrace.cli import COMMANDS, group

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "samples/README.md"])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def load(name: str) -> click.Command:
    """Return a command of the command line."""
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command


def test_generated_pages_are_up_to_date() -> None:
    # In a process of its own: click remembers the help option of the first context that a command was used in.
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run `make docs`"


def test_the_site_names_every_page_in_its_order() -> None:
    named = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    pages = [page.relative_to(ROOT).as_posix() for page in PAGES]
    assert [page for page in pages if f"- {page}\n" not in named] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_its_options_are_documented(name: str) -> None:
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    section = page.partition(f"## memtrace {name}\n")[2].partition("\n## ")[0]
    options = [option for option in load(name).params if isinstance(option, click.Option)]
    assert options
    assert [option.opts[0] for option in options if option.opts[0] not in section] == []
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_an_example_and_the_short_help_of_the_table(name: str) -> None:
    command = load(name)
    assert command.help is not None
    assert "Example:" in command.help
    assert command.help.partition("\n\n")[0].replace("\n", " ") == COMMANDS[name].short_help


@pytest.mark.parametrize("path", sorted((ROOT / "memtrace").rglob("*.py")), ids=lambda path: path.stem)
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert undocumented(tree, path.stem) == []


def undocumented(node: ast.Module | ast.ClassDef, name: str) -> list[str]:
    """Return the public modules, classes, functions and methods in a tree that have no docstring."""
    missing = [] if ast.get_docstring(node) else [name]
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not child.name.startswith("_"):
            if isinstance(child, ast.ClassDef):
                missing += undocumented(child, f"{name}.{child.name}")
            elif not ast.get_docstring(child):
                missing.append(f"{name}.{child.name}")
    return missing


def test_missing_docstrings_are_found() -> None:
    source = '"""m"""\nclass A:\n    """a"""\n    def f(self): ...\n    def _g(self): ...\ndef h(): ...\nclass B: ...'
    assert undocumented(ast.parse(source), "m") == ["m.A.f", "m.h", "m.B"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not target_exists(page, link)] == []


def target_exists(page: Path, link: str) -> bool:
    """Return whether a link leads to a file and, if it names one, to a heading in it."""
    name, _, anchor = link.partition("#")
    target = (page.parent / name) if name else page
    if not target.exists():
        return False
    return not anchor or anchor in {slug(line) for line in target.read_text(encoding="utf-8").splitlines()}


def slug(line: str) -> str | None:
    """Return the anchor that GitHub gives a heading; None for another line.

    >>> slug("## What it cannot see"), slug("text")
    ('what-it-cannot-see', None)
    """
    if not line.startswith("#"):
        return None
    return re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")


def test_readme_shows_the_two_commands_and_a_picture_on_the_first_screen() -> None:
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:20]
    text = "\n".join(first_screen)
    assert "memtrace record" in text
    assert "memtrace report" in text
    assert "![" in text


def test_changelog_has_a_place_for_what_is_not_released() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
