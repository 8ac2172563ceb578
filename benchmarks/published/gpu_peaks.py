"""Peaks that others measured on GPUs, and the programs that they are of; both lie beside the checkout."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHARED = Path(__file__).resolve().parents[3] / "shared"


@dataclass(frozen=True, kw_only=True)
class MeasuredPeak:
    """A measured peak and the program that it is of."""

    name: str
    gpu: str
    """As the table names it: T4."""
    command: tuple[str, ...]
    allocated_bytes: int | None
    reserved_bytes: int
    """Of the rows that NVML measured: by how much the process grew."""

    @property
    def kind(self) -> str:
        """The source of the row, as its name begins."""
        return self.name.partition("-")[0]


def measured_peaks() -> Iterator[MeasuredPeak]:
    """Yield every row of the table."""
    with (SHARED / "data" / "published" / "gpu_peaks.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield MeasuredPeak(
                name=row["id"],
                gpu=row["gpu"],
                command=command_of(row["id"]),
                allocated_bytes=int(row["true_allocated"]) if row["true_allocated"] else None,
                reserved_bytes=int(row["true_reserved"] or row["true_process"]),
            )


def command_of(name: str) -> tuple[str, ...]:
    """Return the program of a row and its arguments.

    >>> command_of("xllm-opt-125m-AdamW-38")[1:]
    ('--model', 'opt-125m', '--opt', 'AdamW', '--batch', '38')
    >>> command_of("lora-SmolLM2-135M-sdpa-b2-s512")[1:]
    ('--model', 'SmolLM2-135M', '--batch', '2', '--seq', '512', '--attn', 'sdpa')
    """
    folder = SHARED / "cases" / "predict" / "published"
    if found := re.fullmatch(r"x(cnn|llm)-(.+)-([A-Za-z]+)-(\d+)", name):
        kind, model, optimizer, batch = found.groups()
        return (str(folder / f"xmem_{kind}.py"), "--model", model, "--opt", optimizer, "--batch", batch)
    found = re.fullmatch(r"(pf|lora)-(.+?)(?:-(sdpa|eager))?-b(\d+)-s(\d+)", name)
    assert found is not None, name
    kind, model, attention, batch, length = found.groups()
    sizes = ("--model", model, "--batch", batch, "--seq", length)
    if kind == "lora":
        return (str(folder / "lora_row.py"), *sizes, "--attn", attention)
    return (str(folder / "preflight_row.py"), *sizes, "--bf16")
