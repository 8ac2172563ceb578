"""`memtrace doctor`: what a bug report needs to say about the environment, as text or JSON.

torch is imported in another process, with a time limit: a torch that crashes or hangs is then a fact, not the end.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from importlib import metadata
from typing import Any

import click

from memtrace import __version__
from memtrace.cli.options.numbers import Number
from memtrace.errors import MemtraceError
from memtrace.schema.version import TRACE_VERSION

DEPENDENCIES = ("click", "numpy", "orjson", "pandas", "rich")
ENVIRONMENT = (
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_HIP_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
)
"""The environment variables whose values are shown. No others: values may be secrets."""

PROBE = """
import json, sys
from importlib import metadata

def say(**facts):
    print("\\nMEMTRACE " + json.dumps(facts), flush=True)

say(python=sys.version.split()[0])
try:
    say(version=metadata.version("torch"))
except metadata.PackageNotFoundError:
    sys.exit()
import torch
if len(sys.argv) > 1:
    sys.path.append(sys.argv[2])
    try:
        from memtrace.hooks.sources.cpu_allocator import WatchedCpuSource
        WatchedCpuSource(torch, sys.argv[1], stacks="python").end()
        say(cpu_events="cpu_allocator")
    except Exception as error:
        say(cpu_events=f"cpu_profiler: {error}")
say(imported=True, cuda_version=torch.version.cuda, hip_version=getattr(torch.version, "hip", None),
    memory_history=hasattr(torch.cuda.memory, "_record_memory_history"))
say(cuda_available=torch.cuda.is_available())
if torch.cuda.is_available():
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    say(allocator_backend=torch.cuda.get_allocator_backend(),
        devices=[{"name": one.name, "total_bytes": one.total_memory} for one in properties])
"""
"""Run by the Python under test. It says what it knows as it goes, so that a crash keeps what came before."""


@click.command()
@click.option("--python", default=sys.executable, metavar="PATH", help="The Python whose torch to look at.")
@click.option(
    "--timeout",
    type=Number(0.1, 86_400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long its torch may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(python: str, timeout: float, as_json: bool) -> None:
    """Show the environment, for a bug report.

    No environment variables are shown but a few that change how torch allocates memory.

    \b
    Example:
      memtrace doctor
      memtrace doctor --python ~/project/.venv/bin/python --json
    """
    facts = {
        "format": "memtrace-doctor",
        "version": 1,
        "memtrace": {"version": __version__, "trace_version": TRACE_VERSION},
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "platform": {"system": platform.platform(), "machine": platform.machine(), "num_cpus": os.cpu_count()},
        "dependencies": {name: installed_version(name) for name in DEPENDENCIES},
        "torch": torch_facts(python, timeout),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }
    click.echo(json.dumps(facts, indent=2) if as_json else "\n".join(text_lines(facts)))


def installed_version(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def torch_facts(python: str, timeout: float) -> dict[str, Any]:
    """Return what another Python process finds out about its torch; `version` is None where there is none.

    `cpu_events` is what would record the CPU: "cpu_allocator", or "cpu_profiler" and why.
    `problem` says in a sentence why the process did not get to its end, and is None if it did.
    """
    from memtrace.launch.command import PACKAGE_DIR
    from memtrace.launch.watch_library import compiled_watch

    command = [python, "-c", PROBE]
    facts: dict[str, Any] = {"version": None}
    try:
        command += [str(compiled_watch()), str(PACKAGE_DIR)]
    except MemtraceError as error:
        facts["cpu_events"] = f"cpu_profiler: {error.message}"
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except OSError as error:
        return {**facts, "problem": f"cannot run {python}: {error.strerror}"}
    except subprocess.TimeoutExpired as expired:
        # TimeoutExpired carries bytes even when text was asked for.
        said = expired.stdout.decode(errors="replace") if isinstance(expired.stdout, bytes) else ""
        return {**facts, **probe_facts(said), "problem": f"did not finish within {timeout:g} s"}
    return {**facts, **probe_facts(result.stdout), "problem": exit_problem(result.returncode, result.stderr)}


def probe_facts(output: str) -> dict[str, Any]:
    """Return the facts in what the probe printed; importing torch may have printed lines of its own."""
    facts: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith("MEMTRACE "):
            facts |= json.loads(line.removeprefix("MEMTRACE "))
    return facts


def exit_problem(returncode: int, stderr: str) -> str | None:
    """Return why a process failed, as its last line of standard error or its signal; None if it did not fail."""
    if returncode == 0:
        return None
    if returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    return (stderr.strip().splitlines() or [f"exit code {returncode}"])[-1]


def text_lines(facts: dict[str, Any]) -> list[str]:
    """Return the facts as lines of text, one section each."""
    lines: list[str] = []
    for section in ("memtrace", "python", "platform", "dependencies", "torch", "environment"):
        lines.append(f"{section}:")
        lines += [f"  {name}: {shown(value)}" for name, value in facts[section].items()] or ["  (nothing set)"]
    return lines


def shown(value: object) -> str:
    """Return a fact as text on one line."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)
