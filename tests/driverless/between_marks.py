"""What a program on a driverless device asks for between two marks."""

from __future__ import annotations

MARKED = """
import json, torch
MARK = 3_000_001
torch.cuda.memory._record_memory_history(max_entries=10_000_000, stacks="python", context=None)

def mark():
    torch.empty(MARK, dtype=torch.uint8, device="cuda")

def between_marks():
    groups, inside = [], None
    for event in torch.cuda.memory._snapshot()["device_traces"][0]:
        if event["action"] == "alloc":
            if event["size"] == MARK:
                inside = [] if inside is None else groups.append(inside)
            elif inside is not None:
                inside.append(event["size"])
    return groups
"""
"""Stands before a program, which calls `mark` before and after each piece; `between_marks` returns a list of the bytes
of each request for each piece, in order."""
