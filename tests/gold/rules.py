"""What rules answer for inputs on both sides of their boundaries, whole: optimizers, sizes, settings, counts, GPUs.

In: nothing. Out: what stands in the gold file of each. tests/analysis/test_optimizer_needs.py and
tests/allocator/test_settings.py hold some of it against torch itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from memtrace.allocator.settings import MIB, Settings, parse_settings
from memtrace.allocator.sizes import round_size, rounding, segment_size
from memtrace.analysis.first_step.optimizer_needs import Group, Parameter, state_bytes, step_bytes
from memtrace.errors import MemtraceError
from memtrace.forecast.gpus import GPUS, gpu_named
from memtrace.forecast.model.from_parameter_count import parse_count, spec_of_size

PARAMETERS = (Parameter((96, 10), 4), Parameter((7,), 4), Parameter((8, 3, 5, 2), 4), Parameter((20, 11), 2))
"""A matrix, a vector, the kernel of a convolution, and a matrix of 16 bits."""
CLASSES = (
    *("Adam", "AdamW", "NAdam", "RAdam", "SGD", "Adagrad", "RMSprop", "Adadelta", "Adamax", "Rprop", "ASGD"),
    *("Adafactor", "Muon", "Lion", "SomethingElse"),
)
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "foreach": {"foreach": True},
    "loop": {"foreach": False},
    "fused": {"fused": True},
    "differentiable": {"differentiable": True},
    "capturable": {"capturable": True},
    "amsgrad": {"amsgrad": True},
    "momentum": {"momentum": 0.9},
    "momentum, centered": {"momentum": 0.9, "centered": True},
    "nesterov": {"momentum": 0.9, "nesterov": True, "foreach": False},
    "weight decay": {"weight_decay": 0.1},
    "weight decay, loop": {"weight_decay": 0.1, "foreach": False},
    "decoupled weight decay": {"weight_decay": 0.1, "decoupled_weight_decay": True},
    "maximize": {"maximize": True},
}
NAMED_SETTINGS = {
    "default": Settings(),
    "divisions 4": parse_settings("roundup_power2_divisions:4"),
    "divisions by size": parse_settings("roundup_power2_divisions:[1:2,4:8,>:1]"),
    "segments of 32 MiB": parse_settings("large_segment_size_mb:32"),
}
SETTINGS = (
    *("", "expandable_segments:True", "expandable_segments:False", "expandable_segments:yes", "expandable_segments"),
    *("max_split_size_mb:19", "max_split_size_mb:20", "max_split_size_mb:20x", "max_split_size_mb:x"),
    *("max_split_size_mb:17592186044416", "max_non_split_rounding_mb:19", "max_non_split_rounding_mb:30"),
    *("large_segment_size_mb:10", "large_segment_size_mb:11", "large_segment_size_mb:40"),
    *("large_segment_size_mb:40,max_non_split_rounding_mb:50", "max_non_split_rounding_mb:50,large_segment_size_mb:40"),
    *("garbage_collection_threshold:0", "garbage_collection_threshold:0.01", "garbage_collection_threshold:0.99"),
    *("garbage_collection_threshold:1", "garbage_collection_threshold:much"),
    *("roundup_power2_divisions:0", "roundup_power2_divisions:1", "roundup_power2_divisions:3"),
    *("roundup_power2_divisions:8", "roundup_power2_divisions:[256:1,512:2,1024:4,>:8]"),
    *("roundup_power2_divisions:[1:4,2:8]", "roundup_power2_divisions:[64:8", "roundup_power2_divisions:[3:4]"),
    *("roundup_power2_divisions:[>:2]", "roundup_power2_divisions:[65536:2]", "roundup_power2_divisions:[]"),
    *("per_process_memory_fraction:0.5", "per_process_memory_fraction:0", "per_process_memory_fraction:1"),
    *("per_process_memory_fraction:1.1", "per_process_memory_fraction:-0.1"),
    *("throw_on_cudamalloc_oom:True", "backend:native", "backend:cudaMallocAsync", "backend:other"),
    *("pinned_use_background_threads:True", "pinned_num_register_threads:8", "pinned_num_register_threads:many"),
    *("unknown:1", "max_split_size_mb:30,", "max_split_size_mb:30,,", ",", "max_split_size_mb 30", " a : 1 "),
)
COUNTS = (
    "0",
    "0.5",
    "0.6",
    "1",
    "1.5",
    "2K",
    "3m",
    "7B",
    "1.25T",
    "1024T",
    "1125.9T",
    "1126T",
    "-1",
    "x",
    "7 B",
    "7BB",
)
GPU_TEXTS = ("24GiB", "0.5", "1023", "80GB", "0", "h100", "H100-80GB", "a100-40gb ", "abacus", "")
NUMBERS = (9_999, 10_000, 50_000, 1_000_000, 60_000_000, 124_000_000, 1_300_000_000, 7_000_000_000, 70_000_000_000)


def _optimizers() -> dict[str, Any]:
    found: dict[str, Any] = {"columns": ["states on the CPU", "step on the CPU", "states on a GPU", "step on a GPU"]}
    for name in CLASSES:
        for options, values in OPTIONS.items():
            found[f"{name}, {options}"] = _needs([Group(class_name=name, options=values, num_parameters=100)])
    two = [Group(class_name=name, options={}, num_parameters=count) for name, count in (("AdamW", 300), ("SGD", 100))]
    return found | {
        "AdamW of 300 elements, SGD of 100": _needs(two),
        "SGD of 100, AdamW of 300 elements": _needs(two[::-1]),
        "both of no known size": _needs(
            [Group(class_name=one.class_name, options={}, num_parameters=0) for one in two]
        ),
        "none": _needs([]),
    }


def _needs(groups: list[Group]) -> list[int | None]:
    return [need(groups, PARAMETERS, is_cpu=is_cpu) for is_cpu in (True, False) for need in (state_bytes, step_bytes)]


def _sizes() -> dict[str, Any]:
    """Return block and segment of requests at every power of two, a byte below and above, and between."""
    edges = sorted({size for power in range(36) for base in (1 << power,) for size in _around(base, base * 11 // 8)})
    edges = sorted({*edges, *_around(10 * MIB, 12 * MIB, 20 * MIB, 3 * MIB // 2)})
    found: dict[str, Any] = {"columns": ["block", "block, the quick way", "segment"]}
    for name, settings in NAMED_SETTINGS.items():
        quick = rounding(settings)
        sizes = {size: round_size(size, settings) for size in edges}
        found[name] = {str(size): [block, quick(size), segment_size(block, settings)] for size, block in sizes.items()}
    return found


def _around(*sizes: int) -> Iterable[int]:
    return [size + more for size in sizes for more in (-1, 0, 1) if size + more > 0]


def _settings() -> dict[str, Any]:
    return {text: _or_error(lambda text=text: str(parse_settings(text))) for text in SETTINGS}


def _counts() -> dict[str, Any]:
    found: dict[str, Any] = {text: _or_error(lambda text=text: parse_count(text)) for text in COUNTS}
    found["4M of 1024"] = parse_count("4M", unit=1024)
    columns = ("layers", "hidden", "heads", "width of the MLP", "vocabulary", "extra parameters")
    found["columns"] = list(columns)
    for number in NUMBERS:
        found[f"a model of {number:,}"] = _or_error(lambda number=number: _shape(number))
    return found


def _shape(number: int) -> list[int]:
    spec = spec_of_size(number)
    return [spec.num_layers, spec.hidden, spec.num_heads, spec.ffn, spec.vocabulary, spec.extra_parameters]


def _gpus() -> dict[str, Any]:
    """Return the data sheet of each GPU: throughput and bandwidths in whole numbers a second."""
    sheets = {name: dataclasses.asdict(gpu) for name, gpu in GPUS.items()}
    return sheets | {text: _or_error(lambda text=text: dataclasses.asdict(gpu_named(text))) for text in GPU_TEXTS}


def _or_error(answer: Callable[[], Any]) -> Any:
    try:
        return answer()
    except MemtraceError as error:
        return f"refused: {error.message} ({error.hint})"


RULES: dict[str, Callable[[], dict[str, Any]]] = {
    "rule-optimizers": _optimizers,
    "rule-sizes": _sizes,
    "rule-settings": _settings,
    "rule-counts": _counts,
    "rule-gpus": _gpus,
}
"""Each table of answers by the name of its gold file."""
