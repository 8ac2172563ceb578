"""How torch calls modules, replaced by the program: the profiler's tracer of frames reads their `self`."""

from __future__ import annotations

from tests.process.programs.row import Row

WRAP = """
import functools, sys
real = torch.nn.Module.__call__

def timed(*args, **kwargs):
    return real(*args, **kwargs)

def of_anything(self, *args):
    return real(self, *args)

class Timed:
    def __get__(self, module, kind):
        return functools.partial(real, module)

def forgetful(self, *args):
    module = self
    del self
    return real(module, *args)
"""
ROWS = [
    Row(f"calls-wrapped-{name}-{when}", f"{WRAP}\n{before}\ntorch.nn.Module.__call__ = {how}\ntrain(3)")
    for name, how in (
        ("by-arguments", "functools.wraps(real)(timed)"),
        ("by-self", "of_anything"),
        ("by-an-object", "Timed()"),
        ("by-a-partial", "functools.partialmethod(real)"),
        ("by-one-that-deletes-self", "forgetful"),
    )
    for when, before in (("early", ""), ("late", "train(1)"))
    if name in ("by-arguments", "by-an-object") or when == "early"
]
