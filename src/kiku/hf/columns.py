# pyright: basic
# It takes and gives what transformers does, of any type.
"""Run columns through the decoder's trunk: what `forward` of both model classes shares.

It takes ids in transformers' layout, padding on either side, and perhaps a past. It handles no
audio.
"""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from kiku.errors import InputError, UnsupportedConfig
from kiku.hf.attention import Checkpointing, run_layers, weights_with_past
from kiku.hf.configuration import KyutaiSpeechToTextConfig
from kiku.hf.layout import Layout
from kiku.hf.outputs import KyutaiSpeechToTextCache
from kiku.lm import LM
from kiku.nn.state import all_active


def to_columns(input_ids: Tensor, config: KyutaiSpeechToTextConfig, lm: LM) -> Tensor:
    """transformers' ids [B, T, 1 + K] -> kiku's columns.

    `audio_pad_token_id` becomes -1 in any place: it adds nothing. A `bos_token_id` that is no text
    id (the published 48000) stands for the trained start id; transformers would look up the row of
    a code there.

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


def read_columns(
    lm: LM,
    embeds: Tensor,
    past: KyutaiSpeechToTextCache | None,
    layout: Layout,
    trace: list[Tensor] | None = None,
    weights: list[Tensor] | None = None,
    checkpointing: Checkpointing | None = None,
) -> Tensor:
    """Run the trunk.

    In a plain layout a padding column is not read: it takes no position, and leaves nothing in the
    past. Its output is zero in any layout.

    Args:
        lm: the decoder.
        embeds: [B, T, D] summed embeddings.
        past: advanced in place; None for one whole sequence that gradients may flow through.
        layout: which columns are real, and what each one sees; it must be plain if there is a past.
        trace: if given, the input of each layer [B, T, D] is appended, then the last hidden state.
        weights: if given, the attention weights of each layer [B, H, T, P] are appended.
        checkpointing: checkpoints layers, if there is no past.

    Returns:
        [B, T, D] after the last norm.

    Raises:
        UnsupportedConfig: attention weights are asked for, and rows have padding and a past.
    """
    B, real = len(embeds), layout.real
    layers: list[Tensor] = []
    is_open = layout.view is not None or weights is not None or checkpointing is not None
    # `_advance_padded` would move rows and give copies of hidden states, which no gradient reaches.
    is_open |= real is not None and trace is not None and torch.is_grad_enabled()
    if past is None and is_open:
        x = run_layers(
            lm, embeds, layout, trace=layers, weights=weights, checkpointing=checkpointing
        )
    elif past is not None and weights is not None:
        layers, x = _advance_watched(lm, embeds, past, layout, weights)
    elif real is None:
        layers, x = _advance(lm, embeds, past, all_active(B, embeds.device), _horizon(past, embeds))
    else:
        layers, x = _advance_padded(lm, embeds, past, real)
    if past is not None:
        past.note(layout.positions, real)
    hidden = lm.out_norm(x)
    if real is not None and is_open:
        hidden = hidden.masked_fill(~real.unsqueeze(-1), 0)
    if trace is not None:
        trace += [*layers, hidden]
    return hidden


def _advance_watched(
    lm: LM,
    x: Tensor,
    past: KyutaiSpeechToTextCache,
    layout: Layout,
    weights: list[Tensor],
) -> tuple[list[Tensor], Tensor]:
    """As `_advance`; also appends the attention weights of each layer to `weights`."""
    seen = past.seen
    if layout.real is not None or not bool((past.state.position == seen).all()):
        raise UnsupportedConfig(
            "attention weights are not given where rows have padding and a past; "
            "pass use_cache=False, or leave output_attentions out"
        )
    config, active = lm.config.transformer, all_active(len(x), x.device)
    first = seen - min(seen, config.window - 1)
    end = seen + x.shape[1]
    horizon = _horizon(past, x)
    parts: list[tuple[list[Tensor], Tensor]] = []
    watched: list[list[Tensor]] = []
    for span in x.split(config.span, dim=1):
        parts.append(_advance(lm, span, past, active, horizon))
        before = min(seen - first, config.window - 1)
        found = weights_with_past(lm, parts[-1][0], past.state, seen, before)
        aside = (seen - before - first, end - seen - span.shape[1])
        watched.append([F.pad(one, aside) for one in found])
        seen += span.shape[1]
    weights += [torch.cat(layer, dim=2) for layer in zip(*watched, strict=True)]
    layers = [torch.cat(layer, dim=1) for layer in zip(*(one for one, _ in parts), strict=True)]
    return layers, torch.cat([out for _, out in parts], dim=1)


def _horizon(past: KyutaiSpeechToTextCache | None, x: Tensor) -> int | None:
    """The `horizon` of `Transformer.forward`: no row is past this position after the call.

    None, which is no limit, without a past, and on devices other than a CPU: there shapes that
    change with every column cost more than they save.
    """
    return None if past is None or x.device.type != "cpu" else past.seen + x.shape[1]


def _advance(
    lm: LM,
    x: Tensor,
    past: KyutaiSpeechToTextCache | None,
    active: Tensor,
    horizon: int | None,
) -> tuple[list[Tensor], Tensor]:
    """The input of each layer, and the output of the last; all [B, T, D]."""
    trace: list[Tensor] = []
    state = (
        past.state if past is not None else lm.init_state(len(x), x.device, x.dtype, remember=False)
    )
    out = lm.transformer(x, state, active, trace=trace, horizon=horizon)
    num_layers = lm.config.transformer.num_layers
    if len(trace) == num_layers:
        return trace, out  # the very tensors that the layers read: gradients reach them
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
        parts = [_advance(lm, x, None, all_active(len(x), x.device), None)]
    else:
        # The past must not hold padding: a row becomes inactive where its columns end.
        ends = [0, *counts.unique().tolist()]
        horizon = _horizon(past, x)
        parts = [
            _advance(lm, x[:, start:end], past, counts > start, horizon)
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
        # Not a product with the mask: the output of a row that reads nothing may be NaN.
        return moved.masked_fill(~real.unsqueeze(-1), 0)

    outputs = restored([out for _, out in parts])
    if not parts:
        return [outputs] * lm.config.transformer.num_layers, outputs
    return [
        restored(list(layer)) for layer in zip(*(layers for layers, _ in parts), strict=True)
    ], outputs
