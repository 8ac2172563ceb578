"""Training loops and the settings of torch that they are run under."""

from __future__ import annotations

from tests.process.programs.row import Row

OPTIMIZERS = """
from torch import nn
class Own(torch.optim.Optimizer):
    def __init__(self, parameters):
        super().__init__(parameters, dict(lr=0.1))
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for one in group["params"]:
                one.sub_(one.grad, alpha=group["lr"])
        return "stepped"

class Slow(torch.optim.SGD):
    def step(self, closure=None):
        print("slowly")
        return super().step(closure)

class Around:
    def __init__(self, inner): self.inner = inner
    def __getattr__(self, name): return getattr(self.inner, name)
    def step(self): return self.inner.step()

def of(kind, net):
    parameters = list(net.parameters())
    return {
        "own": lambda: Own(parameters),
        "slow": lambda: Slow(parameters, lr=0.1),
        "around": lambda: Around(torch.optim.SGD(parameters, lr=0.1)),
        "groups": lambda: torch.optim.AdamW([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 1e-2}]),
        "loop": lambda: torch.optim.Adam(parameters, foreach=False),
        "foreach": lambda: torch.optim.Adam(parameters, foreach=True),
        "fused": lambda: torch.optim.Adam(parameters, fused=True),
        "rmsprop": lambda: torch.optim.RMSprop(parameters, momentum=0.1),
        "lbfgs": lambda: torch.optim.LBFGS(parameters, max_iter=3),
    }[kind]()

given = torch.randn(4, 16)
for kind in ("own", "slow", "around", "groups", "loop", "foreach", "fused", "rmsprop", "lbfgs"):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 2))
    one = of(kind, net)
    for _ in range(2):
        def closure():
            one.zero_grad(); loss = net(given).pow(2).sum(); loss.backward()
            return loss
        if kind == "lbfgs":
            got = one.step(closure)
        else:
            closure(); got = one.step()
        print(kind, got if not torch.is_tensor(got) else got.item(), sum(p.sum().item() for p in net.parameters()))
"""
HOOKS = """
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
order = []
def note(name): return lambda *_: order.append(name)
nn.modules.module.register_module_forward_pre_hook(note("global pre"))
nn.modules.module.register_module_forward_hook(note("global"))
nn.modules.module.register_module_full_backward_hook(note("global backward"))
nn.modules.module.register_module_module_registration_hook(note("registered"))
register_optimizer_step_pre_hook(note("optimizer pre")); register_optimizer_step_post_hook(note("optimizer post"))
model.register_forward_pre_hook(note("pre")); handle = model.register_forward_hook(note("forward"))
model.register_full_backward_pre_hook(note("backward pre")); model.register_state_dict_pre_hook(note("state"))
model.weight.register_hook(note("gradient")); model.weight.register_post_accumulate_grad_hook(note("accumulated"))
optimizer.register_step_pre_hook(note("step pre")); optimizer.register_step_post_hook(note("step post"))
optimizer.register_state_dict_post_hook(note("optimizer state"))
train(2); handle.remove(); model.state_dict(); optimizer.state_dict(); train(1)
print(order)
def twice(module, args, kwargs): return (args[0] * 2,), kwargs
model.register_forward_pre_hook(twice, with_kwargs=True); train(1)
def plus(module, args, kwargs, output): return output + 1
model.register_forward_hook(plus, with_kwargs=True, always_call=True); train(1)
with torch.autograd.graph.saved_tensors_hooks(lambda t: (order.append("pack"), t)[1], lambda t: t): train(1)
print(order.count("pack"))
with torch.autograd.graph.save_on_cpu(): train(1)
import traceback
def fails(*_): raise ValueError("of a hook")
for kind in (nn.modules.module.register_module_forward_pre_hook, model.register_forward_hook):
    handle = kind(fails)
    try:
        # The hook is gone before the traceback is looked at.
        try: model(torch.ones(1, 16))
        finally: handle.remove()
    except ValueError: traceback.print_exc()
import torch.nn.utils.parametrizations as parametrizations
parametrizations.weight_norm(nn.Linear(2, 2))(torch.ones(1, 2)).sum().backward()
"""
SETTINGS = """
import contextlib
from torch import nn
from torch.utils.checkpoint import checkpoint

def loop(net, given, steps=2, sgd=None):
    sgd = sgd or torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(steps):
        loss = net(given).float().pow(2).mean(); loss.backward(); sgd.step(); sgd.zero_grad(); print(loss.item())

def layers(): return nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16))
given = torch.randn(4, 16)
torch.use_deterministic_algorithms(True); loop(layers(), given); torch.use_deterministic_algorithms(False)
with torch.autocast("cpu", dtype=torch.bfloat16): loop(layers(), given)
torch.set_default_dtype(torch.float64); loop(layers(), given.double()); torch.set_default_dtype(torch.float32)
torch.set_default_device("meta")
meta = layers(); sgd = torch.optim.SGD(meta.parameters(), lr=0.1)
meta(torch.ones(2, 16)).sum().backward(); sgd.step(); print(next(meta.parameters()).device)
torch.set_default_device("cpu")
with torch.device("meta"): print(layers()(torch.ones(1, 16)).device)
empty = layers().to_empty(device="meta"); print(empty(torch.ones(1, 16, device="meta")).shape)
for reentrant in (False, True):
    net = layers(); held = given.clone().requires_grad_()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        loss = checkpoint(net, held, use_reentrant=reentrant).sum(); loss.backward()
        sgd.step(); sgd.zero_grad(); print(loss.item())
with torch.no_grad(): print(layers()(given).sum().item())
with torch.inference_mode(): print(layers()(given).sum().item())
with torch.autograd.set_detect_anomaly(True): loop(layers(), given)
scaler = torch.amp.GradScaler("cpu", init_scale=4.0); net = layers(); sgd = torch.optim.SGD(net.parameters(), lr=0.1)
for number in range(3):
    loss = net(given).sum() * (float("inf") if number == 1 else 1.0)
    scaler.scale(loss).backward(); scaler.step(sgd); scaler.update(); sgd.zero_grad()
    print(loss.item(), scaler.get_scale())
print(nn.utils.clip_grad_norm_(model.parameters(), 1.0))
average = torch.optim.swa_utils.AveragedModel(model); train(2); average.update_parameters(model)
print(average.module.weight.sum().item())
table = nn.Embedding(10, 16, sparse=True); sgd = torch.optim.SGD(table.parameters(), lr=0.1)
loop(nn.Sequential(table, nn.Linear(16, 1)), torch.tensor([1, 2]), sgd=sgd)
loop(nn.Sequential(nn.Flatten(0), nn.Linear(64, 2)), given)
class Recurrent(nn.Module):
    def __init__(self): super().__init__(); self.cells = nn.LSTM(16, 8)
    def forward(self, x): return self.cells(x)[0]
loop(Recurrent(), given)
"""
DISTRIBUTED = """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
replica = DistributedDataParallel(model)
sgd = torch.optim.SGD(replica.parameters(), lr=0.1)
for number in range(3):
    with replica.no_sync() if number == 1 else torch.enable_grad():
        loss = replica(torch.randn(2, 16)).sum(); loss.backward()
    sgd.step(); sgd.zero_grad(); dist.all_reduce(loss.detach()); print(loss.item())
dist.barrier(); dist.destroy_process_group()
train(1)
"""
OWN_FUNCTIONS = """
class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): ctx.save_for_backward(x); ctx.mark_non_differentiable(); return x * 2
    @staticmethod
    def backward(ctx, grad): (x,) = ctx.saved_tensors; return grad * 2 + 0 * x
class Counted(torch.Tensor):
    calls = 0
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        Counted.calls += 1
        return super().__torch_function__(function, types, args, kwargs or {})
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
class Functions(TorchFunctionMode):
    seen = []
    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen.append(getattr(function, "__name__", str(function)))
        return function(*args, **(kwargs or {}))
class Operators(TorchDispatchMode):
    seen = []
    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.seen.append(str(operator))
        return operator(*args, **(kwargs or {}))
x = torch.ones(3, requires_grad=True)
y = Twice.apply(x).sum(); y.backward(create_graph=False); print(x.grad)
(first,) = torch.autograd.grad((x ** 3).sum(), x, create_graph=True); print(torch.autograd.grad(first.sum(), x))
print(torch.autograd.functional.hessian(lambda v: (v ** 3).sum(), torch.ones(2)))
torch.autograd.backward([(x * 2).sum(), (x * 3).sum()], inputs=[x]); print(x.grad)
with Functions(): train(1)
with Operators(): train(1)
print(Functions.seen, Operators.seen)
loss = model(torch.ones(2, 16).as_subclass(Counted)).sum(); loss.backward(); optimizer.step(); optimizer.zero_grad()
print(Counted.calls, type(loss).__name__)
train(1)
"""
AWKWARD = """
from torch import nn
from torch.utils._pytree import tree_map

class Loud(nn.Linear):
    def named_modules(self, *args, **kwargs):
        print("asked")
        return super().named_modules(*args, **kwargs)

class Closed(nn.Module):
    def __init__(self): super().__init__(); self.inner = nn.Linear(16, 4)
    def named_parameters(self, *args, **kwargs): raise RuntimeError("of the module")
    def __len__(self): return 0
    def forward(self, x): return self.inner(x)

class Wrapping(torch.Tensor):
    calls = 0
    @staticmethod
    def __new__(cls, inner):
        given = dict(dtype=inner.dtype, requires_grad=inner.requires_grad)
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, **given)
    def __init__(self, inner): self.inner = inner
    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        cls.calls += 1
        def plain(one): return one.inner if isinstance(one, cls) else one
        result = function(*tree_map(plain, args), **tree_map(plain, kwargs or {}))
        return tree_map(lambda one: cls(one) if isinstance(one, torch.Tensor) else one, result)

class Buffered(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("sparse", torch.eye(16).to_sparse_csr())
        self.register_buffer("pairs", torch.eye(16).to_sparse())
        self.lazy = nn.LazyLinear(2)
    def forward(self, x): return self.lazy(self.pairs @ (self.sparse @ x))

def loop(net, given, parameters):
    sgd = torch.optim.SGD(parameters, lr=0.1)
    for _ in range(2):
        loss = net(given).sum(); loss.backward(); sgd.step(); sgd.zero_grad(); print(type(net).__name__, loss.item())

loud, closed = Loud(16, 4), Closed()
loop(loud, torch.randn(2, 16), [loud.weight]); loop(closed, torch.randn(2, 16), [closed.inner.weight])
wrapped = nn.Linear(16, 4); wrapped.weight = nn.Parameter(Wrapping(wrapped.weight.detach()))
sgd = torch.optim.SGD(wrapped.parameters(), lr=0.1)
for _ in range(2):
    wrapped(torch.randn(2, 16)).sum().backward(); sgd.step(); sgd.zero_grad()
print(Wrapping.calls, wrapped.weight.inner.sum().item())
buffered = Buffered(); buffered(torch.ones(16, 2)); loop(buffered, torch.ones(16, 2), buffered.parameters())
pairs = torch.eye(4).to_sparse().requires_grad_()
loop(torch.sparse.sum, pairs, [pairs])
for layout in (torch.jagged, torch.strided):
    nested = torch.nested.nested_tensor([torch.ones(2, 16), torch.ones(3, 16)], layout=layout)
    with torch.no_grad(): print(model(nested).values().sum().item())
train(1)
"""
ROWS = [
    Row("awkward-modules-and-tensors", AWKWARD),
    Row("kinds-of-optimizers", OPTIMIZERS),
    Row("hooks-of-the-program", HOOKS),
    Row("settings-of-torch", SETTINGS),
    Row("distributed-alone", DISTRIBUTED),
    # At every step all that is looked at is, and nothing of that may be seen.
    Row("own-functions-and-modes", OWN_FUNCTIONS, options=(("steps", "1-"),)),
]
