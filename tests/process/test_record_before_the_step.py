"""What a program leaves behind that ends before its first optimizer step: what that step would have made is known."""

from __future__ import annotations

from tests.process.conftest import Workplace
from tests.warm.start import warm_python

DIES = """
optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
{zero_grad}
model(torch.randn(4, 16)).sum().backward()
sys.exit(3)
"""


def test_the_optimizer_is_described_and_kept_gradients_are_noted(work: Workplace) -> None:
    program = work.write("dies.py", DIES.format(zero_grad="optimizer.zero_grad(set_to_none=False)"))
    assert work.record(warm_python(), program).returncode == 3
    rank = work.rank()
    described = {rank.text(row["class_name"]): row for row in rank.table("optimizers").rows()}
    assert '"amsgrad": true' in (rank.text(described["AdamW"]["options"]) or "")
    assert described["AdamW"]["num_parameters"] == 16 * 16 + 16
    assert rank.header["keeps_gradients"] is True


def test_gradients_that_are_dropped_are_not_noted(work: Workplace) -> None:
    program = work.write("dies.py", DIES.format(zero_grad="model.zero_grad()"))
    assert work.record(warm_python(), program).returncode == 3
    assert "keeps_gradients" not in work.rank().header
