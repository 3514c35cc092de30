# pyright: basic
# It takes and gives what transformers does, of any type.
"""transformers' two model classes of Kyutai Speech-To-Text, around kiku's networks.

Names, arguments, outputs, shapes and dtypes are those of transformers 5.23. Where it deviates from
the native models, these classes follow the native ones:

* Each frame of sound is read once; there, an `audio_window_size` (the published checkpoints have 1)
  reads the first window twice and is late by it from then on. Its whole-file form (no
  `audio_window_size`) gives equal tokens.
* The first column holds the trained start id, the last row of the text table; there, `bos_token_id`
  48000 looks up the row of a code. The returned sequences begin with `bos_token_id` all the same.
* The id after the last text id, whose row of the head is filler, cannot be emitted: its logit is
  -inf, there 0.
* The 1B sees 750 frames; its published config says 375. A missing `rope_theta` is 100,000; there
  10,000.
* `forward` keeps to the window (`sliding_window`) at any length; there, only with a cache and one
  position a call.
"""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.codec import MimiEncoder
from kiku.config import ModelConfig
from kiku.engine import SlotEngine
from kiku.engine.torch import torch_engine
from kiku.errors import InputError, UnsupportedConfig
from kiku.hf.columns import check_positions, read_columns, real_columns, to_columns
from kiku.hf.configuration import KyutaiSpeechToTextConfig
from kiku.hf.generation import Batch, Streamer, check_input_values, drawn_seed
from kiku.hf.generation_config import GenerationConfig, settled
from kiku.hf.outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    GenerateDecoderOnlyOutput,
    KyutaiSpeechToTextCache,
)
from kiku.hf.pretrained import KyutaiSpeechToTextPreTrainedModel
from kiku.hf.processors import Custom, logits_processors, stopping_criteria, wanted
from kiku.hf.steps import Kept, StepByStep, encoded
from kiku.lm import LM

_IGNORED = -100


class KyutaiSpeechToTextModel(KyutaiSpeechToTextPreTrainedModel):
    """The decoder's trunk: columns to hidden states.

    It holds the codec and the text head as well, which its `forward` does not use.
    """

    def __init__(self, config: KyutaiSpeechToTextConfig) -> None:
        """Random weights; `from_pretrained` fills in real ones.

        Raises:
            UnsupportedConfig: a value that kiku does not build.
        """
        super().__init__()
        self.config = config
        self.model_config: ModelConfig = config.to_model_config()
        self.codec_model = MimiEncoder(self.model_config.codec)
        self.lm = LM(self.model_config.lm)
        for module in self.lm.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=config.initializer_range)
        self.eval()

    @property
    def trunk(self) -> "KyutaiSpeechToTextModel":
        """This."""
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> "KyutaiSpeechToTextModel":
        """Move and cast the decoder; only move the codec: lower precision changes its codes."""

        def moved(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            return changed if changed.dtype == tensor.dtype else tensor.to(changed.device)

        self.codec_model._apply(moved)
        self.lm._apply(fn)
        return self

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: KyutaiSpeechToTextCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Read columns.

        Args:
            input_ids: [B, T, 1 + K] int64: the text id, then the codes. `audio_pad_token_id` adds
                nothing.
            attention_mask: [B, past + T] 0 where a column is padding, before or after a row.
                Padding is not read: its output is zero, and it takes no position, so that columns
                after right padding follow those before.
            position_ids: may only count on from the past; leave them out.
            past_key_values: of an earlier call; advanced in place.
            inputs_embeds: [B, T, D] in the place of `input_ids`.
            use_cache: return the past. Nothing read with a past can be differentiated, so None
                means `config.use_cache`, but False while gradients are recorded.
            output_hidden_states: return the input of every layer as well.
            output_attentions: cannot be had.
            return_dict: False for a tuple.

        Returns:
            `last_hidden_state` [B, T, D], `past_key_values`, `hidden_states`.

        Raises:
            InputError: (a ValueError) shapes, ids or a mask that cannot be.
            UnsupportedConfig: attentions were asked for.
        """
        if output_attentions:
            raise UnsupportedConfig(
                "attention weights are never formed, so output_attentions cannot be had"
            )
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give exactly one of input_ids and inputs_embeds")
        if use_cache is None:
            use_cache = self.config.use_cache and not torch.is_grad_enabled()
        cached = bool(use_cache) or past_key_values is not None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not cached):
            if inputs_embeds is None:
                assert input_ids is not None
                inputs_embeds = self.lm.embed(to_columns(input_ids, self.config, self.lm))
            embeds = inputs_embeds.to(self.dtype)
            check_positions(position_ids, embeds, past_key_values)
            real = real_columns(attention_mask, embeds, past_key_values)
            past = past_key_values
            if past is None and cached:
                past = KyutaiSpeechToTextCache(self.lm, len(embeds))
            trace: list[Tensor] | None = [] if output_hidden_states else None
            hidden = read_columns(self.lm, embeds, past, real, trace)
        out = BaseModelOutputWithPast(hidden, past, tuple(trace) if trace is not None else None)
        return out if return_dict else out.to_tuple()


class KyutaiSpeechToTextForConditionalGeneration(KyutaiSpeechToTextPreTrainedModel):
    """The whole model: sound to text ids (`generate`), columns to logits and loss (`forward`)."""

    def __init__(self, config: KyutaiSpeechToTextConfig) -> None:
        """Random weights; `from_pretrained` fills in real ones.

        Raises:
            UnsupportedConfig: a value that kiku does not build.
        """
        super().__init__()
        self.model = KyutaiSpeechToTextModel(config)
        self.generation_config: GenerationConfig = GenerationConfig(
            bos_token_id=config.bos_token_id,
            pad_token_id=config.pad_token_id,
            eos_token_id=config.eos_token_id,
        )
        self.eval()

    @property
    def trunk(self) -> KyutaiSpeechToTextModel:
        """The part that holds the networks."""
        return self.model

    @property
    def config(self) -> KyutaiSpeechToTextConfig:
        """Its numbers."""
        return self.model.config

    @property
    def codec_model(self) -> MimiEncoder:
        """The codec's encoder half, always float32."""
        return self.model.codec_model

    @property
    def lm_head(self) -> nn.Linear:
        """The text head; it has no row for the start id."""
        return self.model.lm.text_head

    @property
    def vocab_size(self) -> int:
        """Columns of the logits: the ids that can be emitted, and the start id."""
        return self.config.vocab_size

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: KyutaiSpeechToTextCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        num_items_in_batch: int | Tensor | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Read columns and say what comes next.

        Args:
            input_ids: see `KyutaiSpeechToTextModel.forward`, as for the arguments that are not
                explained here.
            attention_mask: [B, past + T].
            position_ids: leave them out.
            past_key_values: of an earlier call.
            inputs_embeds: [B, T, D].
            labels: [B, T] text ids; position t is held against label t + 1; -100 is left out. The
                text ids of `input_ids` themselves are the labels of a training step.
            use_cache: return the past.
            logits_to_keep: only the last n positions (0: all), or a tensor: [n] positions, [B, n]
                positions of each row, or [B, T] booleans (the logits are then [num_true,
                vocab_size]).
            output_hidden_states: return the input of every layer as well.
            output_attentions: cannot be had.
            return_dict: False for a tuple.
            num_items_in_batch: divide the summed loss by it, instead of the mean.

        Returns:
            `loss`, `logits` [B, T, vocab_size], `past_key_values`, `hidden_states`. The logit of an
            id that cannot be emitted is -inf, so the loss has no share for it (transformers' has).

        Raises:
            InputError: (a ValueError) shapes, ids or a mask that cannot be.
            UnsupportedConfig: attentions were asked for.
        """
        trunk = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache,
            output_hidden_states=output_hidden_states, output_attentions=output_attentions,
        )  # fmt: skip
        with torch.set_grad_enabled(torch.is_grad_enabled() and trunk.past_key_values is None):
            logits = self._padded(self.lm_head(_kept(trunk.last_hidden_state, logits_to_keep)))
        loss = None if labels is None else _loss(logits, labels, num_items_in_batch)
        out = CausalLMOutputWithPast(loss, logits, trunk.past_key_values, trunk.hidden_states)
        return out if return_dict else out.to_tuple()

    def _padded(self, logits: Tensor) -> Tensor:
        """[..., V] -> [..., vocab_size]"""
        return F.pad(logits, (0, self.vocab_size - logits.shape[-1]), value=-torch.inf)

    @overload
    def generate(
        self, *, return_dict_in_generate: Literal[True], **kwargs: Any
    ) -> GenerateDecoderOnlyOutput: ...
    @overload
    def generate(self, **kwargs: Any) -> Tensor: ...
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
            stopping_criteria: each takes ids [B, n] and the scores so far, and says of each row
                whether it is done; the end comes when all are.
            prefix_allowed_tokens_fn: takes a row's number and its ids [n], and gives the ids that
                may follow.
            tokenizer: for `stop_strings`.
            streamer: is given the start ids [B, 1], then the ids [B] of frame after frame.
            seed: of sampling; None takes one from `generator`.
            generator: None is torch's own random state.
            **kwargs: `max_new_tokens`, `do_sample`, `temperature` and the other fields of
                `GenerationConfig`. Each acts as in transformers, or is refused unless it asks for
                nothing; docs/transformers.md has the list. One that is None is None.

        Returns:
            [B, 1 + N] int64: the start id, then N = L // frame_size ids (or `max_new_tokens`, if
            less, or up to where every row is done). With `num_return_sequences` B is so many times
            larger, the copies of a row side by side. With `return_dict_in_generate=True` these as
            `sequences`, with `scores`, `logits` and `hidden_states` as asked.

        Raises:
            InputError: (a ValueError) no sound, less than one frame of it, or unknown arguments.
            UnsupportedConfig: text prompts, beams, or what needs transformers, which is not
                installed.
        """
        config = settled(self.generation_config, generation_config, kwargs)
        samples = check_input_values(input_values)
        custom = Custom(
            logits_processor or (), stopping_criteria or (), prefix_allowed_tokens_fn, tokenizer
        )
        batch = Batch(samples, padding_mask, config, self.model.model_config)
        if config.do_sample:
            batch.sample(config, drawn_seed(generator) if seed is None else seed)
        as_dict = bool(config.return_dict_in_generate)
        names = ("scores", "logits", "hidden_states") if as_dict else ()
        keep = frozenset(name for name in names if getattr(config, f"output_{name}"))
        if custom or wanted(config) or batch.fed_id != self.model.lm.config.initial_text_id:
            kept = self._step_by_step(batch, config, custom, streamer, keep)
        else:
            kept = self._driven(batch, streamer, keep)
        sequences = kept.sequences.to(self.device)
        if not as_dict:
            return sequences
        return GenerateDecoderOnlyOutput(
            sequences,
            **{name: tuple(getattr(kept, name)) for name in names if name in keep},
        )

    def _driven(self, batch: Batch, streamer: Streamer | None, keep: frozenset[str]) -> Kept:
        """Through the one driver, each row by itself."""
        batch.run(self._engine(len(batch.rows), keep_logits=bool(keep)), streamer)
        found: dict[str, Any] = {}
        for name in keep:
            values = batch.logits(self.vocab_size, scored=name == "scores")
            found[name] = [one.to(self.device) for one in values]
        return Kept(batch.sequences(), **found)

    def _step_by_step(
        self,
        batch: Batch,
        config: GenerationConfig,
        custom: Custom,
        streamer: Streamer | None,
        keep: frozenset[str],
    ) -> Kept:
        """All rows together, id after id."""
        start = torch.full((len(batch.rows), 1), batch.fed_id, device=self.device)
        processors = logits_processors(config, custom, start, max(batch.num_tokens))
        criteria = stopping_criteria(config, custom, self.device)
        codes = encoded(self._engine(1, keep_logits=False), batch, self.config.num_codebooks)
        loop = StepByStep(
            self.model.lm, batch, self.vocab_size, processors, criteria, streamer,
            batch.samplers() if config.do_sample else None, keep,
        )  # fmt: skip
        return loop.run(codes.to(self.device))

    def _engine(self, slots: int, *, keep_logits: bool) -> SlotEngine:
        """Around the model's own networks, which it leaves in the mode that they were in."""
        was_training = self.training
        codec, lm, device = self.codec_model, self.model.lm, str(self.device)
        engine = torch_engine(codec, lm, slots=slots, device=device, keep_logits=keep_logits)
        self.train(was_training)
        return engine


def _kept(hidden: Tensor, which: int | Tensor) -> Tensor:
    """The positions of hidden [B, T, D] that logits are wanted of."""
    if isinstance(which, int):
        return hidden[:, -which:]
    if which.dim() == 2 and which.dtype != torch.bool:
        return hidden.take_along_dim(which.unsqueeze(-1), dim=1)
    return hidden[which] if which.dim() == 2 else hidden[:, which]


def _loss(logits: Tensor, labels: Tensor, num_items: int | Tensor | None) -> Tensor:
    """Cross entropy of logits [B, T, V] at t against labels [B, T] at t + 1."""
    shifted = F.pad(labels, (0, 1), value=_IGNORED)[..., 1:].to(logits.device)
    reduction = "mean" if num_items is None else "sum"
    loss = F.cross_entropy(
        logits.float().flatten(0, -2), shifted.flatten(), ignore_index=_IGNORED, reduction=reduction
    )
    return loss if num_items is None else loss / num_items
