"""Logits processors, which change a batch's logits before an id is picked, and stopping criteria.

The logits processors are transformers' own classes, in the order in which transformers applies
them; they need transformers to be installed. Sampling by temperature, top_k and top_p,
`eos_token_id` and `max_time` do not.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kiku.decoding import Sampler
from kiku.errors import InputError, UnsupportedConfig
from kiku.hf.generation_config import ACTING, GenerationConfig

Processor = Callable[[Tensor, Tensor], Tensor]
"""Takes ids [B, n] and scores [B, vocab_size], and gives the scores to pick from."""

Criterion = Callable[[Tensor, Any], Any]
"""Takes ids [B, n] and the scores so far, and says for each row [B] whether it is done."""

_PLAIN = frozenset({
    "bos_token_id", "do_sample", "max_new_tokens", "min_length", "min_new_tokens",
    "num_return_sequences", "output_logits", "output_scores", "pad_token_id",
    "return_dict_in_generate", "temperature", "top_k", "top_p",
})  # fmt: skip
"""Values that act without a processor or a criterion (minimal lengths only delay an end id)."""

_WARPING = frozenset({"epsilon_cutoff", "eta_cutoff", "min_p", "top_h", "typical_p"})
"""Values that act only while sampling."""


def stepwise_values(values: GenerationConfig) -> list[str]:
    """Names of the values that need all rows of a batch together, one id after the other."""
    return [
        key
        for key, neutral in ACTING.items()
        if key not in _PLAIN
        and (key not in _WARPING or values.do_sample)
        and getattr(values, key) is not None
        and getattr(values, key) != neutral
    ]


@dataclass(frozen=True)
class Custom:
    """The processors, criteria and functions that the caller of `generate` passed."""

    logits_processor: Sequence[Any] = ()
    stopping_criteria: Sequence[Any] = ()
    prefix_allowed_tokens_fn: Any = None
    tokenizer: Any = None

    def __bool__(self) -> bool:
        return bool(
            len(self.logits_processor)
            or len(self.stopping_criteria)
            or self.prefix_allowed_tokens_fn is not None
        )


class _ProcessorList:
    """Collects processors of transformers' own classes."""

    def __init__(self, values: GenerationConfig) -> None:
        self.values = values
        self.found: list[Any] = []

    def add(self, key: str, name: str, *arguments: Any, **named: Any) -> None:
        """Add one of the class `name`, because of the value `key`."""
        kind = _import_transformers("generation.logits_process", name, key)
        try:
            self.found.append(kind(*arguments, **named))
        except (TypeError, ValueError) as error:
            raise InputError(f"generate: {key}={getattr(self.values, key, None)!r}: {error}") from (
                error
            )

    def simple(self, key: str, name: str, **named: Any) -> None:
        """Add one that takes the value `key`, unless that is its default."""
        value = getattr(self.values, key)
        if value is not None and value != ACTING[key]:
            self.add(key, name, value, **named)


def logits_processors(
    values: GenerationConfig, custom: Custom, start: Tensor, num_tokens: int
) -> list[Processor]:
    """All logits processors of a call, in the order in which transformers applies them.

    Args:
        values: generation values of this call.
        custom: what the caller passed; a processor of his replaces a built one of the same class.
        start: [B, 1] the start ids, which take the place of transformers' prompt.
        num_tokens: how many ids are generated at most.

    Raises:
        InputError: a processor's class refuses a value.
        UnsupportedConfig: a processor is needed, and transformers is not installed.
    """
    processors, device = _ProcessorList(values), start.device
    processors.simple("sequence_bias", "SequenceBiasLogitsProcessor")
    processors.simple(
        "encoder_repetition_penalty",
        "EncoderRepetitionPenaltyLogitsProcessor",
        encoder_input_ids=start,
    )
    processors.simple("repetition_penalty", "RepetitionPenaltyLogitsProcessor")
    processors.simple("no_repeat_ngram_size", "NoRepeatNGramLogitsProcessor")
    processors.simple(
        "encoder_no_repeat_ngram_size", "EncoderNoRepeatNGramLogitsProcessor",
        encoder_input_ids=start,
    )  # fmt: skip
    _add_ends(processors, device)
    if custom.prefix_allowed_tokens_fn is not None:
        processors.add(
            "prefix_allowed_tokens_fn", "PrefixConstrainedLogitsProcessor",
            custom.prefix_allowed_tokens_fn, 1,
        )  # fmt: skip
    processors.simple("forced_bos_token_id", "ForcedBOSTokenLogitsProcessor")
    if values.forced_eos_token_id is not None:
        processors.add(
            "forced_eos_token_id", "ForcedEOSTokenLogitsProcessor",
            1 + num_tokens, values.forced_eos_token_id, device=device,
        )  # fmt: skip
    if values.remove_invalid_values:
        processors.add("remove_invalid_values", "InfNanRemoveLogitsProcessor")
    if values.exponential_decay_length_penalty is not None:
        processors.add(
            "exponential_decay_length_penalty", "ExponentialDecayLengthPenalty",
            tuple(values.exponential_decay_length_penalty), _ends(values, device, needed=True), 1,
        )  # fmt: skip
    processors.simple("suppress_tokens", "SuppressTokensLogitsProcessor", device=device)
    if values.begin_suppress_tokens is not None:
        first = 1 if values.forced_bos_token_id is None else 2
        processors.add(
            "begin_suppress_tokens", "SuppressTokensAtBeginLogitsProcessor",
            values.begin_suppress_tokens, first, device=device,
        )  # fmt: skip
    processors.found = _merged(processors.found, custom.logits_processor)
    if values.do_sample:
        _add_warpers(processors, device)
    if values.renormalize_logits:
        processors.add("renormalize_logits", "LogitNormalization")
    return processors.found


def _add_ends(processors: _ProcessorList, device: torch.device) -> None:
    """Add the processors that forbid words, or an end id for some time."""
    values = processors.values
    ends = _ends(values, device)
    if values.bad_words_ids is not None:
        processors.add("bad_words_ids", "NoBadWordsLogitsProcessor", values.bad_words_ids, ends)
    if ends is None:
        return
    # A minimum of new ids wins over a minimal length, which counts the start id.
    fewest = values.min_length if values.min_new_tokens is None else values.min_new_tokens + 1
    if fewest:
        processors.add("min_length", "MinLengthLogitsProcessor", fewest, ends, device=device)
    if values.min_new_tokens:
        processors.add(
            "min_new_tokens", "MinNewTokensLengthLogitsProcessor",
            1, values.min_new_tokens, ends, device=device,
        )  # fmt: skip


def _add_warpers(processors: _ProcessorList, device: torch.device) -> None:
    """Add the processors of sampling. Temperature, top_k and top_p need no transformers."""
    values = processors.values
    temperature = 1.0 if values.temperature is None else values.temperature
    top_p = 1.0 if values.top_p is None else values.top_p
    processors.found.append(_SamplerProcessor(Sampler(temperature)))
    processors.simple("top_h", "TopHLogitsWarper")
    processors.found.append(_SamplerProcessor(Sampler(top_k=values.top_k or 0, top_p=top_p)))
    processors.simple("min_p", "MinPLogitsWarper")
    processors.simple("typical_p", "TypicalLogitsWarper")
    processors.simple("epsilon_cutoff", "EpsilonLogitsWarper")
    processors.simple("eta_cutoff", "EtaLogitsWarper", device=device)


class _SamplerProcessor:
    """A processor that changes scores as a `Sampler` does before it draws."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        rows = [self._sampler.scores(row) for row in scores.numpy(force=True)]
        return torch.from_numpy(np.stack(rows).astype(np.float32)).to(scores.device)  # pyright: ignore[reportUnknownMemberType]


def stopping_criteria(
    values: GenerationConfig, custom: Custom, device: torch.device
) -> list[Criterion]:
    """The criteria that end a row before its sound does.

    Raises:
        InputError: stop strings are given without a tokenizer.
        UnsupportedConfig: stop strings are given, and transformers is not installed.
    """
    found: list[Any] = []
    if values.max_time is not None:
        found.append(MaxTimeCriteria(values.max_time))
    if values.stop_strings is not None:
        if custom.tokenizer is None:
            raise InputError("generate: stop_strings need tokenizer=processor.tokenizer as well")
        kind = _import_transformers(
            "generation.stopping_criteria", "StopStringCriteria", "stop_strings"
        )
        try:
            found.append(kind(stop_strings=values.stop_strings, tokenizer=custom.tokenizer))
        except ValueError as error:
            raise InputError(f"generate: stop_strings={values.stop_strings!r}: {error}") from error
    ends = _ends(values, device)
    if ends is not None:
        found.append(EosTokenCriteria(ends))
    return _merged(found, custom.stopping_criteria)


class MaxTimeCriteria:
    """All rows are done `max_time` seconds after this object was made."""

    def __init__(self, max_time: float) -> None:
        self.max_time, self._began = max_time, time.monotonic()

    def __call__(self, ids: Tensor, scores: Any) -> Tensor:
        is_over = time.monotonic() - self._began > self.max_time
        return torch.full((len(ids),), is_over, device=ids.device)


class EosTokenCriteria:
    """A row is done once its last id is one of `eos_token_id`."""

    def __init__(self, eos_token_id: Tensor) -> None:
        self.eos_token_id = eos_token_id

    def __call__(self, ids: Tensor, scores: Any) -> Tensor:
        return torch.isin(ids[:, -1], self.eos_token_id)


def _ends(values: GenerationConfig, device: torch.device, *, needed: bool = False) -> Any:
    """The ids that end a row, as a tensor; None if there are none."""
    ids = values.eos_token_id
    if ids is None:
        if needed:
            raise InputError(
                "generate: exponential_decay_length_penalty raises the odds of eos_token_id, "
                "which is not given"
            )
        return None
    return torch.as_tensor([ids] if isinstance(ids, int) else ids, device=device)


def _merged(built: list[Any], custom: Iterable[Any]) -> list[Any]:
    """The built ones, each replaced by a custom one of its class, then the other custom ones."""
    kinds = {type(one).__name__: one for one in reversed(list(custom))}
    final = [kinds.get(type(one).__name__, one) for one in built]
    return final + [one for one in custom if not any(one is other for other in final)]


def _import_transformers(module: str, name: str, key: str) -> Any:
    """A class of transformers.

    Raises:
        UnsupportedConfig: it is not installed, or too old to have it.
    """
    try:
        return getattr(import_module(f"transformers.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise UnsupportedConfig(
            f"generate: {key} is done by transformers' {name}, which is not here ({error}); "
            "run  pip install 'transformers>=5.23'  or leave it out"
        ) from error
