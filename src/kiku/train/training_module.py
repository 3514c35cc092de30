"""The losses of a decoder on a batch: text, and pauses if it has pause heads.

A codec that is trained with it encodes the batch's sound first.

Positions are those of transcribing: position t reads the text token and the codes of frame t - 1,
and has to give text token t. The delay does not occur here: it is in the data.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.config import LMConfig
from kiku.lm import LM
from kiku.train.batches import TrainingBatch
from kiku.train.columns import NOTHING, UNKNOWN
from kiku.train.reference import ReferenceDecoder
from kiku.train.settings import LossSettings
from kiku.train.trainable_codec import SoftCodes, TrainableCodec, straight_through

_CALM = 0.2
"""Factor by which PAD is replaced less often than other tokens. These are few among PADs: if they
were not replaced more often, the decoder would learn to trust them blindly."""


def columns_of(text: Tensor, codes: Tensor, config: LMConfig) -> Tensor:
    """The columns that positions read: the one before each, and the initial one at position 0.

    Args:
        text: [B, T].
        codes: [B, K, T].
        config: config of the decoder.

    Returns:
        int64 [B, T, 1 + K]
    """
    columns = torch.cat([text.unsqueeze(-1), codes.transpose(1, 2)], dim=-1)[:, :-1]
    first = torch.full((len(text), 1, 1 + codes.shape[1]), config.initial_code, device=text.device)
    first[..., 0] = config.initial_text_id
    return torch.cat([first, columns], dim=1)


class TrainingModule(nn.Module):
    """A decoder and its losses: the module that data-parallel training wraps.

    With `settings.keep`, examples that are marked "keep" train no text: their text is only input
    to the decoder, and may be the decoder's own, with its mistakes. In them the loss is the
    divergence from the decoder's earlier output; to learn their text, use a row that is not marked.
    The pause heads learn from them as from all others: new heads have no earlier output.
    """

    weight: Tensor

    def __init__(
        self,
        lm: LM,
        settings: LossSettings,
        pad_id: int,
        dtype: torch.dtype,
        *,
        reference: ReferenceDecoder | None = None,
        codec: TrainableCodec | None = None,
    ) -> None:
        """Compute products in `dtype`; weights keep their dtype.

        Args:
            lm: the decoder, with the weights that it begins with.
            settings: weights of the losses.
            pad_id: id of PAD.
            dtype: dtype of products.
            reference: the decoder as it was when its run began; needed for `settings.keep`.
            codec: the codec, if it is trained; else the codes of a batch are used.
        """
        super().__init__()
        self.lm, self.settings, self.pad_id, self.dtype = lm, settings, pad_id, dtype
        self.reference, self.codec = reference, codec
        weight = torch.ones(lm.config.text_vocab_size)
        weight[pad_id] = settings.pad_weight
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, batch: TrainingBatch, *, plain: bool = False) -> dict[str, Tensor]:
        """Losses and counts of a batch.

        Args:
            batch: on the device of the decoder.
            plain: hide no codes and corrupt no text, as for an evaluation.

        Returns:
            "loss", the value to minimise: for each frame the loss of its text or, weighted, the
            divergence from the earlier output, plus the weighted loss of the pauses; "text" and
            "pauses", the means of these; "keep", the divergence summed over "kept" frames;
            "spoken", how many tokens other than PAD there were, and "right", how many of them were
            predicted.
        """
        config = self.lm.config
        soft = self._soft_codes(batch)
        text, codes = batch.text, soft.codes
        if not plain:
            text, codes = self._corrupted(text), self._hidden(codes)
        columns = columns_of(text, codes, config)
        added = straight_through(soft, codes, self.lm.code_embeddings)
        if added is not None:  # a position reads the frame before it
            added = torch.cat([torch.zeros_like(added[:, :1]), added[:, :-1]], dim=1)
        active = torch.ones(len(text), dtype=torch.bool, device=text.device)
        with torch.autocast(text.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16):
            state = self.lm.init_state(len(text), text.device, self.dtype, remember=False)
            out = self.lm(columns, state, active, added=added)
            logits = out.logits.float()
            pauses = self._pauses(out.hidden, batch.pauses)
            # The earlier decoder reads the codes in the pack: the codec's before it was trained.
            was = batch.codes.masked_fill(codes == NOTHING, NOTHING)
            divergence, kept = self._divergence(columns_of(text, was, config), logits, batch)
        wanted = batch.text
        if self.reference is not None and batch.keep is not None:
            wanted = wanted.masked_fill(batch.keep[:, None], NOTHING)
        text_loss = F.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), self.weight, ignore_index=NOTHING,
            reduction="sum",
        )  # fmt: skip
        total = (self.weight[wanted.clamp(min=0)] * (wanted != NOTHING)).sum()
        spoken = (wanted != NOTHING) & (wanted != self.pad_id)
        right = (logits.argmax(-1) == wanted) & spoken
        loss = (text_loss + self.settings.keep * divergence) / (total + kept).clamp(min=1e-6)
        return {
            "loss": loss + self.settings.pauses * pauses,
            "text": text_loss / total.clamp(min=1e-6), "pauses": pauses, "keep": divergence,
            "kept": kept, "right": right.sum(), "spoken": spoken.sum(),
        }  # fmt: skip

    def _soft_codes(self, batch: TrainingBatch) -> SoftCodes:
        """The codes of a batch; a codec that is trained computes them with its present weights."""
        if self.codec is None:
            return SoftCodes(batch.codes, ())
        assert batch.sound is not None
        soft = self.codec(batch.sound)
        return replace(soft, codes=soft.codes.masked_fill(batch.codes == NOTHING, NOTHING))

    def _divergence(
        self, columns: Tensor, logits: Tensor, batch: TrainingBatch
    ) -> tuple[Tensor, Tensor]:
        """Divergence of marked examples from the earlier output, and the number of their frames.

        The divergence is summed over the frames whose text is known; only these are counted.
        """
        none = logits.new_zeros(())
        if self.reference is None:
            return none, none
        if batch.keep is None:
            if self.reference.own_copy:
                # Its weights are gathered by all processes: others may have marked examples.
                self.reference.logits(columns[:1], self.dtype)
            return none, none
        # Both read the same input, with the same hidden codes and wrong text. Only the weights
        # differ and, if the codec is trained, the codes.
        before = self.reference.logits(columns[batch.keep], self.dtype)
        known = batch.text[batch.keep] != NOTHING
        found = self.reference.divergence(before, logits[batch.keep])
        return torch.where(known, found, 0.0).sum(), known.sum().float()

    def _pauses(self, hidden: Tensor, wanted: Tensor) -> Tensor:
        count = len(self.lm.pause_heads)
        if count == 0:
            return hidden.new_zeros(()).float()
        logits = self.lm.pause_logits(hidden).flatten(0, 2)
        targets = wanted[..., :count].flatten()
        summed = F.cross_entropy(logits, targets, ignore_index=UNKNOWN, reduction="sum")
        return summed / (targets != UNKNOWN).sum().clamp(min=1)

    def _hidden(self, codes: Tensor) -> Tensor:
        """The codes with some hidden one by one, and half as often all codes of a frame."""
        share = self.settings.hidden_codes
        if not share:
            return codes
        hidden = torch.rand(codes.shape, device=codes.device) < share
        frames = torch.rand(len(codes), 1, codes.shape[-1], device=codes.device) < share / 2
        return torch.where(hidden | frames, torch.full_like(codes, NOTHING), codes)

    def _corrupted(self, text: Tensor) -> Tensor:
        """The text as an erring decoder would feed it back: some tokens replaced, some by PAD."""
        share = self.settings.wrong_text
        if not share:
            return text
        pad = torch.full_like(text, self.pad_id)
        wrong = torch.randint_like(text, self.lm.config.text_vocab_size)
        wrong = torch.where(torch.rand(text.shape, device=text.device) < 0.5, wrong, pad)
        odds = torch.where(text == self.pad_id, share * _CALM, share)
        corrupted = (torch.rand(text.shape, device=text.device) < odds) & (text != NOTHING)
        return torch.where(corrupted, wrong, text)
