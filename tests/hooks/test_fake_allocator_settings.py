"""What a program asks of the allocator while it runs becomes facts that the settings of a trace are read from."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from memtrace.allocator.settings import MIB, settings_of_snapshot  # noqa: E402
from memtrace.hooks.fake.cuda.allocator_settings import AskedSettings  # noqa: E402
from memtrace.hooks.fake.events.storages import FakeMemory  # noqa: E402


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def asked(said: list[str]) -> AskedSettings:
    return AskedSettings(FakeMemory(with_stacks=False), lambda slug, message: said.append(slug))


def test_without_a_question_there_are_no_facts(asked: AskedSettings) -> None:
    assert asked.facts() == {}


def test_a_later_setting_wins_over_the_environment(asked: AskedSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:32,expandable_segments:True")
    asked.set_text("max_split_size_mb:64")
    settings = settings_of_snapshot(asked.facts()["allocator_settings"])
    assert settings.max_split_size == 64 * MIB
    assert settings.expandable_segments


def test_the_share_of_the_memory_is_checked_as_torch_does(asked: AskedSettings) -> None:
    with pytest.raises(TypeError):
        asked.set_fraction(1)
    with pytest.raises(ValueError, match="Allowed range"):
        asked.set_fraction(1.5)
    asked.set_fraction(0.25, 0)
    assert asked.fraction() == 0.25
    assert settings_of_snapshot(asked.facts()["allocator_settings"]).per_process_memory_fraction == 0.25


def test_torch_itself_is_asked_nothing(asked: AskedSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (torch.cuda, torch.cuda.memory):
        for name in ("set_per_process_memory_fraction", "get_per_process_memory_fraction"):
            monkeypatch.setattr(module, name, getattr(module, name, None), raising=False)
    for name in ("_accelerator_setAllocatorSettings", "_cuda_cudaCachingAllocator_set_allocator_settings"):
        monkeypatch.setattr(torch._C, name, getattr(torch._C, name, None), raising=False)
    asked.install()
    torch.cuda.set_per_process_memory_fraction(0.5)
    torch._C._accelerator_setAllocatorSettings("expandable_segments:True")
    assert torch.cuda.memory.get_per_process_memory_fraction() == 0.5
    assert asked.facts()["allocator_settings"] == {
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "per_process_memory_fraction": 0.5,
    }


def test_settings_that_come_late_are_said_once(said: list[str]) -> None:
    memory = FakeMemory(with_stacks=False)
    asked = AskedSettings(memory, lambda slug, message: said.append(slug))
    asked.set_fraction(0.5)
    memory.temporary(512)
    asked.set_fraction(0.6)
    asked.set_text("expandable_segments:True")
    assert said == ["predicted-settings"]
