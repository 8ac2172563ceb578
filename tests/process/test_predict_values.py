"""Values in a prediction: those that came from the host are known, numbers are finite, checks pass, loops end."""

from __future__ import annotations

from pathlib import Path

from tests.process.predicted_programs import notes, predict

KNOWN = """
import torch
from torch import nn

ids = torch.tensor([[1, 2, 0], [3, 0, 0]]).to("cuda")
mask = ids != 0
assert mask.sum().item() == 3 and int(mask.sum(-1).max()) == 2 and ids.max().item() == 3
assert mask.nonzero().shape == (3, 2) and ids[mask].tolist() == [1, 2, 3] and ids.cpu().tolist()[1] == [3, 0, 0]
assert torch.randn(2, 3, 5, device="cuda")[mask].shape == (3, 5)
assert torch.masked_select(torch.randn(2, 3, 5, device="cuda"), mask[..., None]).shape == (15,)
assert nn.functional.one_hot(ids).shape[-1] == 4 and torch.equal(ids, ids.clone()) and ids.unique().numel() == 4
part = torch.zeros(8, device="cuda")
part[2:5] = 1
assert part.tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
view = part[:4]
view.fill_(3)
assert part.sum().item() == 13
assert torch.ones(4096, 4096, device="cuda", dtype=torch.bool).all()
model = nn.Linear(64, 64).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cuda")
scaler.scale(model(torch.ones(2, 64, device="cuda")).sum()).backward()
scaler.step(optimizer)
scaler.update()
assert scaler.get_scale() == 65536
print("done")
"""
ASSUMED = """
import math
import torch
import torch.distributions as D
from torch import nn

x = torch.randn(100, 100, device="cuda")
part = torch.zeros(8, device="cuda")
part.normal_()
assert part.tolist() == [1.0] * 8
assert torch.isfinite(x).all() and not torch.isnan(x).any() and not x.isinf().any().item() and not (x != x).any()
rounds = 0
while not (x.abs() < 1e-9).all():
    rounds += 1
assert rounds == 2
torch._assert((x > 0).all(), "a"); torch._assert_async((x > 0).all()); torch._check_tensor_all(x > 0)
scale = x.exp()
found = [
    D.Categorical(logits=x), D.Normal(x, scale), D.Bernoulli(x.sigmoid()), D.Beta(scale, scale), D.Dirichlet(scale),
    D.MultivariateNormal(x[:, :4], torch.eye(4, device="cuda")), D.Independent(D.Normal(x, scale), 1),
    D.TransformedDistribution(D.Normal(x, scale), [D.transforms.TanhTransform()]), D.Poisson(scale),
    D.MixtureSameFamily(D.Categorical(logits=x), D.Normal(x, scale)), D.Uniform(x, x + 1), D.Gamma(scale, scale),
]
for one in found:
    one.log_prob(one.sample())
model = nn.Linear(64, 64).cuda()
optimizer = torch.optim.AdamW(model.parameters())
taken = 0
for _ in range(3):
    loss = model(torch.randn(4, 64, device="cuda")).sum()
    if not torch.isfinite(loss):
        continue
    assert math.isfinite(loss.item())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
    optimizer.step()
    taken += 1
assert taken == 3
print("done")
"""


def test_what_came_from_the_host_is_known(tmp_path: Path) -> None:
    predict(tmp_path, KNOWN)
    assert notes(tmp_path) & {"predicted-values", "predicted-bound"} == set()


def test_checks_pass_loops_end_and_numbers_are_finite(tmp_path: Path) -> None:
    said = predict(tmp_path, ASSUMED).stdout
    for kind in ("a check that guards an error", "a loop on a value", "numbers of the GPU were taken to be finite"):
        assert kind in said
    assert f"program.py:{ASSUMED[: ASSUMED.index('while not')].count(chr(10)) + 1}: a loop on a value" in said
