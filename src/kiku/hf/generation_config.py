# pyright: basic
# It takes and gives what transformers does, of any type.
"""The values of `generate`: which act, which are refused, and which change nothing.

Every field of transformers' `GenerationConfig` is in exactly one of the three tables here (a test
compares them with that class), so that none is ignored silently.
"""

import logging
from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

from kiku.errors import InputError, UnsupportedConfig
from kiku.hf.values import Values

_logger = logging.getLogger(__name__)

ACTING: dict[str, Any] = {
    "begin_suppress_tokens": None, "bad_words_ids": None, "bos_token_id": None, "do_sample": False,
    "encoder_no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1.0, "eos_token_id": None,
    "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "max_new_tokens": None,
    "max_time": None, "min_length": 0, "min_new_tokens": None, "min_p": None,
    "no_repeat_ngram_size": 0, "num_return_sequences": 1, "output_attentions": False,
    "output_hidden_states": False, "output_logits": False, "output_scores": False,
    "pad_token_id": None, "remove_invalid_values": False, "renormalize_logits": False,
    "repetition_penalty": 1.0, "return_dict_in_generate": False, "sequence_bias": None,
    "stop_strings": None, "suppress_tokens": None, "temperature": 1.0, "top_h": None, "top_k": 50,
    "top_p": 1.0, "typical_p": 1.0,
}  # fmt: skip
"""Values that act, with their defaults."""

REFUSED: dict[str, tuple[Any, ...]] = {
    "assistant_early_exit": (None,), "cache_implementation": (), "constraints": (None,),
    "dola_layers": (None,), "early_stopping": (None, False, True, "never"),
    "force_words_ids": (None,), "guidance_scale": (None, 1.0), "is_assistant": (None, False),
    "num_beams": (None, 1), "penalty_alpha": (None, 0.0), "prompt_lookup_num_tokens": (None,),
    "token_healing": (None, False), "use_mtp": (None, False), "watermarking_config": (None,),
}  # fmt: skip
"""Values whose feature is not supported, each with the settings that ask for nothing."""

WITHOUT_EFFECT = frozenset({
    "assistant_confidence_threshold", "assistant_ensemble_weight", "assistant_lookbehind",
    "cache_config", "compile_config", "continuous_batching_config", "decoder_start_token_id",
    "disable_compile", "diversity_penalty", "length_penalty", "low_memory", "max_cache_len",
    "max_length", "max_matching_ngram_size", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "num_beam_groups", "prefill_chunk_size", "speculation_type",
    "target_lookbehind", "transformers_version", "use_cache",
})  # fmt: skip
"""Values that change no id in transformers either, without beams or an assistant; and choices of
caches, of which kiku has one."""

_SAMPLING_ONLY = (
    "temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
)  # fmt: skip

_ARGUMENTS_WITHOUT_EFFECT = frozenset({
    "assistant_tokenizer", "audio_window_size", "logits_to_keep", "negative_prompt_attention_mask",
    "negative_prompt_ids", "position_ids", "synced_gpus", "trust_remote_code",
})  # fmt: skip
"""Arguments of `generate` that are no values of its config."""

_REFUSED_ARGUMENTS = {
    "input_ids": "text prompts are not supported: every transcript begins at the start id",
    "inputs": "text prompts are not supported: every transcript begins at the start id",
    "inputs_embeds": "columns are not taken here: every transcript begins at the start id",
    "past_key_values": "a past is not taken here: every transcript begins at the start id",
    "assistant_model": "assisted decoding is not supported",
    "custom_generate": "another loop than kiku's is not run",
}


class GenerationConfig(Values):
    """Values of generation_config.json; other values of the file are kept and saved."""

    file_name = "generation_config.json"

    def __init__(self, **kwargs: Any) -> None:
        """Leave values open that are not given: the model's own apply, then transformers' defaults.

        Args:
            **kwargs: `do_sample` (False), `temperature` (1.0), `top_k` (50), `top_p` (1.0),
                `max_new_tokens`, `bos_token_id`, `pad_token_id`, `return_dict_in_generate`,
                `suppress_tokens` and the other fields of transformers' class; unknown ones are
                kept. docs/transformers.md says which `generate` refuses.
        """
        for key in (*ACTING, *REFUSED, *WITHOUT_EFFECT):
            setattr(self, key, None)
        vars(self).update(kwargs)

    if TYPE_CHECKING:  # the fields of the tables

        def __getattr__(self, name: str) -> Any: ...

    def to_dict(self) -> dict[str, Any]:
        """All values that are given."""
        return {key: value for key, value in super().to_dict().items() if value is not None}


def resolve_config(
    model_values: GenerationConfig, values: Any, changes: Mapping[str, Any]
) -> GenerationConfig:
    """The values of one call: `changes` win over `values`, then the model's, then the defaults.

    Args:
        model_values: the model's values.
        values: values of this call; a `GenerationConfig` of either library, or None.
        changes: the keywords of this call. An explicit None stays None, as in transformers.

    Raises:
        InputError: `changes` has a key that `generate` does not know.
        UnsupportedConfig: a way of generating that kiku does not build (text prompts, beams ...).
    """
    _check_arguments(changes)
    given = {} if values is None else {k: v for k, v in vars(values).items() if v is not None}
    wanted = {k: v for k, v in changes.items() if k in _FIELDS}
    config = copy(model_values)
    vars(config).update(given)
    for key, default in ACTING.items():
        if getattr(config, key, None) is None:
            setattr(config, key, default)
    vars(config).update(wanted)
    _check_built(config)
    _warn(config, {**given, **wanted})
    return config


_FIELDS = ACTING.keys() | REFUSED.keys() | WITHOUT_EFFECT


def _check_arguments(changes: Mapping[str, Any]) -> None:
    """Raise for keywords that are no values of a config, and unknown or asking for the unbuilt."""
    for key, why in _REFUSED_ARGUMENTS.items():
        if changes.get(key) is not None:
            raise UnsupportedConfig(f"generate: {key}: {why}; leave it out")
    mask = changes.get("attention_mask")
    if mask is not None and not bool((mask != 0).all()):
        raise UnsupportedConfig(
            "generate: attention_mask hides the start id, the only text there is; leave it out, "
            "and say with padding_mask where a recording ends"
        )
    known = _FIELDS | _ARGUMENTS_WITHOUT_EFFECT | _REFUSED_ARGUMENTS.keys() | {"attention_mask"}
    if unknown := sorted(k for k, v in changes.items() if v is not None and k not in known):
        raise InputError(f"The following `model_kwargs` are not used by the model: {unknown}")


def _check_built(config: GenerationConfig) -> None:
    for key, neutral in REFUSED.items():
        value = getattr(config, key, None)
        if key == "cache_implementation":
            if value == "paged":
                raise UnsupportedConfig(
                    "generate: cache_implementation='paged' is not supported; leave it out"
                )
        elif not any(value is one or (one is not None and value == one) for one in neutral):
            raise UnsupportedConfig(f"generate: {key}={value!r} is not supported; leave it out")
    count = config.num_return_sequences
    if count is not None and count != 1 and not (config.do_sample and count > 1):
        raise InputError(
            "Greedy methods (do_sample != True) without beam search do not support "
            f"`num_return_sequences` different than 1 (got {count})."
        )


def _warn(config: GenerationConfig, given: Mapping[str, Any]) -> None:
    """Warn of values of this call that have no effect, as transformers does."""
    without = {"length_penalty": (None, 1.0), "early_stopping": (None, False)}
    if not config.do_sample:
        without |= {key: (None, ACTING[key]) for key in _SAMPLING_ONLY}
    ignored = sorted(key for key, neutral in without.items() if given.get(key) not in neutral)
    if ignored:
        _logger.warning(
            "The following generation flags are not valid and may be ignored: %s. They act only "
            "with do_sample=True, or with beams, which kiku does not build.", ignored,
        )  # fmt: skip
    if given.get("max_length") is not None:
        _logger.warning(
            "`max_length` (%s) has no effect: there is one id for every frame; say "
            "`max_new_tokens`.", given["max_length"],
        )  # fmt: skip
