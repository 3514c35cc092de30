"""Pad rows of text ids to one length."""

from typing import Any

import numpy as np

from kiku.errors import InputError
from kiku.hf.batch import BatchFeature

_STRATEGIES = ("longest", "max_length", "do_not_pad")


def padding_strategy(padding: bool | str, max_length: int | None) -> str:
    """The strategy that `padding` means: "longest", "max_length" or "do_not_pad".

    Raises:
        InputError: it is none of them, or "max_length" without a `max_length`.
    """
    if isinstance(padding, bool):
        return "longest" if padding else "do_not_pad"
    name = getattr(padding, "value", padding)
    if name not in _STRATEGIES:
        raise InputError(
            f"{padding!r} is not a valid PaddingStrategy, please select one of "
            f"{', '.join(_STRATEGIES)}"
        )
    if name == "max_length" and max_length is None:
        raise InputError(f"When setting ``padding={name}``, make sure that max_length is defined")
    return name


def pad_rows(
    encoded: Any,
    pad_id: int,
    padding: bool | str,
    max_length: int | None,
    multiple: int | None,
    side: str | None,
) -> BatchFeature:
    """As `KyutaiSpeechToTextTokenizer.pad`, but gives lists, always with the mask."""
    if isinstance(encoded, list | tuple):
        encoded = {key: [one[key] for one in encoded] for key in (encoded[0] if encoded else ())}  # pyright: ignore[reportUnknownVariableType]
    ids = encoded.get("input_ids") if hasattr(encoded, "get") else None
    if ids is None:
        raise InputError(
            f"pad takes a dict with input_ids, or a list of such dicts: {encoded!r:.80}"
        )
    if side not in (None, "right", "left"):
        raise InputError(f"padding_side must be 'right' or 'left', not {side!r}")
    is_single = len(ids) > 0 and np.ndim(ids[0]) == 0
    rows = [_plain(row) for row in ([ids] if is_single else ids)]
    masks = encoded.get("attention_mask")
    if masks is None:
        masks = [[1] * len(row) for row in rows]
    else:
        masks = [_plain(mask) for mask in ([masks] if is_single else masks)]
    strategy = padding_strategy(padding, max_length)
    target = max(map(len, rows), default=0) if strategy == "longest" else (max_length or 0)
    if multiple:
        target = -(-target // multiple) * multiple
    if strategy != "do_not_pad":
        rows = [_filled(row, target, pad_id, side) for row in rows]
        masks = [_filled(mask, target, 0, side) for mask in masks]
    if is_single:
        return BatchFeature(input_ids=rows[0], attention_mask=masks[0])
    return BatchFeature(input_ids=rows, attention_mask=masks)


def _plain(row: Any) -> list[int]:
    return [int(one) for one in row]


def _filled(row: list[int], length: int, value: int, side: str | None) -> list[int]:
    more = [value] * (length - len(row))
    return more + row if side == "left" else row + more
