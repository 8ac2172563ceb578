"""What a shared library takes from others, and the words it holds: read from its ELF file, without tools.

In: a file. Out: names of undefined symbols, with the library and version that each must come from where that is said.
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from memtrace.errors import MemtraceError

_UNDEFINED_SECTION = 0
_DYNAMIC_SYMBOLS, _DYNAMIC, _VERSIONS_NEEDED, _VERSIONS = 11, 6, 0x6FFFFFFE, 0x6FFFFFFF
"""Types of sections."""
_NEEDED = 1
"""Tag of a dynamic entry that names a library."""
_HIDDEN = 0x8000
"""Bit of a symbol's version index that is not part of the number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbol:
    """A function that a library takes from another."""

    name: str
    library: str | None = None
    """File name of the library that it must come from; `None` where the file does not say."""
    version: str | None = None
    """Its version there."""


@dataclass(frozen=True, slots=True)
class _Section:
    name: int
    kind: int
    offset: int
    size: int
    link: int


class ElfFile:
    """One open shared library of x86-64 Linux."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            MemtraceError: it is no such file.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise MemtraceError(f"cannot read {path}: {error}") from error
        if self._bytes[:5] != b"\x7fELF\x02" or self._unpack("<H", 18) != (62,):
            raise MemtraceError(f"{path} is not a 64-bit library for x86-64 Linux")
        self._sections = self._read_sections()

    def close(self) -> None:
        """Let go of the file."""
        self._bytes.close()

    def needed(self) -> list[str]:
        """Return the file names of the libraries that it needs."""
        found = []
        for section in self._of_kind(_DYNAMIC):
            for at in range(section.offset, section.offset + section.size, 16):
                tag, value = self._unpack("<QQ", at)
                if tag == _NEEDED:
                    found.append(self._text(self._sections[section.link], value))
        return found

    def undefined(self) -> list[Symbol]:
        """Return the symbols that it takes from other libraries."""
        versions = self._needed_versions()
        indices = self._of_kind(_VERSIONS)
        found = []
        for table in self._of_kind(_DYNAMIC_SYMBOLS):
            for number in range(1, table.size // 24):
                name, _, _, section = self._unpack("<IBBH", table.offset + 24 * number)
                if section != _UNDEFINED_SECTION or not name:
                    continue
                index = self._unpack("<H", indices[0].offset + 2 * number)[0] & ~_HIDDEN if indices else 0
                library, version = versions.get(index, (None, None))
                text = self._text(self._sections[table.link], name)
                found.append(Symbol(name=text, library=library, version=version))
        return found

    def words(self, pattern: str) -> set[str]:
        """Return the strings among its constants that are wholly a pattern: names it may look up while it runs."""
        wanted = re.compile(rb"(?<=\0)(?:" + pattern.encode() + rb")(?=\0)")
        names = self._sections[self._unpack("<H", 62)[0]]
        found: set[str] = set()
        for section in self._sections:
            if self._text(names, section.name).startswith(".rodata"):
                data = self._bytes[section.offset : section.offset + section.size]
                found |= {one.decode() for one in wanted.findall(b"\0" + data)}
        return found

    def _read_sections(self) -> list[_Section]:
        (start,) = self._unpack("<Q", 40)
        size, count = self._unpack("<HH", 58)
        found = []
        for at in range(start, start + size * count, size):
            name, kind, _, _, offset, length, link = self._unpack("<IIQQQQI", at)
            found.append(_Section(name, kind, offset, length, link))
        return found

    def _needed_versions(self) -> dict[int, tuple[str, str]]:
        """Return library and version by the index that symbols have for it."""
        found = {}
        for section in self._of_kind(_VERSIONS_NEEDED):
            strings, at = self._sections[section.link], section.offset
            while True:
                _, count, file, first, following = self._unpack("<HHIII", at)
                one = at + first
                for _ in range(count):
                    _, _, index, name, further = self._unpack("<IHHII", one)
                    found[index & ~_HIDDEN] = (self._text(strings, file), self._text(strings, name))
                    one += further
                if not following:
                    break
                at += following
        return found

    def _of_kind(self, kind: int) -> list[_Section]:
        return [section for section in self._sections if section.kind == kind]

    def _text(self, strings: _Section, offset: int) -> str:
        start = strings.offset + offset
        return self._bytes[start : self._bytes.find(b"\0", start)].decode()

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(form, self._bytes, at)
        except struct.error as error:
            raise MemtraceError(f"{self.path} is cut off or damaged") from error
