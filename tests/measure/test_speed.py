"""What is counted, and what is not; no real time is asserted."""

import numpy as np
import pytest

from kiku.errors import InputError
from kiku.measure.speed import Speed, full_window, noise
from kiku.measure.times import Times
from tests import tiny
from tests.measure.timed import Timed

CONFIG = tiny.model_config()


def speed(engine: Timed) -> Speed:
    return Speed(engine, CONFIG, clock=engine.clock)


def test_times_are_durations_that_were_seen() -> None:
    times = Times.of([0.001 * i for i in range(1, 101)])
    assert (times.count, times.median_ms, times.max_ms) == (100, 50.5, 100)
    assert (times.p90_ms, times.p95_ms, times.p99_ms) == (91, 96, 100)
    assert times.to_dict()["p99_ms"] == 100


def test_live_streams_are_timed_part_by_part() -> None:
    engine = Timed(slots=3)
    found = speed(engine).live(3, count=20)
    assert (found.streams, found.past, found.step.count) == (3, 0, 20)
    assert found.codec.median_ms == pytest.approx(6)
    assert found.decoder.median_ms == pytest.approx(13)
    assert found.step.median_ms == pytest.approx(19)
    assert engine.free_slots == 3
    assert found.to_dict()["step"]["median_ms"] == pytest.approx(19)


def test_live_streams_have_heard_what_they_should() -> None:
    engine = Timed(slots=2)
    past = full_window(CONFIG)
    assert past == 10  # the decoder's; the codec remembers 6 positions, 3 frames
    speed(engine).live(2, past=past, count=5, warmup=1)
    assert engine.heard == {0: past + 6, 1: past + 6}


def test_a_block_costs_one_pass_if_everything_is_accepted() -> None:
    engine = Timed()
    found = speed(engine).block(8, past=16, count=4)
    assert (found.size, found.past, found.step.count, found.frames_per_pass) == (8, 16, 4, 8)
    assert found.decoder_ms_per_frame == pytest.approx((10 + 8) / 8)
    assert found.codec_ms_per_frame == pytest.approx(2)
    assert found.ms_per_frame == pytest.approx(2 + 18 / 8)
    assert engine.free_slots == 1


def test_a_block_of_real_text_costs_the_passes_that_it_needs() -> None:
    found = speed(Timed()).block(8, count=4, accept_all=False)
    assert found.frames_per_pass is not None
    assert 1 < found.frames_per_pass < 8
    assert found.decoder_ms_per_frame is not None
    assert found.decoder_ms_per_frame > (10 + 8) / 8


def test_the_codec_alone() -> None:
    engine = Timed()
    assert speed(engine).codec_bulk(count=3) == pytest.approx(500)
    assert engine.num_passes == 0


def test_hours_on_end() -> None:
    engine = Timed()
    found = speed(engine).soak(0.1, count=10)
    assert found.change == 0
    assert found.position == engine.heard[0]
    assert found.position >= 0.1 * 3600 * CONFIG.frame_rate
    assert found.after_a_minute.count == found.at_the_end.count == 10


def test_a_sound_that_is_no_frame_is_refused() -> None:
    with pytest.raises(InputError, match="less than one frame"):
        Speed(Timed(), CONFIG, np.zeros(3, np.float32))


def test_noise_is_whole_frames_of_sound() -> None:
    samples = noise(CONFIG, 2.0)
    assert samples.dtype == np.float32
    assert len(samples) == round(2 * CONFIG.frame_rate) * CONFIG.frame_size
    assert 0.01 < np.abs(samples).mean() < 0.5
