"""Strings of words: the same for the same seed, and the words are where they are said to be."""

import numpy as np
import pytest
import torch

from recipes.demo.bank import BankWriter, WordSpan
from recipes.demo.corpus import VOCABULARY
from recipes.demo.mix import Mixer, Recipe, StringBatches, frame_targets
from recipes.demo.sound import Surroundings, change_speed, coloured, noise

RATE = 24_000


def tone_of(word: int) -> float:
    return 500.0 + 150.0 * word


def make_bank():
    """Every word is a tone of its own, 0.3 s long."""
    writer = BankWriter()
    time = np.arange(int(0.54 * RATE)) / RATE
    for word in range(len(VOCABULARY)):
        loud = (time >= 0.1) & (time < 0.4)
        sound = np.where(loud, np.sin(2 * np.pi * tone_of(word) * time), 0.0).astype(np.float32)
        for speaker in ("ann", "bob"):
            writer.add("real", speaker, sound, [WordSpan(word, 0.1, 0.4)])
    writer.add("other", "eve", np.sin(2 * np.pi * 200 * time).astype(np.float32), [])
    return writer.finish()


QUIET = Surroundings((), ())


@pytest.fixture(scope="module")
def bank():
    return make_bank()


def test_each_word_is_where_its_place_says(bank) -> None:
    mixer = Mixer(bank, QUIET, Recipe(changed=0.0, empty=0.0, plain=0.0))
    heard = 0
    for seed in range(9):
        mixed = mixer.string(np.random.default_rng(seed), 6 * RATE)
        for span in mixed.spans:
            first, last = int(span.start_s * RATE), int(span.end_s * RATE)
            assert last <= len(mixed.samples)
            spectrum = np.abs(np.fft.rfft(mixed.samples[first:last]))
            peak_hz = spectrum.argmax() * RATE / (last - first)
            assert peak_hz == pytest.approx(tone_of(span.word), abs=8)
            heard += 1
    assert heard > 15


def test_the_same_seed_and_step_give_the_same_batch(bank) -> None:
    make = StringBatches(Mixer(bank, QUIET), size=3, seconds=2.0, delays=(4, 7), seed=9)
    again = StringBatches(Mixer(make_bank(), QUIET), size=3, seconds=2.0, delays=(4, 7), seed=9)
    pcm, targets = make(5)
    pcm2, targets2 = again(5)
    assert torch.equal(pcm, pcm2)
    assert torch.equal(targets, targets2)
    assert pcm.shape == (3, 1, 48_000)
    assert targets.shape == (3, 2, 25)
    assert not torch.equal(pcm, make(6)[0])


def test_speed_moves_the_spans_with_the_sound(bank) -> None:
    mixer = Mixer(bank, QUIET, Recipe(changed=1.0, empty=0.0, kinds={"real": 1.0}))
    piece, spans = mixer._perform(np.random.default_rng(3), bank.snippets[0])
    loud = np.flatnonzero(np.abs(piece) > 0.3 * np.abs(piece).max()) / RATE
    assert spans[0].start_s == pytest.approx(loud[0], abs=0.01)
    assert spans[0].end_s == pytest.approx(loud[-1], abs=0.01)
    assert spans[0].end_s - spans[0].start_s != pytest.approx(0.3, abs=1e-4)


def test_an_empty_string_has_no_words_but_may_have_voices(bank) -> None:
    mixer = Mixer(bank, QUIET, Recipe(empty=1.0, plain=0.0))
    strings = [mixer.string(np.random.default_rng(seed), 4 * RATE) for seed in range(8)]
    assert all(not mixed.spans for mixed in strings)
    assert any(mixed.voices for mixed in strings)


def test_voices_cover_every_word(bank) -> None:
    mixer = Mixer(bank, QUIET, Recipe(long_pauses=0.5))
    mixed = mixer.string(np.random.default_rng(0), 10 * RATE)
    assert mixed.spans
    for span in mixed.spans:
        assert any(start <= span.start_s and span.end_s <= end for start, end in mixed.voices)


def test_frame_targets_say_the_word_of_some_frames_ago() -> None:
    targets = frame_targets([WordSpan(2, 0.16, 0.56)], 20, delay=4)
    assert targets.tolist() == [0] * 6 + [3] * 5 + [0] * 9


def test_a_short_word_still_gets_three_frames() -> None:
    assert int((frame_targets([WordSpan(0, 0.0, 0.05)], 20, delay=4) > 0).sum()) == 3


def test_colouring_keeps_length_and_is_finite() -> None:
    rng = np.random.default_rng(2)
    sound = rng.standard_normal(24_000).astype(np.float32)
    for _ in range(12):
        out = coloured(sound, rng, ())
        assert out.shape == sound.shape
        assert out.dtype == np.float32
        assert np.isfinite(out).all()
        assert not np.allclose(out, sound)


def test_noise_has_the_level_that_is_promised() -> None:
    rng = np.random.default_rng(4)
    recorded = (rng.standard_normal(5_000).astype(np.float32) * 0.01,)
    for _ in range(12):
        out = noise(rng, 24_000, recorded)
        assert np.sqrt(np.mean(out**2)) == pytest.approx(1.0, rel=0.01)


def test_twice_the_speed_is_half_the_length() -> None:
    assert len(change_speed(np.zeros(24_000, np.float32), 2.0)) == pytest.approx(12_000, abs=2)


def test_plain_strings_hold_zeros_or_faint_noise_between_recordings(bank) -> None:
    mixer = Mixer(bank, QUIET, Recipe(plain=1.0, kinds={"real": 1.0}))
    loudest = []
    empty = 0
    for seed in range(24):
        mixed = mixer.string(np.random.default_rng(seed), 6 * RATE)
        loudest.append(np.abs(mixed.samples).max())
        spoken = np.zeros(len(mixed.samples), bool)
        for start, end in mixed.voices:
            spoken[int((start - 0.2) * RATE) if start > 0.2 else 0 : int((end + 0.2) * RATE)] = True
        between = mixed.samples[~spoken]
        empty += not between.any()
        assert between.std() < 0.003
        for span in mixed.spans:
            inside = mixed.samples[int(span.start_s * RATE) : int(span.end_s * RATE)]
            assert np.abs(inside).max() > 0.001
        assert mixed.voices == [(span.start_s, span.end_s) for span in mixed.spans]
    assert 8 <= empty < 24
    assert max(loudest) == 1.0  # some are clipped
    assert min(loudest) < 0.2
