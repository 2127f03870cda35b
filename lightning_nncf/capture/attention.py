"""Self-attention of ``F.multi_head_attention_forward`` written out, so that hooks reach its inside."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ATTENTION", "attend", "is_self_attention"]

ATTENTION = "multi_head_attention_forward"
"""Name of the function whose inside is seen where `is_self_attention` holds."""
_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


def is_self_attention(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is one that `attend` computes: one batch of sequences attends to itself, with one projection.

    Attention to other sequences takes parts of its projection's weight, which no runtime sees as quantized.
    """
    if func is not F.multi_head_attention_forward:
        return False
    given = _arguments(args, kwargs)
    query, weight = given["query"], given["in_proj_weight"]
    own = query is given["key"] and query is given["value"] and query.dim() == 3
    plain = all(given[name] is None for name in ("bias_k", "bias_v", "static_k", "static_v"))
    whole = weight is not None and not given["use_separate_proj_weight"] and not given["add_zero_attn"]
    return own and plain and whole and query.shape[-1] % given["num_heads"] == 0


def attend(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Compute self-attention as ``F.multi_head_attention_forward`` does, calling one function after the other.

    Args:
        args: Arguments of that function, ``query`` of shape ``[L, N, E]``.
        kwargs: The same.

    Returns:
        The result ``[L, N, E]``, and the attention ``[N, L, L]`` (``[N, H, L, L]`` if not averaged) if it is asked for.

    >>> attention = torch.nn.MultiheadAttention(4, 2)
    >>> x = torch.rand(3, 1, 4)
    >>> weights = (attention.in_proj_weight, attention.in_proj_bias)
    >>> out = (attention.out_proj.weight, attention.out_proj.bias)
    >>> found, _ = attend((x, x, x, 4, 2, *weights, None, None, False, 0.0, *out), {})
    >>> torch.allclose(found, attention(x, x, x)[0], atol=1e-6)
    True
    """
    given = _arguments(args, kwargs)
    length, batch, width = given["query"].shape
    heads = given["num_heads"]
    projected = F.linear(given["query"], given["in_proj_weight"], given["in_proj_bias"])
    # [L, N, E] each, then [N, H, L, E / H].
    query, key, value = (
        part.reshape(length, batch, heads, width // heads).permute(1, 2, 0, 3) for part in projected.chunk(3, dim=-1)
    )
    dropout = given["dropout_p"] if given["training"] else 0.0
    mask, is_causal = _mask(given, query), False
    if given["is_causal"] and given["key_padding_mask"] is None and not given["need_weights"]:
        mask, is_causal = None, True
    attention = None
    if given["need_weights"]:
        scores = (query / math.sqrt(width // heads)) @ key.transpose(-2, -1)
        attention = F.softmax(scores if mask is None else scores + mask, dim=-1)
        if dropout:
            attention = F.dropout(attention, dropout)
        context = attention @ value
        if given["average_attn_weights"]:
            attention = attention.mean(dim=1)
    else:
        context = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal)
    context = context.permute(2, 0, 1, 3).reshape(length, batch, width)
    return F.linear(context, given["out_proj_weight"], given["out_proj_bias"]), attention


def _arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    bound = _SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _mask(given: Mapping[str, Any], query: Tensor) -> Tensor | None:
    """Return what is added to the scores, of a shape that fits ``[N, H, L, L]``."""
    batch, heads, length, _ = query.shape
    mask, padding = (_additive(given[name], query) for name in ("attn_mask", "key_padding_mask"))
    if mask is not None and mask.dim() == 3:
        mask = mask.reshape(batch, heads, length, length)
    if padding is None:
        return mask
    padding = padding.reshape(batch, 1, 1, length)
    return padding if mask is None else mask + padding


def _additive(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """Return a mask as numbers: minus infinity where a mask of truth values lets nothing through."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill(mask, -math.inf)
