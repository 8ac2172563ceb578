"""What a program saves and copies: the same bytes."""

from __future__ import annotations

from tests.process.programs.row import Row

ROWS = [
    Row(
        "saved-files",
        """
import os
def hook(*_): pass
model.register_forward_hook(hook)
train(2)
for step in range(2):
    torch.save(model.state_dict(), f"weights-{step}.pt")
    torch.save({"optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "step": step}, f"state-{step}.pt")
    train(1)
torch.save(model, "model.pt"); torch.save(optimizer, "optimizer.pt")
torch.save(model.state_dict(), "old.pt", _use_new_zipfile_serialization=False)
print(torch.load("old.pt")["weight"].sum().item()); os.unlink("old.pt")  # it holds addresses
model.load_state_dict(torch.load("weights-0.pt", weights_only=True))
optimizer.load_state_dict(torch.load("state-0.pt", weights_only=True)["optimizer"])
train(2)
both = torch.load("model.pt", weights_only=False), torch.load("optimizer.pt", weights_only=False)
model, optimizer = both[0], torch.optim.SGD(both[0].parameters(), lr=0.1)
train(2)
""",
    ),
    Row(
        "copies",
        """
import copy, pickle
adam = torch.optim.Adam(model.parameters())
for number in range(2):
    model(torch.ones(2, 16)).sum().backward(); adam.step()
other, other_adam = copy.deepcopy((model, adam))
for _ in range(2):
    other(torch.ones(2, 16)).sum().backward(); other_adam.step(); other_adam.zero_grad()
    print(other.weight.sum().item())
unpickled, unpickled_adam = pickle.loads(pickle.dumps((model, adam)))
for _ in range(2):
    unpickled(torch.ones(2, 16)).sum().backward(); unpickled_adam.step(); print(unpickled.weight.sum().item())
print(copy.copy(model).weight is model.weight, adam.state_dict()["state"][0]["step"])
train(2)
""",
    ),
]
