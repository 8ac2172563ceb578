"""memtrace: where did the bytes of a PyTorch training run go, why did it die, what to change.

`memtrace record -- python train.py` needs no change to a script. For those who can edit theirs:
`memtrace.start()`, `memtrace.step()`, `memtrace.stop()`, and `with memtrace.record("trace.json"):`.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

__all__ = ["__version__", "read", "record", "start", "step", "stop"]

# Lazily, since the recording half must not load pandas and the reading half must not load torch.
_LAZY = {
    "record": ("memtrace.api", "record"),
    "start": ("memtrace.api", "start"),
    "step": ("memtrace.api", "step"),
    "stop": ("memtrace.api", "stop"),
    "read": ("memtrace.reading", "read"),
    # What `%load_ext memtrace` asks a package for.
    "load_ipython_extension": ("memtrace.integrations.jupyter", "load_ipython_extension"),
}


def __getattr__(name: str) -> Any:
    """Return a public name, loading its part when it is first asked for (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)
