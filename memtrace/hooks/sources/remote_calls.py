"""Calls between processes (`torch.distributed.rpc`), whose C++ side says once that a profiler runs at a call.

The line would be ours, on the stderr of a program that profiles nothing. It is spent on a call to a worker that there
is not, which ends before anything is sent.
"""

from __future__ import annotations

import sys
from typing import Any

from memtrace.hooks.sources.cpu_profiler import CpuSource

_NOBODY = ("nobody-of-memtrace", 0)


def spend_warning(torch: Any, cpu: CpuSource) -> None:
    """Let torch say it now, unheard; an agent must have been started. Nothing happens where torch has no such calls."""
    calls: Any = sys.modules.get("torch._C._distributed_rpc") or getattr(torch._C, "_distributed_rpc", None)
    if not hasattr(calls, "_invoke_rpc_python_udf"):
        return
    nobody = calls.WorkerInfo(*_NOBODY)
    cpu.unheard(lambda: _fail(calls, nobody))


def _fail(calls: Any, worker: Any) -> None:
    try:
        calls._invoke_rpc_python_udf(worker, "", [], 0.0, False)
    except RuntimeError:
        # There is no such worker.
        return
