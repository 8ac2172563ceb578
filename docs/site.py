"""Put the site's sources together: `python docs/site.py FOLDER --demo demo/report.html`; `make site` runs it.

The pages keep their places in the repository, so that a link which leads somewhere there leads to the same on the site.
Files that pages link to come along; a link to a folder becomes text, since a site has no listing of it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ("*.md", "docs/**/*.md", "samples/*.md", "samples/recordings/*.md")
DEMO = """# A live demo

The page that `memtrace report --html` writes, of four steps of a small GPT on a CPU (`make demo`). It is one file that
needs no server: this frame shows the very file. [Open it alone](demo/report.html) for its keys, which `?` names.

<iframe src="demo/report.html" title="a report" style="width:100%;height:80vh;border:1px solid #8884"></iframe>
"""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.MULTILINE | re.DOTALL)


def main() -> int:
    """Write the folder; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the sources go; replaced if it is there")
    parser.add_argument("--demo", type=Path, required=True, help="a report, the live demo of the site")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    for page in pages():
        put(page, options.folder)
    (options.folder / "demo.md").write_text(DEMO, encoding="utf-8")
    demo = options.folder / "demo" / "report.html"
    demo.parent.mkdir()
    shutil.copyfile(options.demo, demo)
    return 0


def pages() -> Iterator[Path]:
    """Yield the pages of the repository."""
    for pattern in PAGES:
        yield from sorted(ROOT.glob(pattern))


def put(page: Path, folder: Path) -> None:
    """Write a page to its place in a folder, and the files that it links to."""
    target, text = folder / page.relative_to(ROOT), page.read_text(encoding="utf-8")
    target.parent.mkdir(parents=True, exist_ok=True)
    # There before its links are followed: pages link to one another.
    target.touch()
    parts = _CODE.split(text)
    # Every second part is code, in which nothing is a link.
    parts[::2] = [_LINK.sub(lambda match: followed(match, page, folder), part) for part in parts[::2]]
    target.write_text("".join(parts), encoding="utf-8")


def followed(match: re.Match[str], page: Path, folder: Path) -> str:
    """Return a link as it is on the site, and bring along what it leads to."""
    words, place = match[2], match[3]
    source = (page.parent / place).resolve()
    if not place or "://" in place or not source.exists():
        # A link that leads nowhere stays, for the build to complain of.
        return match[0]
    if source.is_dir():
        return words
    copy = folder / source.relative_to(ROOT)
    if source.suffix == ".md" and not copy.exists():
        put(source, folder)
    elif source.suffix != ".md":
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    return match[0]


if __name__ == "__main__":
    sys.exit(main())
