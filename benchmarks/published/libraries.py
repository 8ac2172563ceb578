"""The libraries that the sources of measured peaks ran, as each names them, and folders that hold them.

A prediction is one of the libraries that are installed. So the rows of a source run with that source's: folders that
pip fills without touching the Python, put before what it has (PYTHONPATH).
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Libraries:
    """What one source ran."""

    name: str
    """Of its folder."""
    kinds: tuple[str, ...]
    """Kinds of rows that it measured."""
    alone: tuple[str, ...] = ()
    """What pip installs without the packages that they ask for: torch runs without NVIDIA's."""
    whole: tuple[str, ...] = ()
    """What pip installs with the packages that they ask for."""
    over: str | None = None
    """Name of libraries of which these take the place of some: another that the source may have had."""
    says: str
    """Where it is from."""


LIBRARIES = (
    Libraries(
        name="xmem",
        kinds=("xcnn", "xllm"),
        alone=("torch==2.6.0", "torchvision==0.21.0"),
        whole=("transformers==4.51.3",),
        says="Stone-ResearchLife/xMem paper_container/config.py, exp_base_config: image pytorch/pytorch:2.6.0-cuda12.4-"
        "cudnn9-devel and transformers==4.51.3; README.md, Experiments: torch 2.6.0, torchvision 0.21.0",
    ),
    Libraries(
        name="fitcheck",
        kinds=("lora",),
        alone=("torch==2.14.0", "torchvision==0.29.0", "peft==0.20.0"),
        whole=("transformers==5.17.0",),
        says="fitcheck-llm 0.3.1 data/measurements/t4-sweep-2026-09-15.json, _provenance: torch 2.14.0+cu130, "
        "transformers 5.17.0, peft 0.20.0; no torchvision. Here the one that goes with torch 2.14, since "
        "transformers imports what it finds",
    ),
    Libraries(
        name="preflight",
        kinds=("pf",),
        alone=("torch==2.11.0", "torchvision==0.26.0"),
        whole=("transformers==5.13.1",),
        says="torch-preflight 0.5.0 tests/calibration/measured_peaks.json: torch 2.11.0+cu128, on Colab, in a release "
        "of 2026-08-13. transformers and torchvision by that date: googlecolab/backend-info pip-freeze.gpu.txt has "
        "5.13.1 and 0.26.0 with torch 2.11.0 from 2026-07-14 to 2026-08-13",
    ),
    Libraries(
        name="preflight-oldest",
        kinds=("pf",),
        over="preflight",
        whole=("transformers==5.9.0",),
        says="the same file: the oldest that Colab had with torch 2.11.0 for longer than a day, 2026-06-03",
    ),
    Libraries(
        name="preflight-newest",
        kinds=("pf",),
        over="preflight",
        whole=("transformers==5.15.0",),
        says="the same file: the newest that Colab had with torch 2.11.0, 2026-08-14 to 2026-08-19",
    ),
)


def of_kind(kind: str) -> list[Libraries]:
    """Return what the source of a kind of rows ran, then what it may have run instead.

    >>> [one.name for one in of_kind("lora")], [one.over for one in of_kind("pf")]
    (['fitcheck'], [None, 'preflight', 'preflight'])
    """
    return [one for one in LIBRARIES if kind in one.kinds]


def search_path(libraries: Libraries, folder: Path) -> str:
    """Return the value of PYTHONPATH under which a Python imports them from their folders.

    >>> search_path(of_kind("xllm")[0], Path("libraries"))
    'libraries/xmem'
    """
    under = [libraries.name] if libraries.over is None else [libraries.name, libraries.over]
    return ":".join(str(folder / name) for name in under)


def make(libraries: Libraries, folder: Path, python: str) -> None:
    """Let pip install them into their folder, if that is not there.

    Raises:
        subprocess.CalledProcessError: pip failed.
    """
    target = folder / libraries.name
    if target.exists():
        return
    begun = target.with_name(f"{target.name}.begun")
    for command in commands(libraries, begun, python):
        subprocess.run(command, check=True)
    begun.rename(target)


def commands(libraries: Libraries, target: Path, python: str) -> list[Sequence[str]]:
    """Return the commands of pip that fill a folder.

    >>> [" ".join(one[3:]) for one in commands(of_kind("xllm")[0], Path("f"), "python")]
    ['install --target f --no-deps torch==2.6.0 torchvision==0.21.0', 'install --target f transformers==4.51.3']
    """
    start = (python, "-m", "pip", "install", "--target", str(target))
    found = [(*start, "--no-deps", *libraries.alone)] if libraries.alone else []
    return [*found, (*start, *libraries.whole)] if libraries.whole else list(found)
