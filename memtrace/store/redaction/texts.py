"""Texts of a trace without paths, and without the words that a trace is known to hold of a person.

A name (of a module, a range, a kernel) is left alone but for paths from a root; a sentence loses every file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from memtrace.schema.redaction import HIDDEN, Redaction

_CODE = r"(?:py|pyx|ipynb|cpp|cuh|hpp|json|gz|pickle|pkl|yaml|yml|toml)"
# A parameter may end like these: T5 has a `SelfAttention.o`. Only in a folder, or with a line, is it a file.
_SHORT = r"(?:c|cc|cu|h|o|pt|sh|so)"
# Not after a letter, or `1/2` and `GiB/s` were paths; not a lone slash.
_FROM_ROOT = re.compile(r"(?<![\w.)\]/\\…])(?:~\w*|\.{0,2}|[A-Za-z]:)[/\\][^\s'\",;()<>\]}]+")
_NAMED = r"(?<![\w./\\])(?:[\w.\-]+[/\\])"
_FILE = re.compile(
    rf"{_NAMED}*[\w.\-]+\.{_CODE}\b(?!\.\w)(?::\d+)?|{_NAMED}*[\w.\-]+\.{_SHORT}:\d+|{_NAMED}+[\w.\-]+\.{_SHORT}\b(?!\.\w)"
)
_CALL = re.compile(r"(?P<file>.+\.py)\((?P<line>\d+)\): (?P<function>.+)", re.DOTALL)
"""How a profile names a Python function."""
_PART = re.compile(r"\b(?P<rank>rank\d{5,}|process)-[\w\-]+?-\d+-[0-9a-f]{4,8}(?![\w\-])")
"""How a file of a recording is named: after the host, between rank and process."""
_HOME = re.compile(r"(?:^|[/\\])(?:home|Users|users)[/\\](?P<user>[^/\\\s'\"]+)")
_EVERYBODY = frozenset({"home", "root", "user", "users", "ubuntu", "admin", "runner", "jovyan", "shared", "public"})
"""Users who are nobody in particular."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Takes out of texts what is not to be seen."""

    redaction: Redaction
    """What is left out."""
    file_name: Callable[[str], str]
    """What a file of a stack is called."""
    words: re.Pattern[str] | None = None
    """Names of hosts and users that the trace holds."""
    spaced_files: tuple[str, ...] = ()
    """Files of stacks with a space in their path, which ends no path elsewhere."""

    def name(self, text: str) -> str:
        """Return the name of a module, a range, a kernel without a path."""
        call = _CALL.fullmatch(text)
        if call is not None:
            if self.redaction is Redaction.SOURCE:
                return call["function"]
            return f"{self.file_name(call['file'])}({call['line']}): {call['function']}"
        return self._without_words(_FROM_ROOT.sub(self._path, text))

    def sentence(self, text: str) -> str:
        """Return a sentence, or the value of a setting, without a path or a file."""
        text = _PART.sub(r"\g<rank>", text)
        for file in self.spaced_files:
            text = text.replace(file, HIDDEN)
        text = _FROM_ROOT.sub(self._path, text)
        if self.redaction is Redaction.SOURCE:
            text = _FILE.sub(HIDDEN, text)
        else:
            text = _FILE.sub(lambda found: re.split(r"[/\\]", found[0])[-1], text)
        return self._without_words(text)

    def value(self, value: Any) -> Any:
        """Return a JSON value with every text in it as a sentence."""
        if isinstance(value, str):
            return self.sentence(value)
        if isinstance(value, Mapping):
            return {self.name(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def settings(self, text: str) -> str:
        """Return a JSON document as `value` does; none where it is damaged."""
        try:
            return json.dumps(self.value(json.loads(text)), sort_keys=True)
        except (ValueError, RecursionError):
            return "{}"

    def _path(self, found: re.Match[str]) -> str:
        """Return a path: of code its file, of anything else nothing."""
        last = re.split(r"[/\\]", found[0])[-1]
        is_code = self.redaction is Redaction.PERSONAL and _FILE.fullmatch(last) is not None
        return last if is_code else HIDDEN

    def _without_words(self, text: str) -> str:
        return text if self.words is None else self.words.sub(HIDDEN, text)


def words_of(hosts: Iterable[str], paths: Iterable[str]) -> re.Pattern[str] | None:
    """Return what finds the names of these hosts, and of the users in whose folders these paths lie.

    >>> words_of(["node-7.lab"], ["/home/amelie/t.py", "/root/t.py"]).sub("…", "amelie on node-7, not node-70.h")
    '… on …, not node-70.h'
    """
    labels = {label for host in hosts for label in (host, host.partition(".")[0])}
    users = {found["user"] for path in paths for found in _HOME.finditer(path)}
    words = {one for one in labels | users if len(one) > 3 and one.lower() not in _EVERYBODY and one != "localhost"}
    if not words:
        return None
    longest_first = sorted(words, key=lambda one: (-len(one), one))
    # Not the part of a longer name: a module may be called like a host.
    return re.compile(rf"(?<![\w.\-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w\-]|\.\w)")
