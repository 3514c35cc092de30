"""Recordings in blocks and frame by frame: the same words, and the counts."""

import numpy as np
import pytest

from kiku.config import ModelConfig
from kiku.measure.files import acceptance, capped, file_speed, joined_sound, product
from kiku.recognizer import Recognizer
from tests import tiny
from tests.fakes import PAD, spoken
from tests.measure.timed import COLUMN_S, READ_S, Timed

CONFIG = ModelConfig(tiny.codec_config(), tiny.lm_config(), text_delay_s=0.0)
WORDS = [PAD, 0, 4, PAD, PAD, 0, 5, PAD, PAD, PAD, 0, 6, PAD, PAD, PAD, PAD]


def recognizer(engine: Timed) -> Recognizer:
    return Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo")


def test_both_ways_say_the_same_words() -> None:
    engine = Timed()
    found = file_speed(
        recognizer(engine), spoken(WORDS, CONFIG.frame_size), rounds=2, clock=engine.clock
    )
    assert found.words == 3
    assert found.same_words
    assert found.sound_s == pytest.approx(len(WORDS) / CONFIG.frame_rate)
    assert found.speed == pytest.approx(found.sound_s / found.block_s, rel=0.01)
    assert found.to_dict()["words"] == 3


def test_frame_by_frame_is_frame_by_frame() -> None:
    engine = Timed()
    said = spoken(WORDS, CONFIG.frame_size)
    assert len(capped(recognizer(engine), 1).transcribe(said, rate=CONFIG.sample_rate)) == 3
    assert {frames for _, frames in engine.steps} == {1}
    recognizer(engine).transcribe(said, rate=CONFIG.sample_rate)
    assert max(frames for _, frames in engine.steps) > 1


def test_acceptance_is_frames_by_passes() -> None:
    samples = spoken(WORDS, CONFIG.frame_size)
    assert acceptance(recognizer(Timed()), samples, 1) == 1
    assert acceptance(recognizer(Timed()), samples, 16) > 3
    silence = np.zeros(64 * CONFIG.frame_size, np.float32)
    assert acceptance(recognizer(Timed()), silence, 8) == pytest.approx(8, abs=0.5)


def test_the_product_takes_the_best_size() -> None:
    single_ms = (READ_S + COLUMN_S) * 1000
    size, ratio = product(
        single_ms, lambda n: (READ_S + n * COLUMN_S) * 1000, {4: 3.0, 16: 6.0, 64: 7.0}
    )
    assert (size, ratio) == (16, round(11 * 6 / 26, 2))


def test_recordings_are_joined(tmp_path) -> None:
    import wave

    for name in ("a.wav", "b.wav"):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(1600))
    joined = joined_sound([tmp_path / "a.wav", tmp_path / "b.wav"], 8000)
    assert len(joined) == 1600
    assert not np.any(joined)
