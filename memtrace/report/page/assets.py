"""Where the viewers lie and how their files become one page: text of a file, ES modules joined into one script.

A module that is loaded by URL fails from `file://`, so the modules are joined in the order of their imports. Three
rules make this a matter of lines, not of parsing: an import is one line, everything exported is declared with `export`
in front, and no two modules use one top-level name (tests/report/test_html.py checks them).
"""

from __future__ import annotations

import re
from pathlib import Path

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|const|let|class)", re.MULTILINE)


def viewers_folder() -> Path:
    """Return the folder of the viewers: in the package where memtrace is installed, else in the checkout.

    An editable install has no copy of them in the package, so that an edited viewer is the one that is used.
    """
    package = Path(__file__).resolve().parents[2]
    installed = package / "viewers"
    return installed if installed.is_dir() else package.parent / "viewers"


def viewer_text(name: str) -> str:
    """Return the text of one file of the viewers, with plain line ends (a browser hashes scripts that way)."""
    return (viewers_folder() / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def joined_modules(entry: str) -> str:
    """Return one module script that holds the module `entry` and all that it imports, each once, imports first."""
    texts: dict[str, str] = {}
    _gather(entry, texts)
    return "\n".join(f"// {name}.js\n{text}" for name, text in texts.items())


def _gather(name: str, texts: dict[str, str]) -> None:
    text = viewer_text(f"js/{name}.js")
    for imported in _IMPORT.findall(text):
        if imported not in texts:
            _gather(imported, texts)
    texts[name] = _EXPORT.sub("", _IMPORT.sub("", text))
