"""What Python lets a program set and see: hooks, tracers, warnings, garbage, threads, random numbers."""

from __future__ import annotations

from tests.process.programs.row import Row

RANDOM = """
import hashlib, random
import numpy
def states():
    texts = (repr(random.getstate()), repr(numpy.random.get_state()), repr(torch.get_rng_state().tolist()))
    print([hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts], torch.initial_seed())
random.seed(1); numpy.random.seed(2)
dropped = torch.nn.Sequential(model, torch.nn.Dropout(0.5))
for _ in range(3):
    train(1, at=lambda step: (random.random(), numpy.random.rand()))
    loss = dropped(torch.randn(2, 16)).sum(); loss.backward(); optimizer.step(); print(loss.item())
    states()
"""
GARBAGE = """
import gc, weakref
seen = []
gc.callbacks.append(lambda phase, info: seen.append(phase))
gc.disable(); train(3); print(gc.isenabled(), gc.get_threshold(), seen)
gc.enable(); gc.freeze(); frozen = gc.get_freeze_count() > 0; train(1); gc.unfreeze(); print(frozen)
gc.set_threshold(1, 1, 1); train(2); gc.set_threshold(700, 10, 10)
gc.set_debug(gc.DEBUG_SAVEALL); train(1); gc.set_debug(0); gc.garbage.clear()

class Told(torch.nn.Linear):
    def __del__(self):
        print("del of", self.name)

def make(name):
    told = Told(16, 16); told.name = name
    return told

for name in "ab":
    told = make(name)
    sgd = torch.optim.SGD(told.parameters(), lr=0.1)
    def told_of(one, what): return weakref.ref(one, lambda _: print("gone", what))
    references = [told_of(told, "model"), told_of(told.weight, "weight"), told_of(sgd, "optimizer")]
    out = told(torch.ones(1, 16)); loss = out.sum(); loss.backward(); sgd.step()
    references += [told_of(out, "output"), told_of(told.weight.grad, "gradient")]
    sgd.zero_grad(); print("zeroed")
    del out, loss; print("no loss")
    del told; print("no model")
    del sgd; print("no optimizer")
print([reference() is None for reference in references])
print([one.shape for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter)])
last = make("at exit")
"""
TRACERS = """
import os, threading
lines, calls = [], []
def trace(frame, event, arg):
    if frame.f_code.co_filename == __file__:
        lines.append((event, frame.f_lineno))
        return trace
def profile(frame, event, arg):
    if frame.f_code.co_filename == __file__ and not event.startswith("c_"):
        calls.append((event, frame.f_code.co_name))
files = set()
sys.settrace(lambda frame, event, arg: files.add(frame.f_code.co_filename))
train(2); sys.settrace(None)
# Tools that measure coverage open each.
print([name for name in files if not name.startswith("<") and not os.path.exists(name)])
sys.settrace(trace); threading.settrace(trace); train(2); print(sys.gettrace() is trace); sys.settrace(None)
sys.setprofile(profile); train(2); print(sys.getprofile() is profile); sys.setprofile(None)
print(lines, calls, sys.gettrace(), sys.getprofile())
train(1)
"""
PROFILERS = """
import cProfile, pstats, threading
from torch.profiler import profile, record_function, ProfilerActivity, schedule
train(1)
with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as own:
    with record_function("mine"):
        train(2)
rows = {row.key: row.count for row in own.key_averages()}
print(rows)
seen = []
def ready(one): seen.append(len(one.events()))
with profile(schedule=schedule(wait=1, warmup=1, active=2), on_trace_ready=ready) as own:
    train(4, at=lambda step: own.step())
print(seen)
with profile(with_stack=True, experimental_config=torch._C._profiler._ExperimentalConfig(verbose=True)) as own:
    train(1)
# A callback of ours is seen to begin; what it does is not.
print([event.name for event in own.events() if "memtrace/hooks" in event.name and ": guarded" not in event.name])
def elsewhere():
    with profile(profile_memory=True) as own: torch.ones(50) + 1
    print([(row.key, row.count) for row in own.key_averages()])
for _ in range(2):
    one = threading.Thread(target=elsewhere); one.start(); one.join(); train(1)
with torch.autograd.profiler.profile() as old:
    train(1)
print(len(old.function_events))
with torch.autograd.profiler.emit_itt(enabled=False), torch.autograd.set_multithreading_enabled(False):
    train(1)
calls = cProfile.Profile(); calls.runcall(train, 2)
print({name: stats[0] for (file, _, name), stats in pstats.Stats(calls).stats.items() if file == __file__})
train(2)
calls = cProfile.Profile()
handle = model.register_forward_hook(lambda *_: calls.enable())
train(1); handle.remove(); train(2); calls.disable()
print({name: stats[0] for (file, _, name), stats in pstats.Stats(calls).stats.items() if file == __file__})
def hook(frame, event, arg): pass
handle = model.register_forward_hook(lambda *_: sys.setprofile(hook))
train(1); handle.remove(); train(2); print(sys.getprofile() is hook); sys.setprofile(None)
"""
WARNINGS = """
import logging, warnings
def warn(step):
    warnings.warn("of the program"); warnings.warn("of a caller", stacklevel=3)
train(3, at=warn)
torch.compile(model, backend="eager"); train(1, at=warn)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    train(2, at=warn)
    torch.optim.lr_scheduler.StepLR(optimizer, 1).step()
print([(one.filename == __file__, one.lineno, str(one.message)[:30]) for one in caught])
warnings.simplefilter("error")
train(1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1); train(2); scheduler.step(); print(scheduler.get_last_lr())
logging.basicConfig(level=logging.DEBUG)
try:
    model(torch.ones(3, 3))
except RuntimeError:
    logging.exception("caught")
import traceback
for failing in (torch.ones(2).backward, lambda: optimizer.step(lambda: 1 / 0), lambda: torch.optim.SGD([], lr=1)):
    try:
        failing()
    except Exception:
        traceback.print_exc()
print(len(traceback.format_stack()))
import code
console = code.InteractiveInterpreter({"model": model, "torch": torch})
console.runsource("1 / 0")
console.runsource("model(torch.ones(3, 3))")
"""
THREADS = """
import asyncio, concurrent.futures, contextvars, threading
variable = contextvars.ContextVar("variable", default=0)

def work(number):
    own = torch.nn.Linear(8, 8); torch.nn.init.constant_(own.weight, number); torch.nn.init.zeros_(own.bias)
    sgd = torch.optim.SGD(own.parameters(), lr=0.1)
    given = torch.randn(2, 8, generator=torch.Generator().manual_seed(number))
    losses = []
    for _ in range(3):
        loss = own(given).sum(); loss.backward(); sgd.step(); losses.append(loss.item())
    return losses

async def looped():
    variable.set(3)
    train(1)
    await asyncio.sleep(0)
    got = await asyncio.get_running_loop().run_in_executor(None, work, 5)
    train(1)
    return got, variable.get()

train(1)
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    print(list(pool.map(work, range(3))))
print(asyncio.run(looped()), variable.get())
one = threading.Thread(target=train, args=(2,), daemon=True)
one.start(); one.join()
print([one.name for one in threading.enumerate() if one.name == "MainThread"], threading.active_count() < 4)
local = threading.local(); local.value = 1
timer = threading.Timer(0, print, ("timer",)); timer.start(); timer.join()
train(1)
"""
LOOKS = """
import inspect, logging, pickle, traceback, warnings
from torch.optim import SGD, Optimizer
from torch.autograd import backward, grad
from traceback import extract_stack as stack

class Shows(torch.nn.Linear):
    def forward(self, given):
        traceback.print_stack(); warnings.warn("of the caller", stacklevel=4)
        logging.warning("%s", sys._getframe(3).f_lineno, stacklevel=4, stack_info=True)
        return super().forward(given)

class ShowsBackward(torch.autograd.Function):
    @staticmethod
    def forward(context, given): return given * 1
    @staticmethod
    def backward(context, gradient): print([one.name for one in stack() if one.name != "wrapper"]); return gradient

class ShowsStep(SGD):
    def step(self): print([entry.name for entry in traceback.extract_stack()]); super().step()

for function in (backward, grad, Optimizer.__init__, SGD.zero_grad, torch.nn.Module.zero_grad):
    print(function.__name__, function.__module__, inspect.signature(function), len(function.__doc__ or ""))
    if function not in (backward, grad):
        print(inspect.getsourcefile(function), inspect.getsourcelines(function), function.__code__.co_freevars)
shows = torch.nn.Sequential(Shows(2, 2)); sgd = ShowsStep(shows.parameters(), lr=0.1)
ShowsBackward.apply(shows(torch.ones(1, 2))).sum().backward(); sgd.step()
handle = shows.register_forward_hook(lambda *_: None)
print(handle.id, bool(torch.nn.modules.module._global_forward_hooks))
print(pickle.loads(pickle.dumps(backward)) is backward is torch.autograd.backward)
print(isinstance(optimizer, Optimizer), SGD.mro(), type(model).__call__ is torch.nn.Module.__call__)
train(1)
print(sorted(vars(model)), sorted(vars(optimizer)), model, optimizer)
print([name for name in sys.modules if "sitecustomize" in name and name != "sitecustomize"], sys.argv, sys.path[0])
print(sys.getrecursionlimit(), sys.getswitchinterval(), sys.dont_write_bytecode, torch.get_num_threads())
"""
COLLECTIONS = """
import gc, time, warnings
warnings.simplefilter("error")

class Collects(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        time.sleep(0.3)
        for _ in range(60):
            gc.collect(0)
        with torch._C.DisableTorchFunction():
            return function(*args, **(kwargs or {}))

given = torch.randn(2, 16).as_subclass(Collects)
for _ in range(2):
    given = given + torch.ones(2, 16)
    held = [torch.ones(10) for _ in range(10)]
loss = model(given).sum(); loss.backward(); optimizer.step(); optimizer.zero_grad(); print(loss.item())
train(1)
"""
REPLACED = """
import builtins, io, json, os, time
calls = []
def count(owner, name):
    real = getattr(owner, name)
    def counted(*args, **kwargs):
        calls.append(name)
        return real(*args, **kwargs)
    setattr(owner, name, counted)
train(1)
names = "write open close fstat pwrite ftruncate unlink replace rename mkdir getpid memfd_create"
pairs = [(os, name) for name in names.split()] + [(builtins, "open"), (io, "open"), (json, "dumps")]
pairs += [(time, name) for name in ("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns")]
for pair in pairs:
    count(*pair)
train(3)
print(calls)
"""
NESTED = """
class Around(torch.nn.Module):
    def __init__(self, inner): super().__init__(); self.inner = inner
    def forward(self, x): return self.inner(x)

class Tree(torch.nn.Module):
    def __init__(self): super().__init__(); self.leaf = torch.nn.Linear(4, 4); self.join = torch.nn.Linear(8, 4)
    def forward(self, given):
        if isinstance(given, torch.Tensor):
            return self.leaf(given)
        return torch.tanh(self.join(torch.cat([self(one) for one in given], -1)))

deep = torch.nn.Linear(4, 4)
# Nearly as many as bare fit, at four frames each.
for _ in range((sys.getrecursionlimit() - 120) // 4): deep = Around(deep)
sentence = torch.ones(2, 4)
for _ in range(140): sentence = (sentence, torch.ones(2, 4))
for net, given in ((deep, torch.ones(2, 4)), (Tree(), sentence)):
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        loss = net(given).sum(); loss.backward(); sgd.step(); sgd.zero_grad(); print(loss.item())
    print(sys.getrecursionlimit())
def down(): return down()
for _ in range(2):
    try:
        down()
    except RecursionError as error:
        print(error)
"""
ROWS = [
    Row("functions-of-python-replaced", REPLACED),
    Row("modules-that-run-deep-in-modules", NESTED),
    Row("collections-inside-operators", COLLECTIONS),
    Row("random-states", RANDOM),
    Row("garbage-and-finalizers", GARBAGE, ends_in_full=True),
    Row("own-tracers", TRACERS),
    Row("own-profilers", PROFILERS, options=(("steps", "1-"),)),
    Row("warnings-and-tracebacks", WARNINGS),
    Row("threads-and-coroutines", THREADS),
    Row("looks-at-what-is-wrapped", LOOKS),
]
