"""The two networks over rows of slots: every shape is fixed, all state stays at its address, and
nothing asks the host. So a call can be captured as a CUDA graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from kiku.codec import MimiEncoder
from kiku.engine.gpu.attention import Attend, attend_plainly
from kiku.engine.gpu.draws import Draw
from kiku.engine.gpu.layers import PLAIN, Between, pick_between
from kiku.engine.gpu.pasts import Pasts
from kiku.engine.gpu.rings import Rings
from kiku.lm import LM
from kiku.nn.transformer import Transformer, TransformerLayer

Table = tuple[Tensor, Tensor]
"""The decoder's embeddings in one table, and the row where each begins; see `one_table`."""

_FRAMES = 256
"""Frames that the convolutions take at once, at most: more would need gigabytes between the layers,
and be no quicker."""


@dataclass(frozen=True)
class Spoken:
    """The decoder's output for columns."""

    logits: Tensor  # [R, T, V] float32
    tokens: Tensor  # [R, T] the likeliest, or drawn
    logprobs: Tensor  # [R, T] of these tokens
    pauses: Tensor | None  # [R, T, E]


@dataclass(frozen=True)
class Remembered:
    """Keys and values of a network, and the attention that reads them."""

    rings: Rings
    attend: Attend


class Network:
    """Codec and decoder, with their state for all slots."""

    def __init__(
        self,
        codec: MimiEncoder,
        lm: LM,
        *,
        pasts: Pasts,
        codec_keys: Remembered,
        keys: Remembered,
        table: Table,
        draw: Draw | None = None,
    ) -> None:
        """All tensors are on one device; `table` is what `one_table` returns. Where attention is by
        Triton's kernels, the decoder's norms and gates are, too. `draw` draws tokens by chance."""
        self.codec, self.lm = codec, lm
        self.pasts, self.codec_keys, self.keys = pasts, codec_keys, keys
        self.draw = draw
        self._table, self._offsets = table
        # The codec's norms and feed-forwards are single launches already.
        plain = keys.attend is attend_plainly
        self._between = PLAIN if plain else pick_between(lm.transformer, self._table.device)

    def hear(self, pcm: Tensor, slots: Tensor, start: Tensor) -> Tensor:
        """Encode T frames of each row.

        Args:
            pcm: [R, T * frame_size] samples.
            slots: [R].
            start: [R] latents that each slot's codec has processed.

        Returns:
            [R, T, K] codes.
        """
        size = self.codec.config.frame_size
        each = max(1, _FRAMES // (pcm.shape[1] // size))
        parts = [
            self._hear(pcm[at : at + each], slots[at : at + each], start[at : at + each])
            for at in range(0, len(pcm), each)
        ]
        return torch.cat(parts)

    def _hear(self, pcm: Tensor, slots: Tensor, start: Tensor) -> Tensor:
        rows = self.pasts.rows.index_select(0, slots)
        seanet, downsample = self.pasts.states(rows, start > 0)
        active = torch.ones_like(slots, dtype=torch.bool)
        x = self.codec.seanet(pcm.unsqueeze(1), seanet, active).transpose(1, 2)
        x = _advance(self.codec.transformer, PLAIN, x, self.codec_keys, slots, start)
        latents = self.codec.downsample(x.transpose(1, 2), downsample, active)
        self.pasts.rows.index_copy_(0, slots, rows)
        return self.codec.quantizer.encode(latents).transpose(1, 2)

    def columns(self, codes: Tensor, texts: Tensor, limits: Tensor, guess: int) -> Tensor:
        """The columns that the decoder reads for T frames.

        Args:
            codes: [R, T, K] of all codebooks.
            texts: [R] each row's last token.
            limits: [R] how many codebooks each row reads the codes of.
            guess: the text token of all columns after the first.

        Returns:
            [R, T, 1 + K'].
        """
        K = self.lm.config.num_codebooks
        numbers = torch.arange(K, device=codes.device)
        heard = codes[..., :K].masked_fill(numbers >= limits[:, None, None], -1)
        text = torch.full_like(codes[..., :1], guess)
        text[:, 0, 0] = texts
        return torch.cat([text, heard], dim=-1)

    def read(
        self, columns: Tensor, slots: Tensor, start: Tensor, draws: Tensor | None = None
    ) -> Spoken:
        """Let the decoder read T columns of each row.

        Args:
            columns: [R, T, 1 + K]; -1 adds nothing.
            slots: [R].
            start: [R] columns that each slot's decoder has read.
            draws: [R, `DRAW_WIDTH`] how each row draws; None where all take the likeliest.
        """
        lm = self.lm
        known = (columns >= 0).unsqueeze(-1)
        ids = columns.clamp(min=0) + self._offsets
        x = (self._table[ids].float() * known).sum(dim=2).to(lm.out_norm.weight.dtype)
        x = _advance(lm.transformer, self._between, x, self.keys, slots, start)
        hidden = self._between.norm(lm.out_norm, x)
        pauses = None
        if len(lm.pause_heads):
            pauses = lm.pause_logits(hidden).softmax(-1)[..., 0]
        logits = lm.text_head(hidden).float()
        said, tokens = logits.max(-1)
        if self.draw is not None and draws is not None:
            tokens = self.draw(logits, tokens, draws)
            said = logits.gather(-1, tokens[..., None])[..., 0]
        return Spoken(logits, tokens, said - logits.logsumexp(-1), pauses)


def _advance(
    transformer: Transformer,
    between: Between,
    x: Tensor,
    keys: Remembered,
    slots: Tensor,
    start: Tensor,
) -> Tensor:
    """[R, T, D] -> [R, T, D] through all layers."""
    R, T, _ = x.shape
    heads, width = transformer.config.num_heads, transformer.config.head_dim
    steps = torch.arange(T, device=x.device)
    angles = transformer.rope(start[:, None] + steps)
    for number, layer in enumerate(cast("Sequence[TransformerLayer]", transformer.layers)):
        qkv = layer.attention.in_proj(between.norm(layer.norm1, x)).view(R, T, 3, heads, width)
        update = layer.attention.out_proj(
            keys.attend(qkv, angles, keys.rings, number, slots, start)
        )
        x = x + (update if layer.scale1 is None else layer.scale1 * update)
        update = between.feed_forward(layer.feed_forward, between.norm(layer.norm2, x))
        x = x + (update if layer.scale2 is None else layer.scale2 * update)
    return x


def one_table(lm: LM) -> Table:
    """The decoder's embeddings stacked in one table, and the row where each begins [1 + K].

    The modules' weights become views of the table, so nothing is kept twice.
    """
    embeddings = [lm.text_embedding, *cast("Sequence[nn.Embedding]", lm.code_embeddings)]
    table = torch.cat([part.weight.detach() for part in embeddings])
    starts, at = [0], 0
    for part in embeddings:
        end = at + part.num_embeddings
        part.weight = nn.Parameter(table[at:end], requires_grad=False)
        starts.append(end)
        at = end
    return table, torch.tensor(starts[:-1], device=table.device)
