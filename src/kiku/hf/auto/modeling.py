# pyright: basic
# It takes and gives what transformers does, of any type.
"""transformers' two model classes, with what they compute corrected as in `kiku.hf`.

Modules, weights and files are transformers' own. Four things are corrected: the first column holds
the trained start row, an id that is only a start id is never chosen, `forward` keeps to the window,
and `generate` reads each frame once and ends each row with its own sound.
"""

from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.utils import GenerationMixin
from transformers.masking_utils import create_sliding_window_causal_mask
from transformers.models.kyutai_speech_to_text import modeling_kyutai_speech_to_text as theirs

from kiku.codec import as_stored
from kiku.errors import InputError, KikuError
from kiku.hf.auto.configuration import KyutaiSpeechToTextConfig
from kiku.hf.auto.folders import transformers_folder
from kiku.hf.auto.networks import codec_of, codes_of, decoder_of, model_config_of, pad_hides_an_id
from kiku.hf.engines import engine_around
from kiku.hf.generation_batch import GenerationBatch, check_input_values, row_lengths
from kiku.hf.generation_config import GenerationConfig, resolve_config
from kiku.hf.modeling import KyutaiSpeechToTextForConditionalGeneration as Plain
from kiku.hf.processors import stepwise_values

_MACHINERY: Any = GenerationMixin
"""transformers' generic generation steps, without what its own class of this model adds."""


_IS_KYUTAIS = ContextVar("_IS_KYUTAIS", default=False)
"""Whether the model that is being loaded comes from Kyutai's own files."""

_MAKES_SOUND = (
    r"^codec_model\.(decoder|decoder_transformer|upsample)\.",
    r"^codec_model\.quantizer\.\w+\.output_proj\.",
)
"""Weights that turn codes into sound. Kyutai's own files do not hold them and nothing here uses
them: a report that they are missing, and should be trained, would only alarm the user."""


class _Embeddings(theirs.KyutaiSpeechToTextEmbeddings):
    """Embeddings in which a start id that is no text id (48000) stands for the trained one."""

    def forward(self, input_ids: Tensor) -> Tensor:
        bos, last = self.config.bos_token_id, self.config.vocab_size - 1
        if bos is not None and bos > last:
            text = input_ids[..., :1]
            text = text.masked_fill(text == bos, last)
            input_ids = torch.cat([text, input_ids[..., 1:]], dim=-1)
        return super().forward(input_ids)


class _TextHead(nn.Linear):
    """A head whose last row is filler for the start id, which is never emitted."""

    def forward(self, input: Tensor) -> Tensor:
        logits = super().forward(input)
        never = torch.arange(self.out_features, device=logits.device) == self.out_features - 1
        return logits.masked_fill(never, -torch.inf)


class KyutaiSpeechToTextPreTrainedModel(theirs.KyutaiSpeechToTextPreTrainedModel):
    """A model that can load a checkpoint of any layout."""

    config: KyutaiSpeechToTextConfig
    config_class = KyutaiSpeechToTextConfig

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any
    ) -> Any:
        """As in transformers; also loads "demo", Kyutai's own files, and all that kiku reads."""
        with ExitStack() as stack:
            source = pretrained_model_name_or_path
            folder = transformers_folder(Plain, source, kwargs, stack)
            before = _IS_KYUTAIS.set(folder is not source)
            stack.callback(_IS_KYUTAIS.reset, before)
            return super().from_pretrained(folder, *model_args, **kwargs)


class KyutaiSpeechToTextModel(KyutaiSpeechToTextPreTrainedModel, theirs.KyutaiSpeechToTextModel):
    """The decoder's trunk: columns to hidden states."""

    def __init__(self, config: Any) -> None:
        """Random weights; `from_pretrained` fills in real ones."""
        super().__init__(config)
        self.embed_tokens.__class__ = _Embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """As in transformers, but no column sees more than `config.sliding_window` of them."""
        embeds: Any = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        places: Any = position_ids
        if places is None:
            seen = 0 if past_key_values is None else past_key_values.get_seq_length()
            places = (torch.arange(embeds.shape[1], device=embeds.device) + seen).unsqueeze(0)
        attention_mask = create_sliding_window_causal_mask(
            config=self.config,
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=places,
        )
        if "flash" in str(self.config._attn_implementation):  # its masks hold no window
            kwargs["sliding_window"] = self.config.sliding_window
        return super().forward(
            attention_mask=attention_mask,
            position_ids=places,
            past_key_values=past_key_values,
            inputs_embeds=embeds,
            use_cache=use_cache,
            **kwargs,
        )


class KyutaiSpeechToTextForConditionalGeneration(
    KyutaiSpeechToTextPreTrainedModel,
    theirs.KyutaiSpeechToTextForConditionalGeneration,
    GenerationMixin,
):
    """The whole model: sound to text ids (`generate`), columns to logits and loss (`forward`)."""

    def __init__(self, config: Any) -> None:
        """Random weights; `from_pretrained` fills in real ones."""
        super().__init__(config)
        if _IS_KYUTAIS.get():
            ignored: Any = self._keys_to_ignore_on_load_missing
            self._keys_to_ignore_on_load_missing = {*(ignored or ()), *_MAKES_SOUND}
        self.model.__class__ = KyutaiSpeechToTextModel
        self.model.embed_tokens.__class__ = _Embeddings
        bos = config.bos_token_id
        if bos is None or not 0 <= bos < config.vocab_size - 1:
            self.lm_head.__class__ = _TextHead

    @torch.no_grad()
    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Transcribe: one text id for every frame of sound.

        If only ids are asked for, and the likeliest ones, kiku's scheduler makes them. All other
        calls run transformers' own `generate` over the same codes. Both give the same ids.

        Args:
            *args: of transformers' `generate`.
            **kwargs: of transformers' `generate`; `input_values` and `padding_mask` are those of
                the processor.

        Raises:
            InputError: (a ValueError) no sound, or less than one frame of it.
        """
        kwargs = {**kwargs, "input_values": check_input_values(kwargs.get("input_values"))}
        mask = kwargs.get("padding_mask")
        if mask is not None and mask.dim() == 3:
            kwargs["padding_mask"] = mask[:, 0]
        if not args and (found := self._driven(kwargs)) is not None:
            return found
        return super().generate(*args, **self._with_codes(kwargs))

    def _driven(self, kwargs: dict[str, Any]) -> Tensor | None:
        """The ids from kiku's scheduler; None if the call needs transformers' `generate`."""
        asked = {key: value for key, value in kwargs.items() if value is not None}
        samples, mask = asked.pop("input_values"), asked.pop("padding_mask", None)
        streamer = asked.pop("streamer", None)
        given, numbers = asked.pop("generation_config", None), model_config_of(self)
        own = {key: v for key, v in vars(self.generation_config).items() if v is not None}
        own.pop("audio_window_size", None)
        if numbers is None or asked.keys() & _TRANSFORMERS_ONLY or pad_hides_an_id(self):
            return None
        try:
            config = resolve_config(GenerationConfig(**own), given, asked)
        except KikuError:
            return None
        if config.do_sample or config.return_dict_in_generate or stepwise_values(config):
            return None
        batch = GenerationBatch(samples, mask, config, numbers)
        if batch.fed_id != numbers.lm.initial_text_id:
            return None
        codec, lm = codec_of(self, numbers), decoder_of(self, numbers)
        if codec is None or lm is None:
            return None
        engine = engine_around(
            codec, lm, slots=len(batch.rows), longest=batch.longest, keep_logits=False
        )
        batch.run(engine, streamer)
        return batch.sequences().to(self.device)

    def _with_codes(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments for transformers' `generate`, with codes and an end for each row."""
        samples, size = kwargs["input_values"], self.frame_size
        frames = samples.shape[-1] // size
        ids, embeds = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        # The start id is always there; every further column that is given stands for one frame.
        given = ids if ids is not None else embeds
        before = 0 if given is None else given.shape[1] - 1
        limit = self._limit(kwargs, frames, before)
        kwargs["max_new_tokens"], end = limit, before + limit
        if kwargs.get("audio_tokens") is None:
            kwargs["audio_tokens"] = self._codes(samples[..., : min(end, frames) * size])
        lengths = row_lengths(kwargs.get("padding_mask"), len(samples), samples.shape[-1])
        ends = [n // size for n in lengths]
        if min(ends) < end:
            unseen = embeds.shape[1] if ids is None and embeds is not None else 0
            own = _RowEnds(ends, unseen, self._pad_id(kwargs))
            kwargs["logits_processor"] = LogitsProcessorList(
                [*(kwargs.get("logits_processor") or []), own]
            )
        return kwargs

    @property
    def frame_size(self) -> int:
        """Samples per frame."""
        codec: Any = self.config.codec_config
        return codec.frame_size

    def _limit(self, kwargs: dict[str, Any], frames: int, before: int) -> int:
        """How many ids are generated at most, after those that are given."""
        given = kwargs.get("generation_config") or self.generation_config
        asked = kwargs.get("max_new_tokens")
        asked = given.max_new_tokens if asked is None else asked
        if frames <= before or (asked is not None and asked < 1):
            raise InputError(
                f"nothing to generate: {frames} whole frames of sound, {before} of them read "
                f"before, and max_new_tokens={asked}; at least one frame and one token are needed"
            )
        return frames - before if asked is None else min(asked, frames - before)

    def _pad_id(self, kwargs: dict[str, Any]) -> int:
        stated = (
            kwargs.get("pad_token_id"),
            getattr(kwargs.get("generation_config"), "pad_token_id", None),
            self.generation_config.pad_token_id,
            self.config.pad_token_id,
        )
        return next(one for one in (*stated, 3) if one is not None)

    def _codes(self, samples: Tensor) -> Tensor:
        """[B, F, K] of samples [B, 1, F * frame_size]."""
        numbers = model_config_of(self)
        codec = None if numbers is None else codec_of(self, numbers)
        if codec is None:
            with as_stored(self.device):
                return self.codec_model.encode(samples.to(self.codec_model.dtype)).audio_codes.mT
        return codes_of(codec, samples).to(self.device)

    def _prepare_generation_config(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, without the window of sound: all codes are there."""
        return _MACHINERY._prepare_generation_config(self, *args, **kwargs)

    def _prepare_model_inputs(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, without caches for the codec."""
        return _MACHINERY._prepare_model_inputs(self, *args, **kwargs)

    def prepare_inputs_for_generation(
        self,
        *args: Any,
        audio_tokens: Tensor | None = None,
        input_values: Tensor | None = None,
        padding_mask: Tensor | None = None,
        audio_window_size: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The inputs with the next columns: text ids and the codes of the frames before them."""
        inputs = _MACHINERY.prepare_inputs_for_generation(self, *args, **kwargs)
        text = inputs.get("input_ids")
        if audio_tokens is None or text is None:
            return inputs
        past = inputs.get("past_key_values")
        seen = 0 if past is None else past.get_seq_length()
        positions = torch.arange(text.shape[1], device=text.device) + seen
        places = (positions - 1).clamp(0, audio_tokens.shape[1] - 1)
        codes = audio_tokens.to(text.device)[:, places]
        codes = torch.where(
            (positions == 0)[None, :, None], int(self.config.audio_bos_token_id or 0), codes
        )
        inputs["input_ids"] = torch.cat([text.unsqueeze(2), codes], dim=2)
        return inputs


_TRANSFORMERS_ONLY = frozenset({
    "attention_mask", "input_ids", "inputs", "inputs_embeds", "past_key_values", "logits_processor",
    "stopping_criteria", "prefix_allowed_tokens_fn", "assistant_model", "custom_generate",
    "audio_tokens", "cache_implementation", "tokenizer", "negative_prompt_ids", "synced_gpus",
})  # fmt: skip
"""Arguments that only transformers' `generate` can use, or checks."""


class _RowEnds(LogitsProcessor):
    """Allows only PAD in rows whose sound has ended."""

    def __init__(self, ends: list[int], before: int, pad_id: int) -> None:
        self._ends, self._before, self._pad_id = torch.tensor(ends), before, pad_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        position = input_ids.shape[1] - 1 + self._before
        copies = len(scores) // len(self._ends)
        has_ended = (position >= self._ends).repeat_interleave(copies).to(scores.device)
        only_pad = torch.full_like(scores, -torch.inf)
        only_pad[:, self._pad_id] = 0.0
        return torch.where(has_ended[:, None], only_pad, scores)
