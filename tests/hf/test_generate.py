"""`generate` against transformers' on the same checkpoint, and what it adds and refuses."""

import gc
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import kiku.hf
from kiku.errors import InputError, UnsupportedConfig
from kiku.hf import (
    GenerationConfig,
    KyutaiSpeechToTextForConditionalGeneration,
    KyutaiSpeechToTextProcessor,
)
from tests.hf.tiny_checkpoint import FRAME, RATE, VOCAB_SIZE, noise

Ours = KyutaiSpeechToTextForConditionalGeneration
FRAMES = 110  # the decoder's window is 12, the codec's 4 frames
START = VOCAB_SIZE - 1


def sound(num_frames: int = FRAMES, batch: int = 1) -> torch.Tensor:
    rows = [noise(num_frames * FRAME, seed) for seed in range(batch)]
    return torch.from_numpy(np.stack(rows))[:, None]


@pytest.fixture(scope="module")
def their_tokens(theirs: Any) -> torch.Tensor:
    """Of two rows of noise; the filler's logit, 0 there, is masked as it is here."""
    mask = [[START]]
    return theirs.generate(input_values=sound(batch=2), bad_words_ids=mask)


def test_tokens_are_theirs_past_every_window(their_tokens: torch.Tensor, ours: Ours) -> None:
    given = ours.generate(input_values=sound(batch=2))
    assert given.dtype == torch.int64
    assert given.shape == (2, 1 + FRAMES)
    assert len(set(given[0].tolist())) > 10  # not one word all the time
    torch.testing.assert_close(given, their_tokens)


@pytest.mark.parametrize("more", [{}, {"repetition_penalty": 1.1}])
def test_its_engine_is_gone_with_the_call(
    ours: Ours, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    pytest.importorskip("transformers")
    engines: list[weakref.ref[Any]] = []
    make = Ours._engine

    def noted(*arguments: Any, **named: Any) -> Any:
        engine = make(*arguments, **named)
        rings = engine.backend._state.lm.rings
        assert rings[0].keys.shape[2] == 1 + 4 + engine.backend.width  # no window that is not used
        engines.append(weakref.ref(engine))
        return engine

    monkeypatch.setattr(Ours, "_engine", noted)
    gc.disable()
    try:
        ours.generate(input_values=sound(4, batch=2), **more)
        assert [one() for one in engines] == [None]
    finally:
        gc.enable()


def test_samples_that_fill_no_frame_are_left_out(their_tokens: torch.Tensor, ours: Ours) -> None:
    more = torch.cat([sound(), torch.ones(1, 1, FRAME - 1)], -1)
    torch.testing.assert_close(ours.generate(input_values=more), their_tokens[:1])


def test_max_new_tokens_cuts_and_never_adds(
    their_tokens: torch.Tensor, ours: Ours, caplog: pytest.LogCaptureFixture
) -> None:
    for asked, given in ((1, 1), (7, 7), (FRAMES, FRAMES), (FRAMES + 5, FRAMES)):
        assert not caplog.messages
        tokens = ours.generate(input_values=sound(), max_new_tokens=asked)
        torch.testing.assert_close(tokens, their_tokens[:1, : 1 + given])
    (said,) = caplog.messages
    assert f"({FRAMES + 5}) is greater than the maximum number of audio frames ({FRAMES})" in said


def test_a_processed_batch_is_theirs_up_to_the_end_of_each_row(
    theirs: Any, their_processor: Any, ours: Ours, processor: KyutaiSpeechToTextProcessor
) -> None:
    recordings = [noise(2000, 1), noise(900, 2), noise(5, 3)]
    inputs = processor(recordings)
    wanted_inputs = their_processor(audio=recordings, sampling_rate=RATE)
    for key in ("input_values", "padding_mask"):
        torch.testing.assert_close(inputs[key], wanted_inputs[key])
    wanted = theirs.generate(**wanted_inputs, bad_words_ids=[[START]])
    given = ours.generate(**inputs)
    assert given.shape == wanted.shape
    added = inputs.input_values.shape[-1] - 2000
    for row, recording in enumerate(recordings):
        own = 1 + (len(recording) + added) // FRAME
        torch.testing.assert_close(given[row, :own], wanted[row, :own])
        assert (given[row, own:] == ours.model.model_config.pad_id).all()
        alone = ours.generate(**processor(recording))
        torch.testing.assert_close(given[row, :own], alone[0])
    everything = ours.generate(input_values=inputs.input_values)
    torch.testing.assert_close(everything, wanted)


def test_the_documented_examples(transformers: ModuleType, saved: Path) -> None:
    """Of transformers' documentation page: one recording, a batch. Theirs wants audio= by name."""
    printed: list[list[str]] = []
    for library, named in ((transformers, {"sampling_rate": RATE}), (kiku.hf, None)):
        processor = library.KyutaiSpeechToTextProcessor.from_pretrained(saved)
        model = library.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(
            saved, device_map=None if named else "cpu", torch_dtype="auto"
        )
        masked = {"bad_words_ids": [[START]]} if named else {}
        texts: list[str] = []
        for sound in (noise(1500, 7), [noise(1500, seed) for seed in range(3)]):
            asked = {"return_tensors": "pt", "padding": True} if isinstance(sound, list) else {}
            inputs = (
                processor(audio=sound, **named, **asked) if named else processor(sound, **asked)
            )
            inputs.to(model.device)
            output_tokens = model.generate(**inputs, **masked)
            texts += processor.batch_decode(output_tokens, skip_special_tokens=True)
        printed.append(texts)
    assert printed[0] == printed[1]
    assert len(printed[0]) == 4
    assert all(printed[0])


def test_logits_and_scores_of_every_position(theirs: Any, ours: Ours) -> None:
    asked = dict(
        return_dict_in_generate=True, output_scores=True, output_logits=True, max_new_tokens=30
    )
    given = ours.generate(input_values=sound(batch=2), **asked)
    wanted = theirs.generate(input_values=sound(batch=2), **asked, bad_words_ids=[[START]])
    assert given.keys() == ["sequences", "scores", "logits"]
    torch.testing.assert_close(given.sequences, wanted.sequences)
    assert len(given.scores) == len(given.logits) == 30
    for t in range(30):
        assert given.scores[t].shape == wanted.scores[t].shape
        torch.testing.assert_close(given.scores[t], wanted.scores[t], atol=1e-4, rtol=0)
        torch.testing.assert_close(
            given.logits[t][:, :-1], wanted.logits[t][:, :-1], atol=1e-4, rtol=0
        )
        assert torch.isneginf(given.logits[t][:, -1]).all()
    plain = ours.generate(input_values=sound(), return_dict_in_generate=True)
    assert plain.keys() == ["sequences"]


def test_a_row_that_ended_can_only_give_pads(
    ours: Ours, processor: KyutaiSpeechToTextProcessor
) -> None:
    inputs = processor([noise(900, 1), noise(100, 2)])
    out = ours.generate(**inputs, return_dict_in_generate=True, output_logits=True)
    last = out.logits[-1]
    assert int(last[1].argmax()) == 3
    assert int(torch.isfinite(last[1]).sum()) == 1
    assert int(torch.isfinite(last[0]).sum()) == VOCAB_SIZE - 1


def test_sampling_is_decided_by_its_seed(
    ours: Ours, processor: KyutaiSpeechToTextProcessor
) -> None:
    inputs = dict(input_values=sound(30, batch=2), do_sample=True)
    first = ours.generate(**inputs, seed=1)
    torch.testing.assert_close(ours.generate(**inputs, seed=1), first)
    assert not torch.equal(ours.generate(**inputs, seed=2), first)
    alike = ours.generate(input_values=sound(30).expand(2, 1, -1), do_sample=True, seed=1)
    assert not torch.equal(alike[0], alike[1])
    torch.testing.assert_close(alike[0], first[0])  # whatever its neighbour
    torch.manual_seed(5)
    drawn = ours.generate(**inputs)
    assert not torch.equal(ours.generate(**inputs), drawn)
    torch.manual_seed(5)
    torch.testing.assert_close(ours.generate(**inputs), drawn)
    by_generator = [
        ours.generate(**inputs, generator=torch.Generator().manual_seed(9)) for _ in range(2)
    ]
    torch.testing.assert_close(*by_generator)


def test_sampled_scores_are_theirs(transformers: ModuleType, ours: Ours) -> None:
    warp = transformers.generation.logits_process
    out = ours.generate(
        input_values=sound(40), do_sample=True, temperature=0.7, top_k=9, top_p=0.8, seed=3,
        return_dict_in_generate=True, output_scores=True, output_logits=True,
    )  # fmt: skip
    kept = []
    for t, (logits, scores) in enumerate(zip(out.logits, out.scores, strict=True)):
        wanted = warp.TemperatureLogitsWarper(0.7)(None, logits)
        wanted = warp.TopPLogitsWarper(0.8)(None, warp.TopKLogitsWarper(9)(None, wanted))
        torch.testing.assert_close(scores, wanted, atol=1e-4, rtol=1e-4)
        kept.append(int(torch.isfinite(scores).sum()))
        assert torch.isfinite(scores[0, out.sequences[0, 1 + t]])
    assert min(kept) < max(kept) <= 9


def test_very_cold_sampling_is_greedy(their_tokens: torch.Tensor, ours: Ours) -> None:
    cold = ours.generate(input_values=sound(batch=2), do_sample=True, temperature=1e-4, seed=0)
    torch.testing.assert_close(cold, their_tokens)


class Kept:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[torch.Tensor] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        assert not self.ended
        self.given.append(value)

    def end(self) -> None:
        self.ended += 1


def test_a_streamer_is_given_what_theirs_gives_it(theirs: Any, ours: Ours) -> None:
    mine, other = Kept(), Kept()
    tokens = ours.generate(input_values=sound(), streamer=mine)
    theirs.generate(input_values=sound(), streamer=other, bad_words_ids=[[START]])
    assert mine.ended == other.ended == 1
    assert [v.shape for v in mine.given] == [v.shape for v in other.given]
    torch.testing.assert_close(torch.cat([v.flatten() for v in mine.given])[None], tokens)


def test_a_streamer_sees_all_rows_together(
    ours: Ours, processor: KyutaiSpeechToTextProcessor
) -> None:
    inputs = processor([noise(900, 1), noise(6000, 2), noise(2000, 3)])
    kept = Kept()
    tokens = ours.generate(**inputs, streamer=kept)
    given = torch.cat([kept.given[0], torch.stack(kept.given[1:], 1)], 1)
    torch.testing.assert_close(given, tokens)


def test_a_text_streamer_prints_while_it_goes(
    transformers: ModuleType,
    ours: Ours,
    processor: KyutaiSpeechToTextProcessor,
    capsys: pytest.CaptureFixture[str],
) -> None:
    streamer = transformers.TextStreamer(
        processor.tokenizer, skip_special_tokens=True, skip_prompt=True
    )
    tokens = ours.generate(input_values=sound(), streamer=streamer)
    text = processor.batch_decode(tokens, skip_special_tokens=True)[0]
    assert capsys.readouterr().out.strip() == text.strip()


def test_values_of_the_generation_config_count(their_tokens: torch.Tensor, ours: Ours) -> None:
    config = GenerationConfig(max_new_tokens=4, bos_token_id=48_000, audio_window_size=1)
    tokens = ours.generate(input_values=sound(), generation_config=config)
    assert tokens[0, 0] == 48_000
    torch.testing.assert_close(tokens[:, 1:], their_tokens[:1, 1:5])
    padded = ours.generate(
        input_values=sound(4, batch=2),
        padding_mask=torch.tensor([[1] * 256, [1] * 64 + [0] * 192]),
        pad_token_id=7,
    )
    assert padded[1].tolist()[2:] == [7, 7, 7]


def test_generating_leaves_the_model_as_it_was(saved: Path) -> None:
    model = Ours.from_pretrained(saved).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.generate(input_values=sound(3))
    assert model.training
    assert model.codec_model.training
    assert all(weight.requires_grad for weight in model.parameters())
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    with torch.no_grad():
        model.model.lm.text_head.weight.zero_()
    assert not model.generate(input_values=sound(3))[
        0, 1:
    ].any()  # no weights of before are left anywhere


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no sound": ({"input_values": None}, InputError, "needs input_values"),
    "two axes": ({"input_values": torch.zeros(1, 640)}, InputError, r"\[batch, 1, samples\]"),
    "integers": (
        {"input_values": torch.zeros(1, 1, 640, dtype=torch.int16)},
        InputError,
        "divide int16",
    ),
    "less than a frame": (
        {"input_values": torch.zeros(1, 1, 63)},
        InputError,
        r"at least one frame \(64",
    ),
    "no tokens": ({"max_new_tokens": 0}, InputError, "one token"),
    "mask": ({"padding_mask": torch.ones(1, 5)}, InputError, "padding_mask must be"),
    "unknown": ({"colour": "red"}, InputError, r"not used by the model: \['colour'\]"),
    "beams": ({"num_beams": 3}, UnsupportedConfig, "num_beams=3"),
    "prompt": ({"input_ids": torch.ones(1, 4)}, UnsupportedConfig, "text prompts"),
    "temperature": ({"do_sample": True, "temperature": 0.0}, ValueError, "temperature > 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(ours: Ours, case: str) -> None:
    changes, error, message = REFUSED[case]
    with pytest.raises(error, match=message) as caught:
        ours.generate(**{"input_values": sound(10), **changes})
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65.0, -30_000.0])
def test_what_cannot_be_sound_is_refused(ours: Ours, value: float) -> None:
    wrong = sound(10)
    wrong[0, 0, 100] = value
    with pytest.raises(InputError, match=r"samples in \[-1, 1\], and they reach .*divide integers"):
        ours.generate(input_values=wrong)
    wrong[0, 0, 100] = 64.0
    assert ours.generate(input_values=wrong).shape[0] == 1


def test_what_is_no_tensor_is_told_how_to_become_one(ours: Ours) -> None:
    given: Any = sound(10)
    for wrong in (given.numpy(), given.tolist()):
        with pytest.raises(InputError, match=r"input_values must be a tensor, not .*='pt'"):
            ours.generate(input_values=wrong)
    mask: Any = np.ones(given.shape[::2], np.int32)
    with pytest.raises(InputError, match=r"padding_mask must be a tensor, not ndarray"):
        ours.generate(input_values=given, padding_mask=mask)


def test_less_than_a_frame_is_a_value_error_there_too(theirs: Any) -> None:
    with pytest.raises(ValueError, match=r"must be greater than 0|max_length"):
        theirs.generate(input_values=torch.zeros(1, 1, 63))


def test_an_empty_mask_hides_nothing(their_tokens: torch.Tensor, ours: Ours) -> None:
    tokens = ours.generate(input_values=sound(), padding_mask=torch.zeros(1, FRAMES * FRAME))
    torch.testing.assert_close(tokens, their_tokens[:1])
