"""Programs that are traced, exported, compiled, transformed, or run on tensors without data."""

from __future__ import annotations

from tests.process.programs.row import Row

NET = """
from torch import nn
net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
sgd = torch.optim.SGD(net.parameters(), lr=0.01)
x = torch.ones(2, 8)

def steps(model):
    for number in range(2):
        loss = model(x).sum(); loss.backward(); sgd.step(); sgd.zero_grad(); print(number, loss.item())
"""
ROWS = [
    Row(
        "jit",
        NET
        + """
class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 4)
    def forward(self, x):
        sgd = torch.optim.SGD(self.inner.parameters(), lr=0.1)
        self.inner(x).sum().backward(); sgd.step()
        return x * 2

traced = torch.jit.trace(net, x)
print(traced.code)
steps(traced)
print(torch.jit.trace(Inner(), x, check_trace=False).code)

@torch.jit.script
def scripted(x):
    with torch.autograd.profiler.record_function("range"):
        return torch.autograd.grad([(x * x).sum()], [x])[0]

print(scripted(torch.ones(3, requires_grad=True)))
steps(torch.jit.script(net))
""",
    ),
    Row(
        "export-and-fx",
        NET
        + """
print(torch.export.export(net, (x,)).graph)
graph = torch.fx.symbolic_trace(net)
print(graph.code)
from torch.fx.experimental.proxy_tensor import make_fx
print(make_fx(net)(x).code)
steps(graph)
print(torch.fx.symbolic_trace(net).code)
""",
    ),
    Row(
        "fake-modes-and-functorch",
        NET
        + """
from torch._subclasses.fake_tensor import FakeTensorMode
mode = FakeTensorMode(allow_non_fake_inputs=True)
with mode:
    fake = nn.Linear(8, 4); adam = torch.optim.Adam(fake.parameters())
    fake(torch.randn(2, 8)).sum().backward(); adam.step()
    print(type(net(mode.from_tensor(x))).__name__)
fake(mode.from_tensor(x)).sum().backward()
adam.step()
of = lambda parameters, x: torch.func.functional_call(net, parameters, (x,)).sum()
print(torch.func.grad(of)(dict(net.named_parameters()), x)["0.bias"])
out, pull = torch.func.vjp(net, x); print(pull(out)[0])
print(torch.vmap(net)(x), torch.func.jvp(net, (x,), (x,))[1])
steps(net)
""",
    ),
    Row(
        "compiled",
        NET
        + """
from torch._dynamo.testing import CompileCounter
counter = CompileCounter()

@torch.compile(backend=counter)
def forward(x):
    return net(x).relu().sum()

for number in range(2):
    loss = forward(x); loss.backward(); sgd.step(); sgd.zero_grad(); print(number, loss.item())
steps(torch.compile(net, backend="aot_eager"))
print(counter.frame_count, counter.op_count)

@torch.compile(backend="eager")
def whole(x):
    loss = net(x).sum(); loss.backward(); sgd.step(); sgd.zero_grad()
    return loss.detach()

print(whole(x), whole(x))
part = torch.compile(net[0], backend=counter)
net[2](part(x)).sum().backward(); sgd.step(); steps(net); print(counter.frame_count)
""",
        # The window closes after the parent is compiled, and before its part is.
        options=(("steps", "1-3"),),
    ),
    Row(
        "graphs-of-whole-programs",
        NET
        + """
import warnings

class Around(nn.Module):
    def __init__(self): super().__init__(); self.net = net
    def forward(self, x): return self.net(x) + 1

steps(net)
print(torch.export.export(Around(), (x,), strict=True).graph_module.code)
print(torch._dynamo.explain(net)(x).graph_break_count)
steps(net)

from torch._dynamo.testing import CompileCounter
counter = CompileCounter()
counted = torch.compile(net, backend=counter)
steps(counted); steps(counted); print(counter.frame_count)

@torch.compile(backend="eager")
def whole(x):
    own = torch.optim.SGD(net.parameters(), lr=0.1); net(x).sum().backward(); own.step()
    warnings.warn("of the program")
    return 1

print(whole(x), whole(x), bool(torch.nn.modules.module._has_any_global_hook()))
print({name: count for name, count in torch._dynamo.utils.counters["frames"].items() if count > 99})
""",
        # The window closes between two steps of a compiled module.
        options=(("steps", "1-5"),),
    ),
    Row(
        "compiled-by-another-name",
        NET
        + """
from torch._dynamo.testing import CompileCounter
counter = CompileCounter()
model = torch._dynamo.optimize(counter)(net)
steps(model); steps(model)
print(counter.frame_count)
""",
        # The window closes once it has compiled.
        options=(("steps", "1"),),
    ),
]
