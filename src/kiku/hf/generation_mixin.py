"""`generate`: sound to text ids, by the scheduler or step by step."""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from kiku.engine import SlotEngine
from kiku.hf.engines import engine_around
from kiku.hf.generation_batch import (
    GenerationBatch,
    Streamer,
    check_input_values,
    check_is_tensor,
    drawn_seed,
)
from kiku.hf.generation_config import GenerationConfig, resolve_config
from kiku.hf.outputs import GenerateDecoderOnlyOutput
from kiku.hf.pretrained import KyutaiSpeechToTextPreTrainedModel
from kiku.hf.processors import Custom, logits_processors, stepwise_values, stopping_criteria
from kiku.hf.stepwise import StepByStep, StepOutputs, encode_batch


class GenerationMixin(KyutaiSpeechToTextPreTrainedModel):
    """A model that transcribes."""

    generation_config: GenerationConfig

    @overload
    def generate(
        self, *, return_dict_in_generate: Literal[False] | None = None, **kwargs: Any
    ) -> Tensor: ...
    @overload
    def generate(
        self, *, return_dict_in_generate: Literal[True], **kwargs: Any
    ) -> GenerateDecoderOnlyOutput: ...
    def generate(
        self,
        *,
        input_values: Tensor | None = None,
        padding_mask: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Any] | None = None,
        stopping_criteria: Sequence[Any] | None = None,
        prefix_allowed_tokens_fn: Any = None,
        tokenizer: Any = None,
        streamer: Streamer | None = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Tensor | GenerateDecoderOnlyOutput:
        """Transcribe: one text id for every frame of sound.

        Args:
            input_values: [B, 1, L] samples in [-1, 1], as the processor gives them.
            padding_mask: [B, L] as the processor gives it. Each row ends with its own sound and the
                delay after it; from there on its ids are `pad_token_id`. (transformers lets every
                row run to the end of the longest.)
            generation_config: values that win over those of `self.generation_config`.
            logits_processor: each takes ids [B, n] and scores [B, vocab_size], and gives scores.
            stopping_criteria: each takes ids [B, n] and the scores so far, and says for each row
                whether it is done; generation ends when all rows are.
            prefix_allowed_tokens_fn: takes a row's number and its ids [n], and gives the ids that
                may follow.
            tokenizer: needed for `stop_strings`.
            streamer: receives the start ids [B, 1], then the ids [B] of frame after frame.
            seed: seed of sampling; None takes one from `generator`.
            generator: None is torch's own random state.
            **kwargs: `max_new_tokens`, `do_sample`, `temperature` and the other fields of
                `GenerationConfig`. Each acts as in transformers, or is refused unless it asks for
                nothing; docs/transformers.md has the list. An explicit None stays None.

        Returns:
            [B, 1 + N] int64: the start id, then N = L // frame_size ids (or `max_new_tokens`, if
            less, or up to where every row is done). `num_return_sequences` multiplies B; the copies
            of a row follow one another. With `return_dict_in_generate=True` the ids are
            `sequences`, next to `scores`, `logits` and `hidden_states` as asked.

        Raises:
            InputError: (a ValueError) no sound, less than one frame of it, or unknown arguments.
            UnsupportedConfig: text prompts, beams, or a feature that needs transformers, which is
                not installed.
        """
        config = resolve_config(self.generation_config, generation_config, kwargs)
        samples = check_input_values(input_values)
        check_is_tensor("padding_mask", padding_mask)
        batch = GenerationBatch(samples, padding_mask, config, self.trunk.model_config)
        if config.do_sample:
            batch.sample(config, drawn_seed(generator) if seed is None else seed)
        custom = Custom(
            logits_processor or (), stopping_criteria or (), prefix_allowed_tokens_fn, tokenizer
        )
        return self._generated(batch, config, custom, streamer)

    def _generated(
        self,
        batch: GenerationBatch,
        config: GenerationConfig,
        custom: Custom,
        streamer: Streamer | None,
    ) -> Tensor | GenerateDecoderOnlyOutput:
        """The output of `generate`: by the scheduler, or step by step for what needs this."""
        as_dict = bool(config.return_dict_in_generate)
        names = ("scores", "logits", "attentions", "hidden_states") if as_dict else ()
        keep = frozenset(name for name in names if getattr(config, f"output_{name}"))
        is_driven = batch.fed_id == self.trunk.lm.config.initial_text_id
        if custom or stepwise_values(config) or not is_driven or self.trunk.codec_model.has_hooks:
            outputs = self._step_by_step(batch, config, custom, streamer, keep)
        else:
            outputs = self._driven(batch, streamer, keep)
        sequences = outputs.sequences.to(self.device)
        if not as_dict:
            return sequences
        return GenerateDecoderOnlyOutput(
            sequences,
            **{name: tuple(getattr(outputs, name)) for name in names if name in keep},
        )

    def _driven(
        self, batch: GenerationBatch, streamer: Streamer | None, keep: frozenset[str]
    ) -> StepOutputs:
        """Generate by kiku's scheduler, each row by itself."""
        batch.run(self._engine(batch, len(batch.rows), keep_logits=bool(keep)), streamer)
        found: dict[str, Any] = {}
        for name in keep:
            values = batch.logits(self.trunk.config.vocab_size, scored=name == "scores")
            found[name] = [one.to(self.device) for one in values]
        return StepOutputs(batch.sequences(), **found)

    def _step_by_step(
        self,
        batch: GenerationBatch,
        config: GenerationConfig,
        custom: Custom,
        streamer: Streamer | None,
        keep: frozenset[str],
    ) -> StepOutputs:
        """Generate all rows together, one id at a time."""
        start = torch.full((len(batch.rows), 1), batch.fed_id, device=self.device)
        processors = logits_processors(config, custom, start, batch.longest)
        criteria = stopping_criteria(config, custom, self.device)
        codes = self._codes(batch)
        loop = StepByStep(
            self.trunk.lm, batch, self.trunk.config.vocab_size, processors, criteria, streamer,
            batch.samplers() if config.do_sample else None, keep,
        )  # fmt: skip
        return loop.run(codes.to(self.device))

    def _codes(self, batch: GenerationBatch) -> Tensor:
        """[B, F, K] codes: each row is encoded in blocks.

        If the codec has hooks, all rows are encoded at once, as hooks in transformers would see it.
        """
        codec, count = self.trunk.codec_model, self.trunk.config.num_codebooks
        if codec.has_hooks:
            return codec.codes_of(batch.samples()).mT[..., :count]
        return encode_batch(self._engine(batch, 1, keep_logits=False), batch, count)

    def _engine(self, batch: GenerationBatch, slots: int, *, keep_logits: bool) -> SlotEngine:
        """An engine around the model's own networks, which stay in the mode they are in."""
        return engine_around(
            self.trunk.codec_model,
            self.trunk.lm,
            slots=slots,
            longest=batch.longest,
            keep_logits=keep_logits,
        )
