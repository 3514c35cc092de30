# pyright: basic
# It takes and gives what transformers does, of any type.
"""Columns through the decoder's trunk: what `forward` of both model classes shares.

Ids as transformers lays them out, padding on either side, and a past that may be there. Knows no
audio.
"""

from itertools import pairwise

import torch
from torch import Tensor

from kiku.errors import InputError
from kiku.hf.configuration import KyutaiSpeechToTextConfig
from kiku.hf.outputs import KyutaiSpeechToTextCache
from kiku.lm import LM
from kiku.nn.state import all_active


def to_columns(input_ids: Tensor, config: KyutaiSpeechToTextConfig, lm: LM) -> Tensor:
    """transformers' ids [B, T, 1 + K] -> kiku's columns.

    `audio_pad_token_id` adds nothing (-1), in any place. A `bos_token_id` that is no text id (the
    published 48000) stands for the trained start id; transformers would look up the row of a code
    there.

    Raises:
        InputError: another shape, or ids out of range.
    """
    K = lm.config.num_codebooks
    if input_ids.dim() != 3 or input_ids.shape[-1] != 1 + K:
        raise InputError(
            f"input_ids must be [batch, positions, {1 + K}] (a text id and {K} codes), "
            f"not {list(input_ids.shape)}"
        )
    columns = input_ids.masked_fill(input_ids == config.audio_pad_token_id, -1)
    text, codes = columns[..., 0], columns[..., 1:]
    if config.bos_token_id is not None and config.bos_token_id >= lm.config.text_rows:
        text = text.masked_fill(text == config.bos_token_id, lm.config.initial_text_id)
    for name, ids, limit in (
        ("text ids", text, lm.config.text_rows),
        ("codes", codes, lm.config.codebook_size + 1),
    ):
        if ids.numel() and not -1 <= int(ids.min()) <= int(ids.max()) < limit:
            raise InputError(
                f"{name} must be in 0..{limit - 1}, not {int(ids.min())}..{int(ids.max())}"
            )
    return torch.cat([text.unsqueeze(-1), codes], dim=-1)


def real_columns(
    attention_mask: Tensor | None, embeds: Tensor, past: KyutaiSpeechToTextCache | None
) -> Tensor | None:
    """Which of the T new columns are real [B, T]; None where all are.

    Raises:
        InputError: a mask of another shape, or one with a hole: padding may only stand before or
        after a row.
    """
    if attention_mask is None:
        return None
    B, T, _ = embeds.shape
    seen = past.get_seq_length() if past is not None else 0
    if (
        attention_mask.dim() != 2
        or attention_mask.shape[0] != B
        or attention_mask.shape[1] not in (T, seen + T)
    ):
        raise InputError(
            f"attention_mask must be [batch, past + positions] = [{B}, {seen + T}], "
            f"not {list(attention_mask.shape)}; "
            "masks of four axes are not taken"
        )
    mask = attention_mask.bool()
    edges = (mask[:, 1:] != mask[:, :-1]).sum(1) + mask[:, 0].int() + mask[:, -1].int()
    if mask.shape[1] and bool((edges > 2).any()):
        raise InputError(
            "attention_mask has a hole: padding may stand before or after the columns of a row only"
        )
    new = mask[:, -T:]
    return None if bool(new.all()) else new


def check_positions(
    position_ids: Tensor | None, embeds: Tensor, past: KyutaiSpeechToTextCache | None
) -> None:
    """Accept the positions that are counted anyway; only their differences matter.

    Raises:
        InputError: positions that skip, repeat, or do not follow the past.
    """
    if position_ids is None:
        return
    steps = torch.arange(embeds.shape[1], device=position_ids.device)
    start = position_ids[..., :1]
    follows = (
        past is None or past.get_seq_length() == 0 or bool((start == past.get_seq_length()).all())
    )
    if (
        position_ids.shape[-1] != embeds.shape[1]
        or not follows
        or not bool((position_ids == start + steps).all())
    ):
        raise InputError(
            "position_ids must count up by one and go on where past_key_values ends; leave them out"
        )


def read_columns(
    lm: LM,
    embeds: Tensor,
    past: KyutaiSpeechToTextCache | None,
    real: Tensor | None,
    trace: list[Tensor] | None,
) -> Tensor:
    """Run the trunk.

    A column that is padding is not read: it takes no position, nothing is remembered of it, and its
    output is zero.

    Args:
        lm: the decoder.
        embeds: [B, T, D] summed embeddings.
        past: advanced in place; None for one whole sequence that gradients may flow through.
        real: [B, T] which columns are no padding; None where all are.
        trace: if given, the input of each layer [B, T, D] is appended, then the last hidden state.

    Returns:
        [B, T, D] after the last norm.
    """
    B, T, _ = embeds.shape
    if real is None:
        layers, x = _advance(lm, embeds, past, all_active(B, embeds.device))
    else:
        layers, x = _advance_padded(lm, embeds, past, real)
    if past is not None:
        past.seen += T
    hidden = lm.out_norm(x)
    if trace is not None:
        trace += [*layers, hidden]
    return hidden


def _advance(
    lm: LM, x: Tensor, past: KyutaiSpeechToTextCache | None, active: Tensor
) -> tuple[list[Tensor], Tensor]:
    """The input of each layer, and the output of the last; all [B, T, D]."""
    trace: list[Tensor] = []
    state = (
        past.state if past is not None else lm.init_state(len(x), x.device, x.dtype, remember=False)
    )
    out = lm.transformer(x, state, active, trace=trace)
    num_layers = lm.config.transformer.num_layers
    return [torch.cat(trace[i::num_layers], dim=1) for i in range(num_layers)], out


def _advance_padded(
    lm: LM, x: Tensor, past: KyutaiSpeechToTextCache | None, real: Tensor
) -> tuple[list[Tensor], Tensor]:
    # The real columns of each row are moved to its beginning: being causal, they never see what
    # follows them.
    order = real.logical_not().int().argsort(dim=1, stable=True)
    x = x.gather(1, order.unsqueeze(-1).expand_as(x))
    counts = real.sum(1)
    if past is None:
        parts = [_advance(lm, x, None, all_active(len(x), x.device))]
    else:
        # What is remembered must not hold padding: rows drop out where their columns end.
        ends = [0, *counts.unique().tolist()]
        parts = [
            _advance(lm, x[:, start:end], past, counts > start)
            for start, end in pairwise(ends)
            if end > start
        ]
    back = order.argsort(dim=1)

    def restored(pieces: list[Tensor]) -> Tensor:
        moved = torch.cat(
            [
                *pieces,
                x.new_zeros(len(x), x.shape[1] - sum(p.shape[1] for p in pieces), x.shape[2]),
            ],
            1,
        )
        moved = moved.gather(1, back.unsqueeze(-1).expand_as(moved))
        # Not a product: what a row gives that reads nothing may be NaN.
        return moved.masked_fill(~real.unsqueeze(-1), 0)

    outputs = restored([out for _, out in parts])
    if not parts:
        return [outputs] * lm.config.transformer.num_layers, outputs
    return [
        restored(list(layer)) for layer in zip(*(layers for layers, _ in parts), strict=True)
    ], outputs
