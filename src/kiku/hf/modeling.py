"""transformers' two model classes of Kyutai Speech-To-Text, around kiku's networks.

Names, arguments, outputs, shapes and dtypes are those of transformers 5.23. Where transformers
deviates from the native models, these classes follow the native ones:

* Each frame of sound is read once. In transformers an `audio_window_size` (the published
  checkpoints have 1) reads the first window twice and is late by it from then on; its whole-file
  form (no `audio_window_size`) gives equal tokens.
* The first column holds the trained start id, the last row of the text table. In transformers
  `bos_token_id` 48000 looks up the row of a code. The returned sequences begin with `bos_token_id`
  all the same.
* The id after the last text id, whose row of the head is filler, cannot be emitted: its logit is
  -inf. In transformers it is 0.
* The 1B sees 750 frames; its published config says 375. A missing `rope_theta` is 100,000; in
  transformers it is 10,000.
* `forward` keeps to the window (`sliding_window`) at any length. transformers does so only with a
  cache and one position a call.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.config import ModelConfig
from kiku.errors import InputError, UnsupportedConfig
from kiku.hf.codec import MimiModel
from kiku.hf.columns import read_columns
from kiku.hf.configuration import KyutaiSpeechToTextConfig
from kiku.hf.embedding import KyutaiSpeechToTextEmbeddings
from kiku.hf.generation_config import GenerationConfig
from kiku.hf.generation_mixin import GenerationMixin
from kiku.hf.layout import Layout, attention_layout
from kiku.hf.outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    KyutaiSpeechToTextCache,
    begin_with,
    own_past,
)
from kiku.hf.pretrained import KyutaiSpeechToTextPreTrainedModel
from kiku.hf.source import refuse_unknown
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
        config.settle_pad()
        self.config = config
        self.model_config: ModelConfig = config.to_model_config()
        self.codec_model = MimiModel(self.model_config.codec)
        self.lm = LM(self.model_config.lm)
        for module in self.lm.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=config.initializer_range)
        # Not registered as a submodule: its weights would be counted and saved twice.
        vars(self)["embed_tokens"] = KyutaiSpeechToTextEmbeddings(self)
        self.eval()

    embed_tokens: KyutaiSpeechToTextEmbeddings
    """Turns columns into their summed embeddings."""

    @property
    def trunk(self) -> "KyutaiSpeechToTextModel":
        """This model itself."""
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> "KyutaiSpeechToTextModel":
        """Move and cast the decoder; only move the codec: lower precision changes its codes."""

        def moved(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            return changed if changed.dtype == tensor.dtype else tensor.to(changed.device)

        self.codec_model._apply(moved)  # pyright: ignore[reportUnknownMemberType]
        self.lm._apply(fn)  # pyright: ignore[reportUnknownMemberType]
        return self

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Read columns.

        Args:
            input_ids: [B, T, 1 + K] int64: the text id, then the codes. `audio_pad_token_id` adds
                nothing.
            attention_mask: [B, past + T] 0 where a column is padding, before or after a row; its
                output is zero. Padding is not read: columns after it follow those before, unless
                `position_ids` say otherwise. If these are left out, a hole in a row takes
                positions. It needs a call without a past, as do masks [B, 1 or H, T, T].
            position_ids: [B, T] of the columns; None counts them. With a past they increase by one
                from each real column to the next. Without one they may skip or begin again: without
                a mask a row then holds several sequences, which do not see one another.
            past_key_values: the past of an earlier call; advanced in place. An empty cache of
                transformers counts as None.
            inputs_embeds: [B, T, D] instead of `input_ids`.
            use_cache: return the past. Nothing read with a past can be differentiated, so None
                means `config.use_cache`, but False while gradients are recorded, and for masks or
                positions that are allowed only without a past.
            output_hidden_states: return the input of every layer as well; None takes the config's
                value, also for the next two arguments.
            output_attentions: return the attention weights of every layer as well.
            return_dict: False for a tuple.
            **kwargs: only None is allowed.

        Returns:
            `last_hidden_state` [B, T, D], `past_key_values`, `hidden_states`, `attentions`.

        Raises:
            InputError: (a ValueError) invalid shapes, ids, positions or mask.
            UnsupportedConfig: attention weights of rows with padding and a past, dropout, or a
                cache of another kind.
        """
        refuse_unknown(kwargs, "forward")
        self._check_input(input_ids, inputs_embeds)
        past, grad = own_past(past_key_values), torch.is_grad_enabled()
        wants_cache = self.config.use_cache and not grad if use_cache is None else use_cache
        with torch.set_grad_enabled(grad and not (wants_cache or past)):
            embeds = self._embeds(input_ids, inputs_embeds)
            window = self.lm.config.transformer.window
            layout = attention_layout(attention_mask, position_ids, embeds, past, window)
            if layout.view is not None:
                _refuse_past(use_cache, past)
            elif past is None and wants_cache:
                past = self._new_past(len(embeds), past_key_values)
            out = self._read(embeds, past, layout, output_hidden_states, output_attentions)
        return out if self._switch("return_dict", return_dict, True) else out.to_tuple()

    def _check_input(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> None:
        """Raise InputError or UnsupportedConfig for inputs or a config that `forward` refuses."""
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give exactly one of input_ids and inputs_embeds")
        if self.training and self.config.attention_dropout:
            raise UnsupportedConfig(
                f"attention_dropout={self.config.attention_dropout} is not supported: set it to "
                "0.0 in the config before training"
            )

    def _embeds(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """[B, T, D] embeddings of the columns, in the decoder's dtype."""
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        return embeds.to(self.dtype)

    def _new_past(self, batch_size: int, past_key_values: Any) -> KyutaiSpeechToTextCache:
        """An empty past; an empty cache that the caller gave stands for it from then on."""
        past = KyutaiSpeechToTextCache(self.lm, batch_size)
        begin_with(past_key_values, past)
        return past

    def _read(
        self,
        embeds: Tensor,
        past: KyutaiSpeechToTextCache | None,
        layout: Layout,
        output_hidden_states: bool | None,
        output_attentions: bool | None,
    ) -> BaseModelOutputWithPast:
        """The output of `forward` for embeddings [B, T, D] in this layout."""
        wants_states = self._switch("output_hidden_states", output_hidden_states)
        wants_weights = self._switch("output_attentions", output_attentions)
        trace: list[Tensor] | None = [] if wants_states else None
        weights: list[Tensor] | None = [] if wants_weights else None
        is_learning = self.training and torch.is_grad_enabled()
        checkpointing = self._checkpointing if is_learning else None
        hidden = read_columns(self.lm, embeds, past, layout, trace, weights, checkpointing)
        return BaseModelOutputWithPast(
            hidden,
            past,
            None if trace is None else tuple(trace),
            None if weights is None else tuple(weights),
        )


def _refuse_past(use_cache: bool | None, past: object) -> None:
    """Raise InputError if there is a past: this mask or these positions allow none."""
    if use_cache or past is not None:
        raise InputError(
            "this attention_mask or these position_ids are taken without a past only: leave "
            "past_key_values and use_cache=True out"
        )


class KyutaiSpeechToTextForConditionalGeneration(GenerationMixin):
    """The whole model: sound to text ids (`generate`), columns to logits and loss (`forward`)."""

    def __init__(self, config: KyutaiSpeechToTextConfig) -> None:
        """Random weights; `from_pretrained` fills in real ones.

        Raises:
            UnsupportedConfig: a value that kiku does not build.
        """
        super().__init__()
        self.model = KyutaiSpeechToTextModel(config)
        self.generation_config = GenerationConfig(
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
        """The model's config."""
        return self.model.config

    @property
    def codec_model(self) -> MimiModel:
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
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Read columns and give the logits of the next text ids.

        Args:
            input_ids: see `KyutaiSpeechToTextModel.forward`, as for the arguments that are not
                explained here.
            attention_mask: [B, past + T], or of four axes.
            position_ids: [B, T].
            past_key_values: the past of an earlier call.
            inputs_embeds: [B, T, D].
            labels: [B, T] text ids; the logits of position t predict label t + 1; -100 is ignored.
                For a training step pass the text ids of `input_ids` themselves.
            use_cache: return the past.
            logits_to_keep: only the last n positions (0: all), or a tensor: [n] positions, [B, n]
                positions of each row, or [B, T] booleans (the logits are then [num_true,
                vocab_size]).
            output_hidden_states: return the input of every layer as well.
            output_attentions: return the attention weights of every layer as well.
            return_dict: False for a tuple.
            num_items_in_batch: divide the summed loss by it, instead of the mean.
            **kwargs: only None is allowed.

        Returns:
            `loss`, `logits` [B, T, vocab_size], `past_key_values`, `hidden_states`, `attentions`.
            The logit of an id that cannot be emitted is -inf, so it has no share in the loss (in
            transformers it has).

        Raises:
            InputError: (a ValueError) invalid shapes, ids or mask.
            UnsupportedConfig: attention weights of rows with padding and a past, dropout, or a
                cache of another kind.
        """
        trunk = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache,
            output_hidden_states=output_hidden_states, output_attentions=output_attentions,
            return_dict=True, **kwargs,
        )  # fmt: skip
        with torch.set_grad_enabled(torch.is_grad_enabled() and trunk.past_key_values is None):
            logits = self._padded(self.lm_head(_kept(trunk.last_hidden_state, logits_to_keep)))
        loss = None if labels is None else _loss(logits, labels, num_items_in_batch)
        out = CausalLMOutputWithPast(
            loss, logits, trunk.past_key_values, trunk.hidden_states, trunk.attentions
        )
        return out if self._switch("return_dict", return_dict, True) else out.to_tuple()

    def _padded(self, logits: Tensor) -> Tensor:
        """[..., V] logits -> [..., vocab_size], -inf for ids without a row of the head."""
        return F.pad(logits, (0, self.vocab_size - logits.shape[-1]), value=-torch.inf)


def _kept(hidden: Tensor, which: int | Tensor) -> Tensor:
    """The positions of hidden [B, T, D] whose logits are asked for."""
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
