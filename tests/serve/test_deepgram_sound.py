"""WAV headers before raw samples: read and not heard, however they are cut."""

import io
import struct
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiku.audio import read_file
from kiku.options import AudioFormat, StreamOptions
from kiku.serve.protocols.deepgram_sound import (
    SoundIntake,
    could_be_wav,
    wav_header,
    written_header,
)
from kiku.serve.protocols.interface import Action, Open, Push

FORMAT = AudioFormat(encoding="s16le", sample_rate=16_000)
SAMPLES = np.arange(400, dtype="<i2").tobytes()


def wav(samples: bytes = SAMPLES, rate: int = 16_000, channels: int = 1) -> bytes:
    """A WAV file as Python writes it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples)
    return file.getvalue()


def taken(intake: SoundIntake, *messages: bytes) -> tuple[bytes, list[Open]]:
    """The bytes that are pushed, and the streams that are opened before."""
    actions: list[Action] = []
    for one in messages:
        actions += intake.take(one)
    actions += intake.rest()
    opened = [one for one in actions if isinstance(one, Open)]
    pushed = [one.samples for one in actions if isinstance(one, Push)]
    assert actions[: len(opened)] == opened
    assert all(isinstance(one, bytes) and one for one in pushed)
    return b"".join(bytes(one) for one in pushed), opened


@given(cuts=st.lists(st.integers(0, 860), max_size=8), extra=st.booleans())
def test_a_header_is_not_heard_however_it_is_cut(cuts: list[int], extra: bool) -> None:
    file = wav()
    if extra:  # chunks that nobody knows may stand before the samples
        file = file[:36] + b"LIST" + struct.pack("<I", 5) + b"abcde\0" + file[36:]
    ends = sorted({min(one, len(file)) for one in cuts} | {len(file)})
    parts = [file[at:end] for at, end in zip([0, *ends], ends, strict=False)]
    assert taken(SoundIntake(StreamOptions(format=FORMAT), False), *parts) == (SAMPLES, [])


def test_what_the_header_says_counts() -> None:
    options = StreamOptions(format=FORMAT)
    intake = SoundIntake(options, False)
    pushed, opened = taken(intake, wav(rate=8_000, channels=2))
    assert pushed == SAMPLES
    [one] = opened
    assert one.options.format == AudioFormat(encoding="s16le", sample_rate=8_000, channels=2)
    assert not one.container
    assert intake.num_channels == 2


def test_later_headers_are_left_out() -> None:
    intake = SoundIntake(StreamOptions(format=FORMAT), False)
    pushed, _ = taken(intake, wav(), wav(), b"RIFF but no header", SAMPLES)
    assert pushed == SAMPLES + SAMPLES + b"RIFF but no header" + SAMPLES


@given(data=st.binary(max_size=80), cuts=st.lists(st.integers(0, 80), max_size=4))
def test_samples_without_a_header_are_all_heard(data: bytes, cuts: list[int]) -> None:
    ends = sorted({min(one, len(data)) for one in cuts} | {len(data)})
    parts = [data[at:end] for at, end in zip([0, *ends], ends, strict=False)]
    intake = SoundIntake(StreamOptions(format=FORMAT), False)
    if wav_header(data) is None:
        assert taken(intake, *parts) == (data, [])


@pytest.mark.parametrize("data", [b"RI", b"RIFF", b"RIFF\0\0\0\0WAVE", wav()[:40]])
def test_what_might_become_a_header_is_heard_where_it_does_not(data: bytes) -> None:
    assert could_be_wav(data)
    intake = SoundIntake(StreamOptions(format=FORMAT), False)
    assert list(intake.take(data)) == []
    assert taken(intake) == (data, [])
    # What comes now is no beginning: another stream would lose what was heard.
    assert taken(intake, wav(rate=8_000), SAMPLES) == (SAMPLES + SAMPLES, [])


def test_a_header_without_an_end_is_sound() -> None:
    endless = b"RIFF\0\0\0\0WAVE" + b"junk\xff\xff\xff\x7f" + bytes(2**16)
    intake = SoundIntake(StreamOptions(format=FORMAT), False)
    assert list(intake.take(endless)) == [Push(endless)]  # nothing more is waited for


def test_recordings_and_packets_are_passed_on() -> None:
    packets = StreamOptions(format=AudioFormat(encoding="opus"))
    for options, container in [(StreamOptions(), True), (packets, False)]:
        intake = SoundIntake(options, container)
        assert intake.initial_open == Open(options, container)
        assert taken(intake, wav(), b"", b"x") == (wav() + b"x", [])


@pytest.mark.parametrize(
    ("format", "data", "seconds"),
    [
        (AudioFormat(encoding="s16le", sample_rate=16_000, channels=2), bytes(64_000), 1.0),
        (AudioFormat(encoding="f32le", sample_rate=8_000), bytes(16_000), 0.5),
        (AudioFormat(encoding="mulaw", sample_rate=8_000), bytes(2_000), 0.25),
        (AudioFormat(encoding="opus"), b"\x78", 0.02),  # a packet of 20 ms
    ],
)
def test_it_is_known_how_long_the_sound_is(
    format: AudioFormat, data: bytes, seconds: float
) -> None:
    intake = SoundIntake(StreamOptions(format=format), False)
    assert intake.taken_s == 0
    intake.take(data)
    intake.take(data)
    assert intake.taken_s == pytest.approx(2 * seconds)
    recording = SoundIntake(StreamOptions(), True)
    recording.take(data)
    assert recording.taken_s is None


def test_headers_are_no_part_of_how_long_the_sound_is() -> None:
    intake = SoundIntake(StreamOptions(format=FORMAT), False)
    intake.take(wav(rate=8_000))
    intake.take(b"RIF")
    before = intake.taken_s
    assert before == pytest.approx((len(SAMPLES) + 3) / 16_000)
    held = SoundIntake(StreamOptions(format=FORMAT), False)
    held.take(b"RIFF")
    assert held.taken_s == 0
    held.rest()
    assert held.taken_s == pytest.approx(4 / 2 / (FORMAT.sample_rate or 0))


@given(data=st.binary(max_size=300))
def test_any_bytes_may_follow_a_riff(data: bytes) -> None:
    header = wav_header(b"RIFF\0\0\0\0WAVE" + data)
    assert header is None or 12 < header.size <= 12 + len(data)


@pytest.mark.parametrize("encoding", ["s16le", "f32le", "mulaw", "alaw"])
def test_a_written_header_is_read_as_what_it_was_written_of(encoding: str) -> None:
    format = AudioFormat.from_dict({"encoding": encoding, "sample_rate": 8_000, "channels": 2})
    header = wav_header(written_header(format, 100))
    assert header is not None
    assert (header.format, header.size) == (format, len(written_header(format, 100)))


def test_samples_that_are_longer_than_a_header_can_say_have_one_too() -> None:
    header = written_header(AudioFormat(encoding="s16le", sample_rate=8_000), 2**32)
    assert header[4:8] == header[-4:] == b"\xff" * 4
    chunks = list(read_file(io.BytesIO(header + bytes(16_000))))  # what there is counts
    assert sum(one.num_samples for one in chunks) == 8_000
