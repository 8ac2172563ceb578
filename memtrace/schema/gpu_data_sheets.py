"""What GPUs could compute a second, by data sheet: dense operations, without sparsity.

In: the name that torch has of a device, as recordings hold it, and a precision. Out: operations a second.
Sources are the vendors' data sheets of each product: NVIDIA's V100, T4, A10G (as AWS states it), L4, L40S, A100, H100,
H200, H20, HGX B200 and B300, GB200 and GB300 NVL72, the GeForce 30, 40 and 50 white papers, AMD's MI250X, MI300X,
MI325X and MI355X. Of figures with sparsity half counts.
"""

from __future__ import annotations

import re

_TERA = 10**12
_HALF = ("float16", "bfloat16")

_PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    (r"V100.*PCI", {"float16": 112, "float32": 14}),
    (r"V100", {"float16": 125, "float32": 15.7}),
    (r"\bT4\b", {"float16": 65, "float32": 8.1}),
    (r"\bA10G\b", {**dict.fromkeys(_HALF, 70), "float32": 31.5}),
    (r"\bL40S\b", {**dict.fromkeys(_HALF, 362), "float32": 91.6, "float8": 733}),
    (r"\bL4\b", {**dict.fromkeys(_HALF, 121), "float32": 30.3, "float8": 242}),
    (r"RTX 3090(?! Ti)", {**dict.fromkeys(_HALF, 71), "float32": 35.6}),
    (r"RTX 4090(?! D)", {**dict.fromkeys(_HALF, 165), "float32": 82.6, "float8": 330}),
    (r"RTX 5090(?! D)", {**dict.fromkeys(_HALF, 209.5), "float32": 104.8, "float8": 419}),
    (r"\bA100", {**dict.fromkeys(_HALF, 312), "float32": 19.5}),
    (r"H100 PCI", {**dict.fromkeys(_HALF, 756), "float32": 51, "float8": 1513}),
    (r"H100 NVL", {**dict.fromkeys(_HALF, 835), "float32": 60, "float8": 1671}),
    (r"\bH100", {**dict.fromkeys(_HALF, 989), "float32": 67, "float8": 1979}),
    (r"\bH200", {**dict.fromkeys(_HALF, 989), "float32": 67, "float8": 1979}),
    (r"\bH20\b", {**dict.fromkeys(_HALF, 148), "float32": 44, "float8": 296}),
    (r"\bGB[23]00", {**dict.fromkeys(_HALF, 2500), "float32": 80, "float8": 5000}),
    (r"\bB[23]00", {**dict.fromkeys(_HALF, 2250), "float32": 75, "float8": 4500}),
    (r"MI250X", {**dict.fromkeys(_HALF, 191.5), "float32": 23.95}),
    (r"MI3(00|25)X", {**dict.fromkeys(_HALF, 1307.4), "float32": 163.4, "float8": 2614.9}),
    (r"MI355X", {**dict.fromkeys(_HALF, 2516.6), "float32": 157.3, "float8": 5033.2}),
)
"""Tera-operations by a pattern of the name, the first that matches. A process sees one of the two dies of an MI250X."""


def peak_flops(device: str, precision: str) -> int | None:
    """Return dense floating point operations a second; `None` for a device or precision of which nothing is known.

    >>> peak_flops("NVIDIA A100-SXM4-80GB", "bfloat16"), peak_flops("Tesla T4", "bfloat16"), peak_flops("x", "float32")
    (312000000000000, None, None)
    """
    for pattern, peaks in _PEAKS:
        if re.search(pattern, device):
            tera = peaks.get(precision)
            return None if tera is None else round(tera * _TERA)
    return None
