"""Every line of the table of differences in docs/transformers.md, and no other."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from kiku.checkpoint.config_transformers import DEFAULTS
from kiku.checkpoint.corrections import CorrectedValue
from kiku.errors import InputError, UnsupportedConfig
from kiku.hf import (
    GenerationConfig,
    KyutaiSpeechToTextConfig,
    KyutaiSpeechToTextForConditionalGeneration,
    KyutaiSpeechToTextProcessor,
)
from tests.hf.tiny_checkpoint import CONFIG, FRAME, RATE, VOCAB_SIZE, columns, noise

PAGE = Path(__file__).parents[2] / "docs" / "transformers.md"
FRAMES, WINDOW = 24, 12
FILLER = VOCAB_SIZE - 1
SOUND = torch.from_numpy(np.stack([noise(FRAMES * FRAME, seed) for seed in range(2)]))[:, None]


@dataclass
class Both:
    """The same checkpoint in both libraries."""

    transformers: ModuleType
    theirs: Any
    ours: KyutaiSpeechToTextForConditionalGeneration
    their_processor: Any
    processor: KyutaiSpeechToTextProcessor
    saved: Path

    def their_ids(self, **values: Any) -> Any:
        return self.theirs.generate(input_values=SOUND, **values, bad_words_ids=[[FILLER]])

    def our_ids(self, **values: Any) -> Any:
        return self.ours.generate(input_values=SOUND, **values)


@pytest.fixture
def both(
    transformers: ModuleType, theirs: Any, ours: Any, their_processor: Any, processor: Any,
    saved: Path,
) -> Both:  # fmt: skip
    return Both(transformers, theirs, ours, their_processor, processor, saved)


LINES: dict[str, Callable[[Both], None]] = {}


def line(first_cell: str) -> Callable[[Callable[[Both], None]], Callable[[Both], None]]:
    def keep(check: Callable[[Both], None]) -> Callable[[Both], None]:
        LINES[first_cell] = check
        return check

    return keep


@line("`audio_window_size` set (published: 1)")
def _(both: Both) -> None:
    whole = both.their_ids()
    config = both.transformers.GenerationConfig(audio_window_size=1)
    assert not torch.equal(both.their_ids(generation_config=config), whole)
    config = GenerationConfig(audio_window_size=1)
    torch.testing.assert_close(both.our_ids(generation_config=config), whole)


@line("`bos_token_id` 48000")
def _(both: Both) -> None:
    with pytest.raises(IndexError):  # of the tiny table; of the published one it is a code's row
        both.their_ids(bos_token_id=48_000)
    given = both.our_ids(bos_token_id=48_000)
    assert (given[:, 0] == 48_000).all()
    torch.testing.assert_close(given[:, 1:], both.our_ids()[:, 1:])


@line("the id after the last text id")
@torch.no_grad()
def _(both: Both) -> None:
    ids = columns(2, 9)
    assert not both.theirs(input_ids=ids).logits[..., FILLER].any()
    assert torch.isneginf(both.ours(ids).logits[..., FILLER]).all()


@line("`sliding_window` of the 1B")
def _(both: Both) -> None:
    sizes = dict(num_hidden_layers=16, num_attention_heads=16, vocab_size=8001)
    config = both.transformers.KyutaiSpeechToTextConfig(**sizes, audio_pad_token_id=73_569)
    assert config.sliding_window == DEFAULTS["sliding_window"] == 375
    # tests/checkpoint/test_corrections.py reads its files.


@line("no `rope_theta` in a config")
def _(both: Both) -> None:
    theirs = both.transformers.KyutaiSpeechToTextConfig()
    assert theirs.rope_parameters["rope_theta"] == 10_000.0
    assert KyutaiSpeechToTextConfig().rope_theta == 100_000.0


@line("an `audio_pad_token_id` that is a text id or a code as well")
@torch.no_grad()
def _(both: Both) -> None:
    config = both.transformers.KyutaiSpeechToTextConfig(**{**CONFIG, "audio_pad_token_id": 16})
    theirs = both.transformers.KyutaiSpeechToTextForConditionalGeneration(config)
    table = theirs.get_parameter("model.embed_tokens.embed_tokens.weight")
    looked_up = theirs.get_input_embeddings()(columns(1, 1).fill_(16))[0, 0]
    torch.testing.assert_close(looked_up, 9 * table[16])  # a text id's, in the place of every code
    stated = KyutaiSpeechToTextConfig(**{**CONFIG, "audio_pad_token_id": 16})
    with pytest.warns(CorrectedValue, match="audio_pad_token_id is 16, 176 is used"):
        ours = KyutaiSpeechToTextForConditionalGeneration(stated)
    assert ours.config.audio_pad_token_id == len(table) - 1 == 176


@line("`forward` over more columns than the window")
@torch.no_grad()
def _(both: Both) -> None:
    ids = columns(1, 4 * WINDOW)
    changed = ids.clone()
    changed[:, :WINDOW] = columns(1, WINDOW, seed=9)  # two layers see two windows
    for model, is_far in ((both.theirs, False), (both.ours, True)):
        before, after = (model(input_ids=one).logits[:, -1, :FILLER] for one in (ids, changed))
        assert torch.allclose(before, after, atol=1e-5) == is_far


@line("`use_cache=False`, or a cache that keeps everything")
def _(both: Both) -> None:
    usual = both.their_ids()
    assert not torch.equal(both.their_ids(use_cache=False), usual)
    cache = both.transformers.DynamicCache()
    assert not torch.equal(both.their_ids(past_key_values=cache), usual)
    torch.testing.assert_close(both.our_ids(use_cache=False), usual)
    with pytest.raises(UnsupportedConfig, match="past_key_values"):
        both.our_ids(past_key_values=cache)


@line("a batch")
def _(both: Both) -> None:
    recordings = [noise(900, 1), noise(100, 2)]
    given = both.ours.generate(**both.processor(recordings))
    inputs = both.their_processor(audio=recordings, sampling_rate=RATE)
    wanted = both.theirs.generate(**inputs, bad_words_ids=[[FILLER]])
    torch.testing.assert_close(given[0], wanted[0])
    ended = 1 + (inputs["input_values"].shape[-1] - 800) // FRAME
    torch.testing.assert_close(given[1, :ended], wanted[1, :ended])
    assert (given[1, ended:] == 3).all()
    assert not (wanted[1, ended:] == 3).all()


@line("`max_new_tokens` in a `generation_config`")
def _(both: Both) -> None:
    config = both.transformers.GenerationConfig(max_new_tokens=4)
    assert both.their_ids(generation_config=config).shape[1] == 1 + FRAMES
    assert both.our_ids(generation_config=config).shape[1] == 5


@line("sampling")
def _(both: Both) -> None:
    torch.manual_seed(0)
    wanted = both.their_ids(do_sample=True)
    torch.manual_seed(0)
    assert not torch.equal(both.our_ids(do_sample=True), wanted)
    again = both.our_ids(do_sample=True, seed=1)
    alone = both.ours.generate(input_values=SOUND[:1], do_sample=True, seed=1)
    torch.testing.assert_close(again[:1], alone)


@line("`past_key_values` of `generate`")
def _(both: Both) -> None:
    asked = dict(return_dict_in_generate=True, max_new_tokens=3)
    assert "past_key_values" in both.their_ids(**asked)
    assert "past_key_values" not in both.our_ids(**asked)


@line("beams, assisted decoding, text prompts, `guidance_scale`, watermarks")
def _(both: Both) -> None:
    for values in (
        {"num_beams": 2}, {"prompt_lookup_num_tokens": 2}, {"input_ids": torch.ones(2, 2)},
        {"guidance_scale": 2.0}, {"watermarking_config": {}},
    ):  # fmt: skip
        with pytest.raises(UnsupportedConfig, match="leave it out"):
            both.our_ids(**values)


@line("`output_attentions`")
@torch.no_grad()
def _(both: Both) -> None:
    ids = columns(1, 4)
    assert both.theirs.config._attn_implementation == "sdpa"
    assert not both.theirs(input_ids=ids, output_attentions=True).get("attentions")
    assert len(both.ours(ids, output_attentions=True).attentions) == 2


@line("columns of padding")
@torch.no_grad()
def _(both: Both) -> None:
    ids, mask = columns(1, 6), torch.tensor([[1, 1, 1, 1, 0, 0]])
    asked = dict(attention_mask=mask, output_hidden_states=True)
    assert both.theirs(input_ids=ids, **asked).hidden_states[-1][0, -1].any()
    out = both.ours(ids, **asked)
    assert not out.hidden_states[-1][0, 4:].any()
    # What comes next follows the columns before the padding.
    then = both.ours(ids[:, 4:], past_key_values=out.past_key_values).logits
    torch.testing.assert_close(then, both.ours(ids).logits[:, 4:], atol=1e-5, rtol=0)


@line("a hole, a mask of four axes or positions that skip, with a past")
@torch.no_grad()
def _(both: Both) -> None:
    ids, skipping = columns(1, 4), torch.tensor([[0, 2, 4, 6]])
    assert "past_key_values" in both.theirs(
        input_ids=ids, position_ids=skipping, attention_mask=torch.ones(1, 4), use_cache=True
    )
    with pytest.raises(InputError, match="without a past only"):
        both.ours(ids, position_ids=skipping, use_cache=True)


@line("`attention_dropout` while training")
def _(both: Both) -> None:
    model = KyutaiSpeechToTextForConditionalGeneration.from_pretrained(
        both.saved, attention_dropout=0.5
    )
    with pytest.raises(UnsupportedConfig, match="attention_dropout"):
        model.train()(columns(1, 3))


@line("`processor(array)`")
def _(both: Both) -> None:
    array = noise(100)
    assert "input_values" not in both.their_processor(array)
    torch.testing.assert_close(
        both.processor(array).input_values, both.processor(audio=array).input_values
    )


@line("integer samples")
def _(both: Both) -> None:
    array = (noise(100) * 1000).astype(np.int16)
    assert both.their_processor(audio=array, sampling_rate=RATE)["input_values"].abs().max() > 100
    with pytest.raises(InputError, match="divide int16"):
        both.processor(array)


@line("`tokenizer.pad_token_id`, where no file names it")
def _(both: Both) -> None:
    assert both.their_processor.tokenizer.pad_token_id is None
    assert both.processor.tokenizer.pad_token_id == both.ours.config.pad_token_id == 3


@line("unknown keywords of a `from_pretrained`")
def _(both: Both) -> None:
    both.transformers.KyutaiSpeechToTextConfig.from_pretrained(both.saved, colour="red")
    with pytest.raises(InputError, match="does not know colour"):
        KyutaiSpeechToTextConfig.from_pretrained(both.saved, colour="red")


def test_the_table_has_these_lines() -> None:
    table = PAGE.read_text().partition("| | transformers 5.23 | here |")[2].partition("\n\n")[0]
    found = re.findall(r"^\| (.+?) \|", table.partition("|---|")[2].partition("\n")[2], re.M)
    assert found == list(LINES)


@pytest.mark.parametrize("name", LINES)
def test_a_line(both: Both, name: str) -> None:
    LINES[name](both)
