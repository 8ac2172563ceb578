"""What is taken out of texts: paths and the words of a person, and nothing that only looks like them."""

from __future__ import annotations

import pytest

from memtrace.schema.records import part_name
from memtrace.schema.redaction import HIDDEN, Redaction
from memtrace.store.redaction.file_names import bare_name, file_name
from memtrace.store.redaction.headers import environment_settings
from memtrace.store.redaction.texts import Texts, words_of

BOTH = [Redaction.PERSONAL, Redaction.SOURCE]
KEPT = [
    "3.5 GiB/s",
    "blocks.0.attn",
    "1/2 of it",
    "at::empty(long)",
    "x < y and a/b",
    "float32",
    "encoder.block.0.layer.0.SelfAttention.o.weight",
    "exp_avg of lstm.h",
    "train/forward",
    "void at::native::vectorized_elementwise_kernel<4, at::native::AddFunctor<float> >(int)",
    "ProfilerStep#3",
    "dp Shard(0) 1 of 4, tp Replicate 0 of 2",
]
PATHS = [
    "/home/me/model.py",
    "~/runs/x",
    "~me/runs",
    "./secret/a.txt",
    "../up",
    r"C:\Users\me\a b",
    r"D:\code\x.py",
    "/data",
    "s3://bucket/run",
    "file:///home/me/x",
]


def texts(redaction: Redaction) -> Texts:
    return Texts(redaction=redaction, file_name=file_name(redaction))


@pytest.mark.parametrize("redaction", BOTH)
@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_path_stays(text: str, redaction: Redaction) -> None:
    assert texts(redaction).name(text) == text
    assert texts(redaction).sentence(text) == text


@pytest.mark.parametrize("redaction", BOTH)
@pytest.mark.parametrize("path", PATHS)
def test_a_path_goes_wherever_it_stands(path: str, redaction: Redaction) -> None:
    folder = path.replace("\\", "/").rpartition("/")[0]
    for text in (path, f"read {path}, then", f"({path})", f"of={path}", f'"{path}"'):
        for shown in (texts(redaction).name(text), texts(redaction).sentence(text)):
            assert path not in shown
            assert not folder.strip("./~") or folder not in shown.replace("\\", "/")


def test_a_file_of_code_keeps_its_name_unless_that_is_hidden_too() -> None:
    for sentence in ("failed at /home/me/a/model.py:7, twice", "failed at a/model.py:7, twice"):
        assert texts(Redaction.PERSONAL).sentence(sentence) == "failed at model.py:7, twice"
        assert texts(Redaction.SOURCE).sentence(sentence) == f"failed at {HIDDEN}, twice"


def test_the_host_in_the_name_of_a_file_of_a_recording() -> None:
    for rank in (None, 3):
        name = part_name(rank=rank, host="node-7", pid=42, suffix="9f3a")
        for text in (f"{name} is cut off", f"/runs/{name}.kineto.json: damaged", f"{name}.chunk-000001.jsonl is gone"):
            assert "node" not in texts(Redaction.PERSONAL).sentence(text)


def test_functions_of_a_profile() -> None:
    assert texts(Redaction.PERSONAL).name("/home/me/train.py(7): step") == "train.py(7): step"
    assert texts(Redaction.SOURCE).name("/home/me/train.py(7): step") == "step"


def test_settings_stay_json() -> None:
    assert texts(Redaction.PERSONAL).settings('{"lr": 0.1, "file": "/home/me/x", "name": "\\u00e9"}') == (
        '{"file": "\\u2026", "lr": 0.1, "name": "\\u00e9"}'
    )
    assert texts(Redaction.PERSONAL).settings("{damaged") == "{}"


def test_nobody_is_looked_for_under_a_name_that_everybody_has() -> None:
    assert words_of(["localhost"], ["/root/t.py", "/home/ubuntu/t.py", "train.py", "/home/me/t.py"]) is None


def test_libraries_stay_apart_whatever_the_separator() -> None:
    assert bare_name(r"C:\env\Lib\site-packages\torch\nn\functional.py") == r"torch/nn\functional.py"
    assert bare_name("/home/me/pytorch/torch/nn/functional.py") == "torch/nn/functional.py"
    # A folder of that name is not torch, but it may have been taken for it.
    assert bare_name("/home/me/torch/secret/train.py") == "torch/train.py"


@pytest.mark.parametrize(
    "value",
    ["expandable_segments:True,max_split_size_mb:128", "roundup_power2_divisions:[256:1,512:2,>:4]", ":4096:8", "LAZY"],
)
def test_settings_of_torch_stay(value: str) -> None:
    assert environment_settings({"PYTORCH_ALLOC_CONF": value}) == {"PYTORCH_ALLOC_CONF": value}
