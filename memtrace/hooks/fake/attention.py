"""Which attention kernel CUDA would choose, by the conditions of `sdp_utils.cpp`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

_aten = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)
_MAX_FLASH_WIDTH = 256
_MASK_ALIGNMENT = 16


class Attention:
    """Stands in for `scaled_dot_product_attention` of fake tensors: C++ would take the path for the host."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self._capability = capability

    def attend(
        self,
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        """Return the attention of a fake query as CUDA's kernel would, any other as ever."""
        options: dict[str, Any] = {
            "dropout_p": dropout_p,
            "is_causal": is_causal,
            "scale": scale,
            "enable_gqa": enable_gqa,
        }
        if not query.is_meta or query.dim() != 4:
            return F.scaled_dot_product_attention(query, key, value, attn_mask, **options)
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
            query, key, value = (one.to(dtype) for one in (query, key, value))
            if attn_mask is not None and attn_mask.is_floating_point():
                attn_mask = attn_mask.to(dtype)
        kind = self._chosen(query, attn_mask)
        if kind == "math":
            return F.scaled_dot_product_attention(query, key, value, attn_mask, **options)
        if enable_gqa and kind == "efficient":
            groups = query.shape[1] // key.shape[1]
            key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
        if kind == "flash":
            return _flash(query, key, value, dropout_p, is_causal, scale)
        return _efficient(query, key, value, attn_mask, dropout_p, is_causal, scale)

    def _chosen(self, query: Any, mask: Any) -> str:
        backends = torch.backends.cuda
        can_flash = query.dtype in _HALF and mask is None and query.shape[-1] <= _MAX_FLASH_WIDTH
        if can_flash and self._capability >= (8, 0) and backends.flash_sdp_enabled():
            return "flash"
        if backends.mem_efficient_sdp_enabled() and query.shape[-1] % (16 // query.element_size()) == 0:
            return "efficient"
        return "math"


def _flash(query: Any, key: Any, value: Any, dropout: float, is_causal: bool, scale: float | None) -> Any:
    width = query.shape[-1]
    missing = -width % 8
    if missing:
        scale = scale if scale is not None else width**-0.5
        query, key, value = (F.pad(one, (0, missing)) for one in (query, key, value))
    out = _aten._scaled_dot_product_flash_attention(query, key, value, dropout, is_causal, False, scale=scale)[0]
    return out[..., :width] if missing else out


def _efficient(
    query: Any, key: Any, value: Any, mask: Any, dropout: float, is_causal: bool, scale: float | None
) -> Any:
    if mask is not None:
        if mask.dtype is torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), float("-inf"))
        missing = -mask.shape[-1] % _MASK_ALIGNMENT
        if missing:
            mask = F.pad(mask, (0, missing))[..., : mask.shape[-1]]
        mask = mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    needs_sum = torch.is_grad_enabled() and any(one.requires_grad for one in (query, key, value))
    return _aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, needs_sum, dropout, is_causal, scale=scale
    )[0]
