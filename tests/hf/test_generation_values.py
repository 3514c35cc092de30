"""Every value of `GenerationConfig` acts as in transformers, changes nothing there too, or is
refused."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from kiku.errors import InputError, UnsupportedConfig
from kiku.hf import (
    GenerationConfig,
    KyutaiSpeechToTextForConditionalGeneration,
    KyutaiSpeechToTextProcessor,
    KyutaiSpeechToTextTokenizer,
)
from kiku.hf.generation_config import ACTING, REFUSED, WITHOUT_EFFECT
from kiku.text import Vocabulary
from tests.hf.tiny_checkpoint import FRAME, PIECES, VOCAB_SIZE, noise

Ours = KyutaiSpeechToTextForConditionalGeneration
FRAMES = 16
FILLER = [VOCAB_SIZE - 1]
SOUND = torch.from_numpy(np.stack([noise(FRAMES * FRAME, seed) for seed in range(2)]))[:, None]


def both(theirs: Any, ours: Ours, **values: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What each gives; the filler id, which ours cannot give, is masked in theirs."""
    words = [FILLER, *values.get("bad_words_ids", [])]
    wanted = theirs.generate(input_values=SOUND, **{**values, "bad_words_ids": words})
    return ours.generate(input_values=SOUND, **values), wanted


@pytest.fixture(scope="module")
def plain(ours: Ours) -> torch.Tensor:
    """Of the sound, with nothing said."""
    return ours.generate(input_values=SOUND)


def test_every_field_is_in_one_table(transformers: ModuleType) -> None:
    tables = [set(ACTING), set(REFUSED), set(WITHOUT_EFFECT)]
    fields = {name for name in vars(transformers.GenerationConfig()) if name[0] != "_"}
    assert set.union(*tables) == fields
    assert sum(map(len, tables)) == len(fields)


GREEDY: dict[str, dict[str, Any]] = {
    "suppress_tokens": {"suppress_tokens": [18, 20]},
    "begin_suppress_tokens": {"begin_suppress_tokens": [20]},
    "begin_suppress_tokens, forced": {"begin_suppress_tokens": [20], "forced_bos_token_id": 5},
    "bad_words_ids": {"bad_words_ids": [[18], [8, 5]]},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "repetition_penalty": {"repetition_penalty": 1.5},
    "repetition_penalty, all": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 3.0, "bos_token_id": 5},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1, "bos_token_id": 15},
    "forced_bos_token_id": {"forced_bos_token_id": 5},
    "forced_eos_token_id": {"forced_eos_token_id": 5},
    "forced_eos_token_id, cut": {"forced_eos_token_id": 5, "max_new_tokens": 6},
    "sequence_bias": {"sequence_bias": [[[18], -5.0], [[8, 5], 9.0]]},
    "remove_invalid_values": {"remove_invalid_values": True, "suppress_tokens": [18]},
    "renormalize_logits": {"renormalize_logits": True, "suppress_tokens": [18]},
    "eos_token_id": {"eos_token_id": 18},
    "eos_token_id, several": {"eos_token_id": [19, 31], "pad_token_id": 7},
    "eos_token_id of one row": {"eos_token_id": 21},
    "min_length": {"eos_token_id": 18, "min_length": 9},
    "min_new_tokens": {"eos_token_id": 18, "min_new_tokens": 9},
    "min_new_tokens wins": {"eos_token_id": 18, "min_new_tokens": 5, "min_length": 20},
    "min_new_tokens without an end": {"min_new_tokens": 9},
    "exponential_decay_length_penalty": {
        "eos_token_id": 4, "exponential_decay_length_penalty": (3, 1.5)
    },
    "bos_token_id": {"bos_token_id": 5},
    "bos_token_id, cut": {"bos_token_id": 15, "max_new_tokens": 3},
    "max_time": {"max_time": 0.0},
    "max_length": {"max_length": 5},
    "length_penalty": {"length_penalty": 3.0},
    "early_stopping": {"early_stopping": True},
    "temperature without sampling": {"temperature": 9.0, "min_p": 0.5, "top_k": 1},
    "cache_implementation": {"cache_implementation": "static"},
    "num_beam_groups": {"num_beam_groups": 2, "diversity_penalty": 0.3},
    "decoder_start_token_id": {"decoder_start_token_id": 4, "prefill_chunk_size": 2},
    "assistant values": {"num_assistant_tokens": 3, "assistant_lookbehind": 2},
}  # fmt: skip


NO_CHANGE = {
    "min_new_tokens without an end", "max_length", "length_penalty", "early_stopping",
    "temperature without sampling", "cache_implementation", "num_beam_groups",
    "decoder_start_token_id", "assistant values",
}  # fmt: skip


@pytest.mark.parametrize("case", GREEDY)
def test_a_value_gives_the_ids_of_theirs(
    theirs: Any, ours: Ours, plain: torch.Tensor, case: str
) -> None:
    given, wanted = both(theirs, ours, **GREEDY[case])
    torch.testing.assert_close(given, wanted)
    is_plain = given.shape == plain.shape and torch.equal(given, plain)
    assert is_plain == (case in NO_CHANGE)


@pytest.mark.parametrize("case", ["suppress_tokens", "eos_token_id", "bos_token_id", "max_time"])
def test_a_value_of_the_models_config_acts_too(ours: Ours, saved: Path, case: str) -> None:
    """As it stands in generation_config.json, and as a config of one call says it."""
    values = GREEDY[case]
    wanted = ours.generate(input_values=SOUND, **values)
    model = Ours.from_pretrained(saved)
    model.generation_config = GenerationConfig(**{**vars(model.generation_config), **values})
    torch.testing.assert_close(model.generate(input_values=SOUND), wanted)
    config = GenerationConfig(**values)
    torch.testing.assert_close(ours.generate(input_values=SOUND, generation_config=config), wanted)


def test_a_config_of_their_class_leaves_the_rest_to_the_model(
    transformers: ModuleType, ours: Ours, saved: Path
) -> None:
    model = Ours.from_pretrained(saved)
    model.generation_config.suppress_tokens = [18]
    wanted = ours.generate(input_values=SOUND, suppress_tokens=[18], no_repeat_ngram_size=2)
    for kind in (transformers.GenerationConfig, GenerationConfig):
        given = model.generate(input_values=SOUND, generation_config=kind(no_repeat_ngram_size=2))
        torch.testing.assert_close(given, wanted)


SAMPLING: dict[str, dict[str, Any]] = {
    "min_p": {"min_p": 0.2},
    "typical_p": {"typical_p": 0.5},
    "epsilon_cutoff": {"epsilon_cutoff": 0.05},
    "eta_cutoff": {"eta_cutoff": 0.3},
    "top_h": {"top_h": 0.4},
    "all": {
        "temperature": 0.8, "top_h": 0.7, "top_k": 9, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.9,
        "epsilon_cutoff": 0.01, "eta_cutoff": 0.01, "repetition_penalty": 1.2,
        "suppress_tokens": [4], "renormalize_logits": True,
    },
    "no top_k": {"top_k": None, "min_p": 0.01},
}  # fmt: skip


@pytest.mark.parametrize("case", SAMPLING)
def test_sampled_scores_are_those_of_their_processors(theirs: Any, ours: Ours, case: str) -> None:
    """Of the first id, whose logits no chance has touched."""
    asked = dict(
        input_values=SOUND, do_sample=True, max_new_tokens=1, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip
    given = ours.generate(**asked, **SAMPLING[case])
    wanted = theirs.generate(**asked, **SAMPLING[case], bad_words_ids=[FILLER])
    torch.testing.assert_close(given.scores[0], wanted.scores[0], atol=1e-4, rtol=1e-4)
    assert torch.isfinite(given.scores[0]).all(-1).sum() == 0
    picked = given.scores[0].gather(1, given.sequences[:, 1:])
    assert torch.isfinite(picked).all()


def test_a_seed_means_the_same_with_processors(ours: Ours) -> None:
    asked = dict(input_values=SOUND, do_sample=True, temperature=0.9, top_k=12, seed=4)
    drawn = ours.generate(**asked)
    torch.testing.assert_close(ours.generate(**asked, suppress_tokens=[]), drawn)
    torch.testing.assert_close(ours.generate(**asked, logits_processor=[_nothing]), drawn)
    assert not torch.equal(ours.generate(**{**asked, "seed": 5}, suppress_tokens=[]), drawn)


def _nothing(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return scores


def test_several_sequences_of_one_recording(theirs: Any, ours: Ours) -> None:
    asked = dict(do_sample=True, num_return_sequences=3, seed=1)
    for more in ({}, {"suppress_tokens": [18]}):
        tokens = ours.generate(input_values=SOUND, **asked, **more)
        assert tokens.shape == (6, 1 + FRAMES)
        assert len({tuple(row) for row in tokens.tolist()}) == 6
        repeated = SOUND.repeat_interleave(3, 0)
        again = ours.generate(input_values=repeated, do_sample=True, seed=1, **more)
        torch.testing.assert_close(tokens, again)
    for model in (theirs, ours):
        with pytest.raises(ValueError, match="Greedy methods"):
            model.generate(input_values=SOUND, num_return_sequences=2)
        assert model.generate(input_values=SOUND, num_return_sequences=1).shape[0] == 2


class Recorded:
    """A processor that writes down what it was given, and prefers one id more and more."""

    def __init__(self) -> None:
        self.given: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.given.append((input_ids.clone(), scores.clone()))
        scores[:, 7] += 0.4 * input_ids.shape[1]
        return scores


def test_a_processor_sees_what_it_sees_there(theirs: Any, ours: Ours) -> None:
    mine, other = Recorded(), Recorded()
    given = ours.generate(input_values=SOUND, logits_processor=[mine])
    wanted = theirs.generate(input_values=SOUND, logits_processor=[other], bad_words_ids=[FILLER])
    torch.testing.assert_close(given, wanted)
    assert len(mine.given) == len(other.given) == FRAMES
    for (ids, scores), (their_ids, their_scores) in zip(mine.given, other.given, strict=True):
        torch.testing.assert_close(ids, their_ids)
        torch.testing.assert_close(scores, their_scores, atol=1e-4, rtol=0)


def test_a_processor_of_a_built_class_stands_in_its_place(
    transformers: ModuleType, theirs: Any, ours: Ours
) -> None:
    kind = transformers.SuppressTokensLogitsProcessor
    for name in ("logits_processor",):
        values = {name: transformers.LogitsProcessorList([kind([18])]), "suppress_tokens": [20]}
        given, wanted = both(theirs, ours, **values)
        torch.testing.assert_close(given, wanted)
        torch.testing.assert_close(given, ours.generate(input_values=SOUND, suppress_tokens=[18]))


def test_allowed_ids(theirs: Any, ours: Ours) -> None:
    def allowed(row: int, ids: torch.Tensor) -> list[int]:
        return [4 + row, 6, 20] if ids[-1] != 20 else [9, 11]

    given, wanted = both(theirs, ours, prefix_allowed_tokens_fn=allowed)
    torch.testing.assert_close(given, wanted)
    assert {9, 11} & set(given.flatten().tolist())


CRITERIA: dict[str, Callable[[torch.Tensor, Any], Any]] = {
    "both": lambda ids, scores: torch.full((2,), ids.shape[1] > 9),
    "one after the other": lambda ids, scores: torch.tensor([ids.shape[1] == 5, ids.shape[1] > 12]),
    "never": lambda ids, scores: torch.zeros(2, dtype=torch.bool),
}


@pytest.mark.parametrize("case", CRITERIA)
def test_a_criterion_ends_as_there(theirs: Any, ours: Ours, case: str) -> None:
    given, wanted = both(theirs, ours, stopping_criteria=[CRITERIA[case]])
    torch.testing.assert_close(given, wanted)
    given, wanted = both(theirs, ours, stopping_criteria=[CRITERIA[case]], eos_token_id=18)
    torch.testing.assert_close(given, wanted)


def test_criteria_of_their_classes(transformers: ModuleType, theirs: Any, ours: Ours) -> None:
    found = transformers.generation.stopping_criteria
    for criteria in (
        [found.MaxLengthCriteria(7)],
        [found.MaxTimeCriteria(0.0)],
        found.StoppingCriteriaList([found.EosTokenCriteria(18)]),
    ):
        given, wanted = both(theirs, ours, stopping_criteria=criteria, max_time=100.0)
        torch.testing.assert_close(given, wanted)


def test_stop_strings(transformers: ModuleType, theirs: Any, ours: Ours) -> None:
    pieces = [*PIECES[:-7], *"abcdef", "▁"]  # their class spells some letters
    vocabulary = Vocabulary.from_pieces(pieces)
    mine = KyutaiSpeechToTextTokenizer(vocabulary)
    other = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(vocabulary.to_tokenizer_json()), unk_token="<unk>"
    )
    plain = ours.generate(input_values=SOUND)
    first, second = (pieces[int(plain[row, 6 - 3 * row])].strip("▁") for row in (0, 1))
    for stop in (first, [second, "nothing of the kind"]):
        wanted = theirs.generate(
            input_values=SOUND, stop_strings=stop, tokenizer=other, bad_words_ids=[FILLER]
        )
        for tokenizer in (mine, other):
            given = ours.generate(input_values=SOUND, stop_strings=stop, tokenizer=tokenizer)
            torch.testing.assert_close(given, wanted)


def test_stop_strings_that_cannot_be(ours: Ours, processor: KyutaiSpeechToTextProcessor) -> None:
    with pytest.raises(InputError, match=r"stop_strings=\['q'\]: "):
        ours.generate(input_values=SOUND, stop_strings=["q"], tokenizer=processor.tokenizer)


def test_a_criterion_is_shown_the_scores(ours: Ours) -> None:
    seen: list[Any] = []

    def criterion(ids: torch.Tensor, scores: Any) -> torch.Tensor:
        seen.append(scores)
        return torch.full((2,), len(seen) % 3 == 0)

    ours.generate(input_values=SOUND, stopping_criteria=[criterion])
    asked = dict(return_dict_in_generate=True, output_scores=True)
    out = ours.generate(input_values=SOUND, stopping_criteria=[criterion], **asked)
    assert seen[:3] == [None, None, None]
    assert [len(one) for one in seen[3:]] == [1, 2, 3] == list(range(1, 1 + len(out.scores)))


def test_outputs_are_theirs_with_processors(theirs: Any, ours: Ours) -> None:
    asked = dict(
        return_dict_in_generate=True, output_scores=True, output_logits=True,
        output_hidden_states=True, suppress_tokens=[18], eos_token_id=32,
    )  # fmt: skip
    given, wanted = both(theirs, ours, **asked)
    torch.testing.assert_close(given.sequences, wanted.sequences)
    assert given.keys() == ["sequences", "scores", "logits", "hidden_states"]
    for name in ("scores", "logits"):
        mine, other = getattr(given, name), getattr(wanted, name)
        assert len(mine) == len(other)
        for one, two in zip(mine, other, strict=True):
            torch.testing.assert_close(one[:, :-1], two[:, :-1], atol=1e-4, rtol=0)
    assert len(given.hidden_states) == len(wanted.hidden_states)
    for one, two in zip(given.hidden_states, wanted.hidden_states, strict=True):
        for layer, other in zip(one, two, strict=True):
            torch.testing.assert_close(layer, other, atol=1e-4, rtol=0)


def test_attention_weights_of_every_id(theirs: Any, ours: Ours, plain: torch.Tensor) -> None:
    asked = dict(return_dict_in_generate=True, output_attentions=True)
    theirs.set_attn_implementation("eager")
    given, wanted = both(theirs, ours, **asked)
    theirs.set_attn_implementation("sdpa")
    torch.testing.assert_close(given.sequences, plain)
    assert len(given.attentions) == len(wanted.attentions) == FRAMES
    for one, two in zip(given.attentions, wanted.attentions, strict=True):
        for layer, other in zip(one, two, strict=True):
            torch.testing.assert_close(layer, other, atol=1e-4, rtol=0)


def test_hidden_states_alone(plain: torch.Tensor, ours: Ours) -> None:
    out = ours.generate(input_values=SOUND, return_dict_in_generate=True, output_hidden_states=True)
    torch.testing.assert_close(out.sequences, plain)
    assert out.keys() == ["sequences", "hidden_states"]
    assert out.hidden_states[3][0].shape == (2, 1, 32)


def test_rows_end_with_their_own_sound_here_too(
    ours: Ours, processor: KyutaiSpeechToTextProcessor
) -> None:
    inputs = processor([noise(900, 1), noise(2000, 2), noise(100, 3)])
    asked = dict(return_dict_in_generate=True, output_logits=True)
    wanted = ours.generate(**inputs, **asked)
    given = ours.generate(**inputs, **asked, logits_processor=[_nothing])
    torch.testing.assert_close(given.sequences, wanted.sequences)
    for one, two in zip(given.logits, wanted.logits, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=0)


class Kept:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[torch.Tensor] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        self.given.append(value)

    def end(self) -> None:
        self.ended += 1


def test_a_streamer_is_given_every_id(theirs: Any, ours: Ours) -> None:
    mine, other = Kept(), Kept()
    tokens = ours.generate(input_values=SOUND, streamer=mine, eos_token_id=19)
    theirs.generate(input_values=SOUND, streamer=other, eos_token_id=19, bad_words_ids=[FILLER])
    assert mine.ended == other.ended == 1
    assert len(mine.given) == len(other.given)
    for one, two in zip(mine.given, other.given, strict=True):
        torch.testing.assert_close(one, two)
    assert len(mine.given) == tokens.shape[1]


def test_a_start_id_beyond_the_text_stands_for_the_trained_one(
    plain: torch.Tensor, ours: Ours
) -> None:
    for more in ({}, {"repetition_penalty": 1.5}):
        tokens = ours.generate(input_values=SOUND, bos_token_id=48_000, **more)
        assert tokens[:, 0].tolist() == [48_000, 48_000]
        wanted = ours.generate(input_values=SOUND, **more)
        torch.testing.assert_close(tokens[:, 1:], wanted[:, 1:])
    with pytest.raises(InputError, match="bos_token_id must be a text id"):
        ours.generate(input_values=SOUND, bos_token_id=-1)


NEUTRAL: list[dict[str, Any]] = [
    {key: value} for key, values in REFUSED.items() for value in (values or (None,))
] + [
    {"logits_processor": []}, {"stopping_criteria": []}, {"assistant_model": None},
    {"input_ids": None}, {"inputs": None}, {"token": None}, {"anything": None},
    {"attention_mask": torch.ones(2, 1)}, {"synced_gpus": False}, {"custom_generate": None},
    {"num_beams": 1, "length_penalty": 1.0, "repetition_penalty": 1.0, "typical_p": 1.0},
    {"use_cache": True}, {"use_cache": None}, {"max_time": None}, {"no_repeat_ngram_size": 0},
    {"min_length": 0}, {"min_new_tokens": 0}, {"renormalize_logits": False}, {"top_k": 50},
    {"negative_prompt_ids": None}, {"position_ids": torch.zeros(2, 1)}, {"logits_to_keep": 1},
    {"trust_remote_code": False}, {"guidance_scale": 1}, {"eos_token_id": None},
    {"output_attentions": False, "output_scores": True},
]  # fmt: skip


@pytest.mark.parametrize("values", NEUTRAL, ids=str)
def test_what_asks_for_nothing_is_taken(
    plain: torch.Tensor, ours: Ours, values: dict[str, Any]
) -> None:
    torch.testing.assert_close(ours.generate(input_values=SOUND, **values), plain)


NOT_BUILT: dict[str, Any] = {
    "assistant_early_exit": 2, "cache_implementation": "paged", "constraints": [1],
    "dola_layers": "low", "early_stopping": "sometimes", "force_words_ids": [[4]],
    "guidance_scale": 1.5, "is_assistant": True, "num_beams": 2, "penalty_alpha": 0.6,
    "prompt_lookup_num_tokens": 3, "token_healing": True, "use_mtp": True,
    "watermarking_config": {"greenlist_ratio": 0.3},
}  # fmt: skip


def test_all_that_is_refused_is_tried() -> None:
    assert NOT_BUILT.keys() == REFUSED.keys()


@pytest.mark.parametrize("key", NOT_BUILT)
def test_what_is_not_built_is_refused(ours: Ours, key: str) -> None:
    for asked in (
        {key: NOT_BUILT[key]},
        {"generation_config": GenerationConfig(**{key: NOT_BUILT[key]})},
    ):
        with pytest.raises(UnsupportedConfig, match=f"{key}=.*is not supported; leave it out"):
            ours.generate(input_values=SOUND, **asked)


REFUSED_ARGUMENTS: dict[str, dict[str, Any]] = {
    "input_ids": {"input_ids": torch.ones(2, 4)},
    "inputs_embeds": {"inputs_embeds": torch.ones(2, 1, 32)},
    "past_key_values": {"past_key_values": object()},
    "assistant_model": {"assistant_model": object()},
    "custom_generate": {"custom_generate": "some/loop"},
    "attention_mask": {"attention_mask": torch.zeros(2, 1)},
}


@pytest.mark.parametrize("name", REFUSED_ARGUMENTS)
def test_arguments_that_are_refused(ours: Ours, name: str) -> None:
    with pytest.raises(UnsupportedConfig, match=rf"generate: {name}.*leave it out"):
        ours.generate(input_values=SOUND, **REFUSED_ARGUMENTS[name])


def test_values_that_cannot_be(ours: Ours) -> None:
    for values, message in (
        ({"repetition_penalty": -1.0}, "repetition_penalty=-1.0: "),
        ({"bad_words_ids": "a"}, "bad_words_ids='a': "),
        ({"exponential_decay_length_penalty": (3, 1.2)}, "eos_token_id, which is not given"),
        ({"stop_strings": ["w1"]}, "tokenizer=processor.tokenizer"),
    ):
        with pytest.raises(InputError, match=message):
            ours.generate(input_values=SOUND, **values)


def test_without_transformers_it_is_said(
    ours: Ours, plain: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("transformers.generation.logits_process", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnsupportedConfig, match="suppress_tokens is done by transformers'"):
        ours.generate(input_values=SOUND, suppress_tokens=[3])
    # What needs none of its classes works all the same.
    torch.testing.assert_close(ours.generate(input_values=SOUND, max_time=100.0), plain)
    assert ours.generate(input_values=SOUND, eos_token_id=20).shape == (2, 2)
    assert ours.generate(input_values=SOUND, bos_token_id=5, do_sample=True).shape == plain.shape
    assert ours.generate(input_values=SOUND, logits_processor=[_nothing]).equal(plain)


def test_what_has_no_effect_is_said(ours: Ours, caplog: pytest.LogCaptureFixture) -> None:
    ours.generate(input_values=SOUND, max_new_tokens=2)
    assert not caplog.messages
    ours.generate(input_values=SOUND, max_new_tokens=2, temperature=0.5, length_penalty=2.0)
    assert "['length_penalty', 'temperature']" in caplog.messages[-1]
    ours.generate(input_values=SOUND, max_new_tokens=2, max_length=5)
    assert "`max_length` (5) has no effect" in caplog.messages[-1]
