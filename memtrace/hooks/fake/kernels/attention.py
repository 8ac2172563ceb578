"""Attention on the fake device: the kernel that CUDA would choose, with what it keeps for backward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from memtrace.hooks.fake.kernels.attention_choice import Attended, Backend, choose_backend

_aten = torch.ops.aten
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
            # From the last argument to the first, as C++ evaluates them.
            if attn_mask is not None and attn_mask.is_floating_point():
                attn_mask = attn_mask.to(dtype)
            value, key, query = (one.to(dtype) for one in (value, key, query))
        call = Attended(
            query=query,
            key=key,
            value=value,
            has_mask=attn_mask is not None,
            dropout=dropout_p,
            is_causal=is_causal,
            enable_gqa=enable_gqa,
        )
        backend = choose_backend(call, self._capability)
        if backend is Backend.CUDNN:
            return _cudnn(call, attn_mask, scale)
        if backend is Backend.FLASH:
            return _flash(call, scale)
        if backend is Backend.EFFICIENT:
            return _efficient(call, attn_mask, scale)
        return F.scaled_dot_product_attention(query, key, value, attn_mask, **options)


def _cudnn(call: Attended, mask: Any, scale: float | None) -> Any:
    return _aten._scaled_dot_product_cudnn_attention(
        call.query,
        call.key,
        call.value,
        _added(call, mask),
        call.needs_grad,
        call.dropout,
        call.is_causal,
        False,
        scale=scale,
    )[0]


def _flash(call: Attended, scale: float | None) -> Any:
    query, key, value = call.query, call.key, call.value
    width = query.shape[-1]
    missing = -width % 8
    if missing:
        scale = scale if scale is not None else width**-0.5
        query, key, value = (F.pad(one, (0, missing)) for one in (query, key, value))
    out = _aten._scaled_dot_product_flash_attention(
        query, key, value, call.dropout, call.is_causal, False, scale=scale
    )[0]
    return out[..., :width] if missing else out


def _efficient(call: Attended, mask: Any, scale: float | None) -> Any:
    query, key, value = call.query, call.key, call.value
    mask = _added(call, mask)
    if mask is not None:
        missing = -mask.shape[-1] % _MASK_ALIGNMENT
        if missing:
            mask = F.pad(mask, (0, missing))[..., : mask.shape[-1]]
        mask = mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    if query.shape[1] != key.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
    return _aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, call.needs_grad, call.dropout, call.is_causal, scale=scale
    )[0]


def _added(call: Attended, mask: Any) -> Any:
    """Return a mask that is added to scores: one of flags becomes 0 and minus infinity, in the type of the query."""
    if mask is None or mask.dtype is not torch.bool:
        return mask
    return torch.where(mask, 0.0, call.query.new_full((), float("-inf")))
