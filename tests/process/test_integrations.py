"""Callbacks in real runs of their trainers: steps are the trainer's own, the trace is whole, bytes are the model's."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import RankReport
from memtrace.store.reading.read import read_trace
from tests.conftest import RunMemtrace
from tests.warm.start import warm_python

HUGGING_FACE = """
import sys, torch
from memtrace.integrations.transformers import MemtraceCallback
callback = MemtraceCallback("trace.json", force=True)
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

class Failing(torch.utils.data.Dataset):
    def __len__(self):
        return 12
    def __getitem__(self, at):
        if at == int(sys.argv[1]):
            raise ValueError("a bad sample")
        return {"input_ids": torch.arange(16), "labels": torch.arange(16)}

model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=1, n_head=2))
arguments = TrainingArguments(
    "out", max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2, report_to=[], use_cpu=True,
    save_strategy="no", disable_tqdm=True, dataloader_num_workers=0, dataloader_pin_memory=False,
)
sampler = torch.utils.data.SequentialSampler
Trainer._get_train_sampler = lambda self, *args: sampler(self.train_dataset)
Trainer(model=model, args=arguments, train_dataset=Failing(), callbacks=[callback]).train()
print("bytes", sum(p.numel() * p.element_size() for p in model.parameters()), callback.recording.written)
"""

LIGHTNING = """
import sys, torch, lightning
from memtrace.integrations.lightning import MemtraceCallback
callback = MemtraceCallback("trace.json")

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(32, 32)
    def training_step(self, batch, at):
        if at == int(sys.argv[1]):
            raise ValueError("a bad batch")
        return self.layer(batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

model = Model()
trainer = lightning.Trainer(
    max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, accumulate_grad_batches=2, callbacks=[callback],
)
trainer.fit(model, torch.utils.data.DataLoader(torch.ones(12, 32), batch_size=2))
print("bytes", sum(p.numel() * p.element_size() for p in model.parameters()), callback.recording.written)
"""


@pytest.fixture(params=["transformers", "lightning"])
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A training script of three steps of two micro-batches; it fails at the sample, or batch, of its argument."""
    # Looked for only: Lightning puts something of its own over torch.compile, which is to stay out of this process.
    needed = "accelerate" if request.param == "transformers" else "lightning"
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    path = tmp_path / f"{request.param}_run.py"
    path.write_text(HUGGING_FACE if request.param == "transformers" else LIGHTNING)
    return path


def run(script: Path, fails_at: int) -> subprocess.CompletedProcess[str]:
    """Run a script."""
    command = [warm_python(), script.name, str(fails_at)]
    return subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=200)


def ended(rank: RankReport) -> list[int]:
    """Return the steps that were recorded to their end."""
    return [step.step for step in rank.steps if step.end_ns is not None]


def test_steps_are_those_of_the_trainer_and_parameters_to_the_byte(script: Path) -> None:
    done = run(script, -1)
    assert done.returncode == 0, done.stderr
    num_bytes, written = done.stdout.split("bytes ")[1].split()
    assert written == "trace.json"
    (rank,) = analyze(read_trace([script.parent / "trace.json"])).ranks
    assert rank.complete
    assert ended(rank) == [1, 2, 3]
    assert [step.num_microbatches for step in rank.steps if step.step in (1, 2, 3)] == [2, 2, 2]
    owned = {one.category: one.tensor_bytes for step in rank.steps if step.step == 3 for one in step.owned}
    assert owned["parameter"] == int(num_bytes)
    assert owned["optimizer_state"] >= 2 * int(num_bytes)


def test_a_training_that_fails_still_leaves_its_trace(script: Path) -> None:
    # In step 3: the trainer of transformers reads a batch ahead, so it has to be a sample of the last one.
    done = run(script, 10 if script.name.startswith("transformers") else 4)
    assert done.returncode == 1
    assert "ValueError: a bad" in done.stderr
    (rank,) = analyze(read_trace([script.parent / "trace.json"])).ranks
    assert ended(rank) == [1, 2]
    assert not (script.parent / "trace.json.parts").exists()


def test_under_memtrace_record_only_steps_are_marked(script: Path, run_memtrace: RunMemtrace) -> None:
    if script.name.startswith("transformers"):
        pytest.skip("one of the two is enough: what they do here is the same code")
    done = run_memtrace("record", "-o", "outer.json", "--", sys.executable, script.name, "-1", cwd=script.parent)
    assert done.returncode == 0, done.stderr
    assert not (script.parent / "trace.json").exists()
    (rank,) = analyze(read_trace([script.parent / "outer.json"])).ranks
    assert ended(rank) == [1, 2, 3]
