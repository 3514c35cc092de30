# pyright: basic
# Processors and criteria take and give what transformers' do, of any type.
"""Generate all rows of a batch together, one id of each at a time, as transformers does.

`generate` uses this only for features that look at the whole batch between two ids (logits
processors, stopping criteria, hidden states, attention weights, another start id). Everything else
goes through kiku's scheduler, many frames at once and each row by itself; both give the same ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kiku.decoding import Sampler
from kiku.engine import SlotEngine
from kiku.hf.columns import read_columns
from kiku.hf.generation_batch import GenerationBatch, Streamer
from kiku.hf.layout import Layout
from kiku.hf.outputs import KyutaiSpeechToTextCache
from kiku.hf.processors import Criterion, Processor
from kiku.lm import LM


@dataclass
class StepOutputs:
    """The outputs of every position; None for those that were not asked for."""

    sequences: Tensor
    """[B, 1 + N]"""
    scores: list[Tensor] | None = None
    logits: list[Tensor] | None = None
    attentions: list[tuple[Tensor, ...]] | None = None
    hidden_states: list[tuple[Tensor, ...]] | None = None


@dataclass
class StepByStep:
    """The loop of one call of `generate`."""

    lm: LM
    batch: GenerationBatch
    vocab_size: int
    processors: Sequence[Processor]
    criteria: Sequence[Criterion]
    streamer: Streamer | None = None
    samplers: Sequence[Sampler] | None = None
    """One for each row; None takes the likeliest id."""
    keep: frozenset[str] = field(default_factory=frozenset[str])
    """Names of the fields of `StepOutputs` that were asked for."""

    def __post_init__(self) -> None:
        device = self.lm.out_norm.weight.device
        self._lengths = torch.tensor(self.batch.num_tokens, device=device)
        self._pads_the_done = any(hasattr(one, "eos_token_id") for one in self.criteria)

    @torch.no_grad()
    def run(self, codes: Tensor) -> StepOutputs:
        """Generate.

        Args:
            codes: [B, F, K] codes of the frames; those after a row's last frame are ignored.
        """
        B, F, K = codes.shape
        device, batch = codes.device, self.batch
        ids = torch.full((B, 1), batch.start_id, device=device)
        seen = torch.full((B, 1), batch.fed_id, device=device)
        column = torch.cat([seen, seen.new_full((B, K), self.lm.config.initial_code)], 1)
        unfinished = self._lengths > 0
        past = KyutaiSpeechToTextCache(self.lm, B)
        outputs = StepOutputs(ids, **{name: [] for name in self.keep})
        if self.streamer is not None:
            self.streamer.put(ids.cpu())
        for t in range(batch.longest):
            logits = self._read(column, past, outputs)
            scores = self._scored(seen, logits, t, outputs)
            tokens = self._picked(scores)
            if self._pads_the_done:
                tokens = torch.where(unfinished, tokens, batch.pad_id)
            tokens = torch.where(t < self._lengths, tokens, batch.pad_id)
            ids = torch.cat([ids, tokens[:, None]], 1)
            seen = torch.cat([seen, tokens[:, None]], 1)
            unfinished &= t + 1 < self._lengths
            for criterion in self.criteria:
                done = torch.as_tensor(
                    criterion(ids, self._scores_for_criteria(outputs)), device=device
                )
                unfinished = unfinished & ~done
            if self.streamer is not None:
                self.streamer.put(tokens.cpu())
            if not bool(unfinished.any()):
                break
            fed = tokens.clamp(max=self.lm.config.text_rows - 1)
            column = torch.cat([fed[:, None], codes[:, min(t, F - 1)]], 1)
        if self.streamer is not None:
            self.streamer.end()
        outputs.sequences = ids
        return outputs

    def _scores_for_criteria(self, outputs: StepOutputs) -> Any:
        """The scores that a criterion receives: None unless the caller asked for scores."""
        return None if outputs.scores is None else tuple(outputs.scores)

    def _read(self, column: Tensor, past: KyutaiSpeechToTextCache, outputs: StepOutputs) -> Tensor:
        """Read a column [B, 1 + K]: logits [B, vocab_size] float32, -inf for ids without a row."""
        lm = self.lm
        embeds = lm.embed(column[:, None]).to(lm.out_norm.weight.dtype)
        trace: list[Tensor] | None = None if outputs.hidden_states is None else []
        weights: list[Tensor] | None = None if outputs.attentions is None else []
        positions = torch.full((len(column), 1), past.seen, device=column.device)
        hidden = read_columns(lm, embeds, past, Layout(positions, None, None), trace, weights)
        if outputs.hidden_states is not None and trace is not None:
            outputs.hidden_states.append(tuple(trace))
        if outputs.attentions is not None and weights is not None:
            outputs.attentions.append(tuple(weights))
        logits = lm.text_head(hidden[:, -1]).float()
        missing = self.vocab_size - logits.shape[-1]
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)

    def _scored(self, seen: Tensor, logits: Tensor, t: int, outputs: StepOutputs) -> Tensor:
        """The scores of position `t`: its logits after all processors. Keeps what is asked for."""
        scores = logits.clone()
        for processor in self.processors:
            scores = processor(seen, scores)
        has_ended = t >= self._lengths
        for name, values in (("logits", logits), ("scores", scores)):
            rows: list[Tensor] | None = getattr(outputs, name)
            if rows is not None:
                rows.append(self._only_pad(values, has_ended))
        return scores

    def _only_pad(self, values: Tensor, has_ended: Tensor) -> Tensor:
        """Allow only PAD in rows whose sound has ended."""
        only = torch.full_like(values, -torch.inf)
        only[:, self.batch.pad_id] = 0.0
        return torch.where(has_ended[:, None], only, values)

    def _picked(self, scores: Tensor) -> Tensor:
        """[B, vocab_size] scores -> [B] ids."""
        if self.samplers is None:
            return scores.argmax(-1)
        picked: list[int] = []
        num_real = self.lm.config.text_vocab_size
        for row, sampler in zip(scores.float().numpy(force=True), self.samplers, strict=True):
            # As many numbers as the scheduler draws, so that a seed gives the same ids both ways.
            drawn = np.full(self.vocab_size, 0.5)
            drawn[:num_real] = sampler.draw(num_real)
            picked.append(sampler.pick(row, drawn))
        return torch.tensor(picked, device=scores.device)


def encode_batch(engine: SlotEngine, batch: GenerationBatch, num_codebooks: int) -> Tensor:
    """The codes [B, F, K] of all rows' frames, F at least 1; 0 after a row's last frame."""
    frame_size = engine.frame_size
    longest = max(1, batch.longest)
    codes = np.zeros((len(batch.rows), longest, num_codebooks), np.int64)
    for row, found in zip(batch.rows, codes, strict=True):
        slot, _ = engine.open()
        frames = row.samples.reshape(-1, frame_size)
        for first in range(0, len(frames), engine.max_block):
            part = frames[first : first + engine.max_block]
            found[first : first + len(part)] = engine.encode([slot], part, [len(part)])
        engine.close(slot)
    return torch.from_numpy(codes)
