"""`generate`: audio to text ids, through kiku's scheduler."""

import logging
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kiku.audio.formats import MAX_FLOAT
from kiku.config import ModelConfig
from kiku.decoding import Sampler
from kiku.engine import SlotEngine, StepOutput
from kiku.errors import InputError
from kiku.hf.generation_config import GenerationConfig
from kiku.scheduler import Member, OnOutput, Scheduler, SlotOptions
from kiku.stream import TokenSession

_logger = logging.getLogger(__name__)


class Streamer(Protocol):
    """The interface of transformers' streamers, for example `TextStreamer`."""

    def put(self, value: Tensor) -> None:
        """Take the start ids [B, 1], then the next id of every row [B], on the CPU."""
        ...

    def end(self) -> None:
        """Called once after the last ids."""
        ...


@dataclass
class GenerationRow:
    """One recording: its samples, and the tokens and logits decoded so far."""

    samples: NDArray[np.float32]
    sampler: Sampler | None = None
    tokens: list[int] = field(default_factory=list[int])
    logits: list[NDArray[np.float32]] = field(default_factory=list[NDArray[np.float32]])

    def add(self, out: StepOutput) -> None:
        """Append the engine's output of one step for this row."""
        self.tokens += out.tokens.tolist()
        if out.logits is not None:
            self.logits += list(out.logits)


def check_is_tensor(name: str, value: Any) -> None:
    """Raise InputError for what is neither a tensor nor None."""
    if not (value is None or isinstance(value, Tensor)):
        raise InputError(
            f"{name} must be a tensor, not {type(value).__name__}: have the processor give some, "
            "return_tensors='pt' (which it does by itself), or write torch.as_tensor(...)"
        )


def check_input_values(input_values: Tensor | None) -> Tensor:
    """Check that these are [B, 1, L] float samples that can be sound, and give them as float32.

    Raises:
        InputError: anything else.
    """
    if input_values is None:
        raise InputError(
            "generate needs input_values=...: give it what the processor gave, generate(**inputs)"
        )
    check_is_tensor("input_values", input_values)
    if input_values.dim() != 3 or input_values.shape[1] != 1:
        raise InputError(
            f"input_values must be [batch, 1, samples], not {list(input_values.shape)}"
        )
    if not input_values.is_floating_point():
        raise InputError(
            f"input_values must be samples in [-1, 1], not {input_values.dtype}; "
            "divide int16 by 32768"
        )
    samples = input_values.float()
    peak = float(samples.abs().amax()) if samples.numel() else 0.0  # NaN where there is any
    if not peak <= MAX_FLOAT:
        raise InputError(
            f"input_values must be samples in [-1, 1], and they reach {peak:g}: divide integers by "
            "their full scale, such as 32768, and replace what is not finite"
        )
    return samples


class GenerationBatch:
    """The rows of one call of `generate`, and their outputs."""

    def __init__(
        self,
        samples: Tensor,
        padding_mask: Tensor | None,
        config: GenerationConfig,
        model_config: ModelConfig,
    ) -> None:
        """Cut each row to its own whole frames.

        Args:
            samples: [B, 1, L] as `check_input_values` gives them.
            padding_mask: [B, L] or None.
            config: generation values of this call.
            model_config: config of the model.

        Raises:
            InputError: nothing to generate, or a mask of another shape.
        """
        B, _, L = samples.shape
        size = model_config.frame_size
        limit = L // size
        asked = config.max_new_tokens
        if asked is not None and asked > limit:
            _logger.warning(
                "`max_new_tokens` (%d) is greater than the maximum number of audio frames (%d). "
                "Setting `max_new_tokens` to %d.", asked, limit, limit,
            )  # fmt: skip
        elif asked is not None:
            limit = asked
        if limit < 1:
            raise InputError(
                f"nothing to generate: {L} samples and max_new_tokens={asked}; "
                f"at least one frame ({size} samples) and one token are needed"
            )
        copies = config.num_return_sequences or 1
        lengths = row_lengths(padding_mask, B, L)
        self.num_tokens = [min(n // size, limit) for n in lengths for _ in range(copies)]
        array = samples[:, 0].numpy(force=True).repeat(copies, axis=0)
        self.rows = [
            GenerationRow(row[: n * size]) for row, n in zip(array, self.num_tokens, strict=True)
        ]
        self.model_config = model_config
        bos, pad = config.bos_token_id, config.pad_token_id
        trained = model_config.lm.initial_text_id
        self.start_id = trained if bos is None else bos
        self.fed_id = _fed(self.start_id, trained, model_config.lm.text_rows)
        """The id that the decoder reads first."""
        self.pad_id = model_config.pad_id if pad is None else pad

    @property
    def longest(self) -> int:
        """Number of ids of the row that has the most."""
        return max(self.num_tokens)

    def samples(self) -> Tensor:
        """[B, 1, F * frame_size] of all rows, F at least 1; zeros after a row's last frame."""
        length = max(1, self.longest) * self.model_config.frame_size
        rows = [np.pad(row.samples, (0, length - len(row.samples))) for row in self.rows]
        return torch.from_numpy(np.stack(rows))[:, None]  # pyright: ignore[reportUnknownMemberType]

    def sample(self, config: GenerationConfig, seed: int) -> None:
        """Let ids be sampled. Each row has its own seed, so its words do not depend on other rows.

        Raises:
            ConfigError: (a ValueError) temperature, top_k or top_p out of range.
        """
        seeds = np.random.SeedSequence(seed).generate_state(len(self.rows), np.uint64)
        for row, one in zip(self.rows, (seeds >> np.uint64(2)).tolist(), strict=True):
            row.sampler = Sampler(
                1.0 if config.temperature is None else config.temperature,
                top_k=config.top_k or 0,
                top_p=1.0 if config.top_p is None else config.top_p,
                seed=one,
            )

    def samplers(self) -> list[Sampler]:
        """A sampler for each row that only draws: its scores have passed temperature and cuts."""
        return [
            Sampler(seed=row.sampler.params.seed) for row in self.rows if row.sampler is not None
        ]

    def run(self, engine: SlotEngine, streamer: Streamer | None) -> None:
        """Decode every row to its end; each collects one token for every whole frame it has."""
        feed = None if streamer is None else _Feed(streamer, self)
        size = self.model_config.frame_size
        members: list[Member] = []
        for row, num_tokens in zip(self.rows, self.num_tokens, strict=True):
            if not num_tokens:
                continue
            # Token 0 needs no frame, so the last token comes with the frame before the last.
            frames = row.samples[: (num_tokens - 1) * size].reshape(-1, size)
            on_output = row.add if feed is None else feed.after(row.add)
            members.append(Member(TokenSession(frames), SlotOptions(row.sampler), None, on_output))
        Scheduler(engine).run(members)
        if streamer is not None:
            streamer.end()

    def ids_at(self, position: int) -> list[int] | None:
        """The ids of all rows at `position`; None while a row still lacks its token there."""
        ids: list[int] = []
        for row, num_tokens in zip(self.rows, self.num_tokens, strict=True):
            if len(row.tokens) <= position < num_tokens:
                return None
            ids.append(row.tokens[position] if position < num_tokens else self.pad_id)
        return ids

    def sequences(self) -> Tensor:
        """[B, 1 + N] int64: the start id, the ids, and PAD where a row has ended."""
        longest = self.longest
        rows = [
            [self.start_id, *row.tokens, *[self.pad_id] * (longest - len(row.tokens))]
            for row in self.rows
        ]
        return torch.tensor(rows, dtype=torch.int64)

    def logits(self, vocab_size: int, *, scored: bool) -> tuple[Tensor, ...]:
        """The values that each id was chosen from, position by position.

        Args:
            vocab_size: number of columns; those that the decoder has no row for are -inf.
            scored: give the values after temperature, top_k and top_p.

        Returns:
            N of [B, vocab_size] float32; a row that has ended can only give PAD.
        """
        ended = np.full(vocab_size, -np.inf, np.float32)
        ended[self.pad_id] = 0.0
        table = np.full((self.longest, len(self.rows), vocab_size), -np.inf, np.float32)
        for i, row in enumerate(self.rows):
            for t, logits in enumerate(row.logits):
                sampler = row.sampler
                values = sampler.scores(logits) if scored and sampler is not None else logits
                table[t, i, : len(logits)] = values
            table[len(row.logits) :, i] = ended
        return torch.from_numpy(table).unbind(0)  # pyright: ignore[reportUnknownMemberType]


class _Feed:
    """Gives a streamer the ids of one position once every row has its id there."""

    def __init__(self, streamer: Streamer, batch: GenerationBatch) -> None:
        self._streamer, self._batch, self._position = streamer, batch, 0
        streamer.put(torch.full((len(batch.rows), 1), batch.start_id, dtype=torch.int64))

    def after(self, add: OnOutput) -> OnOutput:
        """A callback that calls `add` and then `hand_over`."""

        def both(out: StepOutput) -> None:
            add(out)
            self.hand_over()

        return both

    def hand_over(self) -> None:
        """Give the streamer the positions that are complete and that it does not have yet."""
        while self._position < self._batch.longest:
            ids = self._batch.ids_at(self._position)
            if ids is None:
                return
            self._streamer.put(torch.tensor(ids, dtype=torch.int64))
            self._position += 1


def _fed(start_id: int, trained: int, text_rows: int) -> int:
    """The id to read first: a `start_id` that is no text id (48000) stands for the trained one."""
    if start_id < 0:
        raise InputError(f"bos_token_id must be a text id (0..{text_rows - 1}), not {start_id}")
    return start_id if start_id < text_rows else trained


def drawn_seed(generator: torch.Generator | None) -> int:
    """A seed from `generator`, or from torch's own random state."""
    device = None if generator is None else generator.device
    return int(torch.randint(2**63 - 1, (), generator=generator, device=device))


def row_lengths(padding_mask: Tensor | None, batch_size: int, length: int) -> list[int]:
    """How many samples belong to each row: the silence before, its sound, and the delay after.

    Every row gets as many samples after its sound as the longest row has after its own.

    Raises:
        InputError: a mask of another shape.
    """
    if padding_mask is None:
        return [length] * batch_size
    if padding_mask.shape != (batch_size, length):
        raise InputError(
            f"padding_mask must be [{batch_size}, {length}], as input_values, "
            f"not {list(padding_mask.shape)}"
        )
    mask = padding_mask.bool().numpy(force=True)
    if not mask.any():
        return [length] * batch_size
    first = int(mask.any(0).argmax())
    ends = [length - int(row[::-1].argmax()) if row.any() else first for row in mask]
    after = length - max(ends)
    return [end + after for end in ends]
