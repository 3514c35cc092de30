import io
import struct

import av
import numpy as np
import pytest

from kiku.audio import read_chunks
from kiku.errors import TruncatedAudio

# Container and codec of recordings whose truncation is noticed.
EXACT = [
    ("wav", "pcm_s16le"),
    ("wav", "pcm_u8"),
    ("wav", "pcm_f32le"),
    ("wav", "adpcm_ms"),
    ("flac", "flac"),
    ("aiff", "pcm_s16be"),
    ("au", "pcm_s16be"),
    ("matroska", "flac"),
    ("webm", "libopus"),
    ("flv", "aac"),
    ("mpegts", "aac"),
]
VAGUE = [("mp3", "libmp3lame"), ("ogg", "libopus"), ("adts", "aac")]
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}


def read_until_it_breaks(source) -> tuple[float, str]:
    """Seconds that were read, and the message if the recording was too short."""
    num_samples = 0
    try:
        for chunk in read_chunks(source, 24_000):
            num_samples += len(chunk)
    except TruncatedAudio as error:
        return num_samples / 24_000, str(error)
    return num_samples / 24_000, ""


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize(("container", "codec"), EXACT, ids="-".join)
def test_all_that_is_readable_comes_before_the_error(
    container: str, codec: str, piped: bool, record, tone, pipe
) -> None:
    sample_format = {"flac": "s16", "adpcm_ms": "s16"}.get(codec)
    rate = 48_000
    data = record(container, codec, tone(rate, 5.0), rate, sample_format=sample_format)
    source = pipe if piped else io.BytesIO
    seconds, message = read_until_it_breaks(source(data))
    assert seconds == pytest.approx(5.0, abs=0.06)
    assert message == ""
    # Cut in the middle of a packet, as a broken copy is.
    seconds, message = read_until_it_breaks(source(data[: len(data) * 6 // 10 + 1]))
    assert seconds == pytest.approx(3.0, abs=0.4)
    assert f"breaks off after {seconds:.2f} s" in message
    assert "copy or record it again" in message


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("options", [FRAGMENTED, {"movflags": "faststart"}], ids=str)
def test_a_cut_mp4_with_its_index_in_front_is_noticed(
    options: dict[str, str], piped: bool, tone, pipe, tmp_path, record
) -> None:
    data = record("mp4", "aac", tone(48_000, 5.0), 48_000, options=options, folder=tmp_path)
    source = pipe if piped else io.BytesIO
    seconds, message = read_until_it_breaks(source(data))
    assert seconds == pytest.approx(5.0, abs=0.06)
    assert message == ""
    seconds, message = read_until_it_breaks(source(data[: len(data) * 6 // 10 + 1]))
    assert seconds == pytest.approx(3.0, abs=0.4)
    assert f"breaks off after {seconds:.2f} s" in message


@pytest.mark.parametrize(("container", "codec"), VAGUE, ids="-".join)
def test_formats_whose_length_is_an_estimate_raise_no_alarm(
    container: str, codec: str, record, tone
) -> None:
    data = record(container, codec, tone(48_000, 5.0), 48_000)
    # What tag programs leave at the end is no sound, and not missing either.
    for end in (b"", b"TAG" + bytes(125), bytes(50)):
        seconds, message = read_until_it_breaks(io.BytesIO(data + end))
        assert seconds == pytest.approx(5.0, abs=0.06)
        assert message == ""
    seconds, message = read_until_it_breaks(io.BytesIO(data[: len(data) * 6 // 10]))
    assert seconds == pytest.approx(3.0, abs=0.1)
    assert message == ""


def wav_with(data: bytes, size: int) -> bytes:
    place = data.index(b"data") + 4
    return data[:place] + struct.pack("<I", size) + data[place + 4 :]


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF, 96_000 + 44])
def test_a_wav_that_cannot_know_its_length_raises_no_alarm(size: int, record, tone, pipe) -> None:
    data = wav_with(record("wav", "pcm_s16le", tone(24_000, 2.0), 24_000), size)
    for source in (io.BytesIO(data), pipe(data)):
        assert read_until_it_breaks(source) == (2.0, "")


def test_a_wav_with_more_behind_its_sound_raises_no_alarm(record, tone) -> None:
    data = record("wav", "pcm_s16le", tone(24_000, 2.0), 24_000) + b"LIST\x08\0\0\0INFOabcd"
    assert read_until_it_breaks(io.BytesIO(data)) == (2.0, "")


def test_the_error_names_both_lengths(record, tone) -> None:
    data = record("wav", "pcm_s16le", tone(24_000, 2.0), 24_000)
    _, message = read_until_it_breaks(io.BytesIO(data[:-48_000]))
    assert "breaks off after 1.00 s although it says it lasts 2.00 s" in message


def test_a_matroska_recording_of_unknown_length_raises_no_alarm(record, tone, pipe) -> None:
    """Browsers record like this; FFmpeg then guesses a length from the bit rate."""
    options = {"live": "1"}
    samples = np.tile(tone(8_000, 1.0), 5)
    data = record("matroska", "pcm_s16le", samples, 8_000, options=options)
    for source in (io.BytesIO(data), pipe(data)):
        seconds, message = read_until_it_breaks(source)
        assert seconds == pytest.approx(5.0, abs=0.01)
        assert message == ""


def test_a_film_that_goes_on_without_sound_raises_no_alarm(tone) -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as film:
        picture = film.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        sound = film.add_stream("pcm_s16le", rate=16_000, layout="mono")
        samples = (tone(16_000, 1.0)[None] * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        film.mux([*sound.encode(frame), *sound.encode(None)])
        for number in range(40):
            image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
            image.pts = number
            film.mux(picture.encode(image))
        film.mux(picture.encode(None))
    assert read_until_it_breaks(io.BytesIO(out.getvalue())) == (1.0, "")
