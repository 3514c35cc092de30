import io
import json
import logging
import os
import sys
import tracemalloc
import wave
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiku.audio import AudioInput, Resampler, duration_s, num_channels, read_chunks, read_file
from kiku.audio import files as files_module
from kiku.errors import AudioError, TruncatedAudio

# Container, codec, sample format, channels, rate, signal-to-error ratio that the codec allows.
FORMATS = [
    ("wav", "pcm_u8", None, "mono", 8_000, 20),
    ("wav", "pcm_s16le", None, "stereo", 44_100, 60),
    ("wav", "pcm_s24le", None, "mono", 96_000, 60),
    ("wav", "pcm_s32le", None, "5.1", 48_000, 60),
    ("wav", "pcm_f32le", None, "mono", 11_025, 60),
    ("wav", "pcm_f64le", None, "stereo", 16_000, 60),
    ("wav", "pcm_s64le", None, "stereo", 16_000, 60),
    ("wav", "pcm_mulaw", None, "mono", 8_000, 20),
    ("aiff", "pcm_s16be", None, "stereo", 22_050, 60),
    ("flac", "flac", "s16", "mono", 16_000, 60),
    ("flac", "flac", "s32", "stereo", 192_000, 60),
    ("mp3", "libmp3lame", None, "stereo", 44_100, 20),
    ("ipod", "aac", None, "stereo", 44_100, 20),
    ("adts", "aac", None, "mono", 48_000, 20),
    ("ogg", "libopus", None, "mono", 48_000, 20),
    ("webm", "libopus", None, "stereo", 48_000, 20),
    ("matroska", "flac", "s16", "mono", 24_000, 60),
    ("mpegts", "aac", None, "mono", 48_000, 20),
]


def read(source, sample_rate: int = 24_000, **options) -> np.ndarray:
    return np.concatenate(list(read_chunks(source, sample_rate, **options)))


def ideal(samples: np.ndarray, rate: int) -> np.ndarray:
    resampler = Resampler(rate)
    return np.concatenate([resampler.push(samples), resampler.end()])


def signal_to_error_db(got: np.ndarray, want: np.ndarray) -> float:
    """Over the second in the middle, at the lag (codecs add some) that fits best."""
    part = want[12_000:36_000]
    lags = range(-2_400, 2_400)
    fits = [float(np.dot(got[12_000 + lag : 36_000 + lag : 7], part[::7])) for lag in lags]
    lag = lags[int(np.argmax(fits))]
    error = got[12_000 + lag : 36_000 + lag] - part
    return 10 * np.log10(np.mean(part**2) / max(np.mean(error**2), 1e-12))


@pytest.mark.parametrize(
    ("container", "codec", "sample_format", "layout", "rate", "min_db"),
    FORMATS,
    ids=[f"{row[0]}-{row[1]}-{row[2] or ''}{row[3]}-{row[4]}" for row in FORMATS],
)
def test_every_format_gives_the_same_sound(
    container, codec, sample_format, layout, rate, min_db, record, tone
) -> None:
    # Two tones that beat, so that a shift cannot hide in one period.
    samples = 0.5 * (tone(rate, 2.5, 440) + tone(rate, 2.5, 555.5))
    data = record(container, codec, samples, rate, layout=layout, sample_format=sample_format)
    source = io.BytesIO(data)
    assert duration_s(source) == pytest.approx(2.5, abs=0.06)
    got = read(source)
    assert len(got) / 24_000 == pytest.approx(2.5, abs=0.06)
    assert signal_to_error_db(got, ideal(samples, rate)) > min_db


@pytest.mark.parametrize(
    ("container", "codec", "layout", "dtype"),
    [
        ("wav", "pcm_u8", "mono", "uint8"),
        ("wav", "pcm_s16le", "stereo", "int16"),
        ("flac", "flac", "5.1", "int16"),
        ("wav", "pcm_s24le", "stereo", "int32"),
        ("wav", "pcm_f32le", "stereo", "float32"),
        ("wav", "pcm_f64le", "mono", "float32"),
        ("nut", "pcm_s32le_planar", "hexadecagonal", "float32"),
    ],
)
def test_a_file_gives_its_own_samples(container, codec, layout, dtype, record) -> None:
    count = {"mono": 1, "stereo": 2, "5.1": 6, "hexadecagonal": 16}[layout]
    planes = np.stack([np.full(9_000, level / 32, np.float32) for level in range(count)])
    how = {"sample_format": "s16"} if codec == "flac" else {}
    source = io.BytesIO(record(container, codec, planes, 11_025, layout=layout, **how))
    assert num_channels(source) == count
    inputs = [AudioInput(11_025, channel=number) for number in range(count)]
    parts: list[list[np.ndarray]] = [[] for _ in inputs]
    for chunk in read_file(source):
        assert (chunk.rate, chunk.num_channels, chunk.data.dtype) == (11_025, count, dtype)
        assert len(chunk.data) == chunk.num_samples
        for audio, part in zip(inputs, parts, strict=True):
            part.append(audio.feed(chunk))
    for number, (audio, part) in enumerate(zip(inputs, parts, strict=True)):
        sound = np.concatenate([*part, audio.end()])
        assert sound.size == 9_000
        assert np.abs(sound - number / 32).max() < 0.01


def test_a_file_has_the_warnings_of_a_stream(record, tone) -> None:
    samples = np.clip(9 * tone(24_000, 2.0), -1, 1)
    samples[30_000:30_005] = np.nan
    audio = AudioInput(24_000)
    for chunk in read_file(io.BytesIO(record("wav", "pcm_f32le", samples, 24_000))):
        assert np.isfinite(audio.feed(chunk)).all()
    found = [(warning.kind, warning.time) for warning in audio.warnings()]
    assert found == [("clipped", 1.0), ("not_finite", 2.0)]


def test_of_what_cannot_be_read_twice_no_channels_are_known(pipe, record, tone) -> None:
    raw = pipe(record("wav", "pcm_s16le", tone(8_000, 1.0), 8_000))
    assert num_channels(raw) is None
    assert raw.num_given == 0
    assert num_channels(io.BytesIO(b"no sound")) is None


def test_channels_are_mixed_by_their_mean(record) -> None:
    planes = np.stack([np.full(8_000, level, np.float32) for level in (0.6, 0.2)])
    for codec in ("pcm_s16le", "pcm_f32le"):
        got = read(io.BytesIO(record("wav", codec, planes, 24_000, layout="stereo")))
        assert np.abs(got - 0.4).max() < 1e-4
    for container, codec, layout, count in (
        ("flac", "flac", "5.1", 6),
        ("wav", "pcm_s24le", "7.1", 8),
        ("nut", "pcm_s16le_planar", "7.1", 8),
        ("nut", "pcm_s32le_planar", "hexadecagonal", 16),
    ):
        planes = np.zeros((count, 8_000), np.float32)
        planes[0] = 0.6
        got = read(io.BytesIO(record(container, codec, planes, 24_000, layout=layout)))
        assert len(got) == 8_000
        assert np.abs(got - 0.6 / count).max() < 1e-4


def test_the_sound_of_a_film_keeps_its_place(tone) -> None:
    """A video file whose sound begins 0.5 s after the picture."""
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as film:
        picture = film.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        sound = film.add_stream("flac", rate=16_000, layout="mono")
        for number in range(20):
            image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
            image.pts = number
            film.mux(picture.encode(image))
        samples = (tone(16_000, 1.0)[None] * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 8_000
        film.mux([*picture.encode(None), *sound.encode(frame), *sound.encode(None)])
    first = next(read_file(io.BytesIO(out.getvalue())))
    assert (first.data, first.num_channels) == (None, 1)
    assert first.seconds == pytest.approx(0.5, abs=0.02)
    got = read(io.BytesIO(out.getvalue()))
    assert len(got) / 24_000 == pytest.approx(1.5, abs=0.02)
    assert np.abs(got[:11_500]).max() < 1e-3
    assert np.abs(got[12_500:]).max() > 0.29


def test_a_rate_that_changes_in_the_middle_is_followed(record, tone) -> None:
    data = b"".join(record("adts", "aac", tone(rate, 1.0), rate) for rate in (48_000, 16_000))
    got = read(io.BytesIO(data))
    assert len(got) / 24_000 == pytest.approx(2.0, abs=0.3)
    # The pitch stays: crossings of zero in the last half second.
    assert np.sum(np.diff(np.sign(got[-18_000:-6_000])) != 0) == pytest.approx(440, rel=0.03)


@pytest.mark.parametrize("chunk_s", [0.08, 0.5, 1.0, 7.0])
def test_the_chunk_length_changes_nothing_but_the_cuts(chunk_s: float, record, tone) -> None:
    data = record("flac", "flac", tone(44_100, 2.2), 44_100, sample_format="s16")
    chunks = list(read_chunks(io.BytesIO(data), 16_000, chunk_s=chunk_s))
    assert {len(chunk) for chunk in chunks[:-1]} <= {round(chunk_s * 16_000)}
    assert 0 < len(chunks[-1]) <= round(chunk_s * 16_000)
    assert np.array_equal(np.concatenate(chunks), read(io.BytesIO(data), 16_000))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_not_opened_for_its_duration(tmp_path: Path) -> None:
    path = tmp_path / "pipe.wav"
    os.mkfifo(path)
    assert duration_s(path) is None  # opening it would wait for a writer


def test_a_name_that_is_too_long_has_no_duration() -> None:
    assert duration_s("a" * 5000) is None


@pytest.mark.parametrize("container", ["wav", "flac", "mp3", "ogg", "webm", "mp4"])
def test_a_pipe_gives_the_same_as_a_file(container: str, record, tone, pipe, monkeypatch) -> None:
    codecs = {"wav": "pcm_s16le", "mp3": "libmp3lame", "mp4": "aac", "flac": "flac"}
    options = {"movflags": "frag_keyframe+empty_moov"} if container == "mp4" else None
    samples = tone(48_000, 1.5)
    data = record(container, codecs.get(container, "libopus"), samples, 48_000, options=options)
    want = read(io.BytesIO(data))
    raw = pipe(data)
    assert duration_s(raw) is None
    assert duration_s("-") is None
    assert raw.num_given == 0
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(raw)))
    got = read("-")
    # In an mp3 of unknown size the padding at the end is not told from sound.
    assert len(got) - len(want) in range(1_200)
    assert np.array_equal(got[: len(want) - 600], want[:-600])
    assert not raw.closed


def test_an_mp4_with_its_index_at_the_end_needs_a_file(record, tone, pipe) -> None:
    data = record("mp4", "aac", tone(48_000, 2.0), 48_000)
    with pytest.raises(AudioError, match="give it as a file"):
        read(pipe(data))
    assert len(read(io.BytesIO(data))) / 24_000 == pytest.approx(2.0, abs=0.05)


def test_an_open_file_is_read_from_where_it_stands_and_left_open(record, tone) -> None:
    data = record("wav", "pcm_s16le", tone(24_000, 1.0), 24_000)
    file = io.BytesIO(b"before" + data)
    file.seek(6)
    assert duration_s(file) == 1.0
    assert file.tell() == 6
    assert len(read(file)) == 24_000
    assert not file.closed


def test_a_long_recording_is_read_in_little_memory_and_only_as_it_is_asked_for() -> None:
    rate, duration = 8_000, 600
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 1, rate, rate * duration, "NONE", ""))
        file.writeframes(b"\x80" * (rate * duration))

    class Watched(io.BytesIO):
        furthest = 0

        def seekable(self) -> bool:
            return False

        def read1(self, size: int | None = -1) -> bytes:
            data = self.read(size)
            self.furthest = self.tell()
            return data

    source = Watched(out.getvalue())
    chunks = read_chunks(source, 24_000)
    assert source.furthest == 0
    assert len(next(chunks)) == 24_000
    # The demuxer looks ahead to know the format; no more.
    assert source.furthest < 200_000
    tracemalloc.start()
    try:
        for _ in range(300):
            next(chunks)
        peak_size = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Five minutes are 29 MB of samples.
    assert peak_size < 3_000_000
    assert source.furthest < 310 * rate
    assert 301 + sum(1 for _ in chunks) == duration


def test_a_reader_that_stops_early_closes_the_file(tmp_path: Path, record, tone, monkeypatch):
    path = tmp_path / "long.wav"
    path.write_bytes(record("wav", "pcm_s16le", tone(24_000, 5.0), 24_000))
    opened = []
    real_open = Path.open

    def watched(self, *arguments, **options):
        opened.append(real_open(self, *arguments, **options))
        return opened[-1]

    monkeypatch.setattr(Path, "open", watched)
    chunks = read_chunks(path, 24_000)
    next(chunks)
    assert not opened[0].closed
    chunks.close()  # type: ignore[attr-defined]
    assert opened[0].closed


def test_damage_in_the_middle_becomes_silence_and_a_warning(record, tone, caplog) -> None:
    data = bytearray(record("flac", "flac", tone(16_000, 5.0), 16_000, sample_format="s16"))
    middle = len(data) // 2
    data[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    with caplog.at_level(logging.WARNING):
        got = read(io.BytesIO(bytes(data)))
    assert len(got) == 5 * 24_000
    want = ideal(tone(16_000, 5.0), 16_000)
    # What lies behind the damage is still in its place.
    assert np.abs(got[-30_000:-1_000] - want[-30_000:-1_000]).max() < 1e-3
    assert np.abs(got - want).max() > 0.2
    assert "damaged" in caplog.text


def test_damaged_packets_are_counted_and_skipped(record, tone, caplog) -> None:
    data = bytearray(record("mp4", "aac", tone(48_000, 5.0), 48_000))
    middle = len(data) // 2
    data[middle : middle + 600] = np.random.default_rng(0).bytes(600)
    with caplog.at_level(logging.WARNING):
        got = read(io.BytesIO(bytes(data)))
    assert len(got) / 24_000 == pytest.approx(5.0, abs=0.05)
    assert "could not be decoded: " in caplog.text


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("empty.wav", b"", "is empty"),
        ("text.wav", b"hello, this is no sound\n" * 50, "not a recording"),
        ("zeros.mp3", bytes(9_000), "not a recording"),
        ("head.wav", b"RIFF\x24\0\0\0WAVEfmt ", "not a recording"),
        ("subtitles.srt", b"1\n00:00:00,000 --> 00:00:01,000\nhi\n", "no audio track"),
        # Neither of these may make us open another file or the network.
        ("list.m3u8", b"#EXTM3U\n#EXTINF:5,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "not a rec"),
        (
            "call.sdp",
            b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
            b"m=audio 5004 RTP/AVP 96\na=rtpmap:96 opus/48000/2\n",
            "not a recording",
        ),
    ],
)
def test_what_is_no_recording_is_refused_in_one_sentence(
    tmp_path: Path, name: str, data: bytes, match: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(AudioError, match=match) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, TruncatedAudio)
    assert duration_s(path) is None


def test_a_film_without_sound_is_refused() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as film:
        picture = film.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        for _ in range(5):
            film.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        film.mux(picture.encode(None))
    with pytest.raises(AudioError, match=r"no audio track \(only video\)"):
        read(io.BytesIO(out.getvalue()))


def test_a_recording_of_no_samples_is_refused() -> None:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"")
    data = out.getvalue()
    assert len(data) == 44
    with pytest.raises(AudioError, match="contains no samples: record or copy it again"):
        read(io.BytesIO(data))


def test_nan_in_a_float_recording_is_refused_with_its_place(record) -> None:
    samples = np.full(48_000, 0.5, np.float32)
    samples[30_000] = np.nan
    chunks = read_chunks(io.BytesIO(record("wav", "pcm_f32le", samples, 24_000)), 24_000)
    assert len(next(chunks)) == 24_000
    with pytest.raises(AudioError, match="the open file: sample 30000 is NaN"):
        list(chunks)


def test_an_mp4_that_was_never_finished_says_so(record, tone) -> None:
    data = record("mp4", "aac", tone(48_000, 2.0), 48_000)
    with pytest.raises(AudioError, match="mp4 without its index"):
        read(io.BytesIO(data[: len(data) // 2]))


def test_bad_arguments_are_refused_at_the_call() -> None:
    with pytest.raises(AudioError, match="500 Hz"):
        read_chunks("absent.wav", 500)
    with pytest.raises(AudioError, match="chunk_s is -1"):
        read_chunks("absent.wav", 24_000, chunk_s=-1)
    with pytest.raises(AudioError, match="no such file"):
        next(read_chunks("absent.wav", 24_000))


def test_a_rate_out_of_range_in_the_file_is_refused(record, tone) -> None:
    data = bytearray(record("wav", "pcm_s16le", tone(8_000, 1.0), 8_000))
    data[24:28] = (500).to_bytes(4, "little")
    with pytest.raises(AudioError, match="500 Hz is outside"):
        read(io.BytesIO(bytes(data)))


def test_a_decoder_that_bursts_loses_no_recording(record, tone, monkeypatch) -> None:
    """FFmpeg's of Opus does so: one frame of hundreds of times full scale, in a recording in which
    its makers' decoder finds nothing. Written floats of that size are integers, as before."""
    frames = files_module.frames

    def bursting(*arguments):
        for number, (frame, time) in enumerate(frames(*arguments)):
            planes = frame.to_ndarray() * (2_000 if number == 10 else 1)
            burst = av.AudioFrame.from_ndarray(planes, frame.format.name, frame.layout.name)
            burst.sample_rate = frame.sample_rate
            yield burst, time

    monkeypatch.setattr(files_module, "frames", bursting)
    opus = record("ogg", "libopus", tone(48_000, 2.0), 48_000)
    audio = AudioInput(24_000)
    for chunk in read_file(io.BytesIO(opus)):
        audio.feed(chunk)
    audio.end()
    assert audio.duration == pytest.approx(2.0, abs=0.05)
    assert "not_finite" in [warning.kind for warning in audio.warnings()]
    wav = record("wav", "pcm_f32le", tone(48_000, 2.0), 48_000)
    with pytest.raises(AudioError, match="divide them by the full scale"):
        list(read_file(io.BytesIO(wav)))


@pytest.mark.parametrize(("suffix", "name"), [(".ul", "mulaw"), (".sw", "s16le"), (".ub", "u8")])
def test_samples_without_a_header_are_not_taken_for_44100_a_second(
    suffix: str, name: str, tmp_path: Path, tone
) -> None:
    """FFmpeg takes them so by the ending of their file."""
    path = tmp_path / f"call{suffix}"
    path.write_bytes((tone(8_000, 1.0) * 100 + 128).astype(np.uint8).tobytes())
    with pytest.raises(AudioError, match=rf"samples \({name}\) without .*--raw"):
        next(read_chunks(path, 24_000))


MAGIC = [b"", b"RIFF\xff\xff\0\0WAVEfmt \x10\0\0\0", b"fLaC\0\0\0\x22", b"OggS\0\x02", b"ID3\x04"]
MAGIC += [b"\0\0\0\x20ftypM4A ", b"\x1a\x45\xdf\xa3", b"FORM\0\0\xff\xffAIFF", b"\xff\xfb\x90\x64"]


@given(magic=st.sampled_from(MAGIC), data=st.binary(max_size=3_000), seekable=st.booleans())
@settings(deadline=None, max_examples=150)
def test_random_bytes_give_samples_or_a_clear_error(
    magic: bytes, data: bytes, seekable: bool
) -> None:
    source = io.BytesIO(magic + data)
    source.seekable = lambda: seekable  # type: ignore[method-assign]
    message = ""
    try:
        for chunk in read_chunks(source, 24_000):
            assert np.isfinite(chunk).all()
    except AudioError as error:
        message = str(error)
    assert "\n" not in message


@given(
    edits=st.lists(
        st.tuples(st.integers(0, 30_000), st.binary(min_size=1, max_size=40)), max_size=6
    ),
    end=st.integers(0, 30_000),
    which=st.integers(0, 5),
)
@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_recordings_give_samples_or_a_clear_error(
    edits: list[tuple[int, bytes]], end: int, which: int, record, tone
) -> None:
    row = [FORMATS[i] for i in (1, 9, 11, 12, 14, 15)][which]
    data = bytearray(record(row[0], row[1], tone(row[4], 0.5), row[4], sample_format=row[2]))
    for place, piece in edits:
        data[place : place + len(piece)] = piece
    message = ""
    try:
        for chunk in read_chunks(io.BytesIO(bytes(data[:end])), 24_000):
            assert np.isfinite(chunk).all()
    except AudioError as error:
        message = str(error)
    assert "\n" not in message


def test_real_recordings_have_the_length_that_is_noted(shared_data: Path) -> None:
    lines = (shared_data / "clips.jsonl").read_text().splitlines()
    clips = [json.loads(line) for line in lines]
    assert clips
    for clip in clips:
        path = shared_data / clip["file"]
        num_samples = sum(len(chunk) for chunk in read_chunks(path, 24_000))
        assert num_samples / 24_000 == pytest.approx(clip["seconds"], abs=0.06), path.name
        assert duration_s(path) == pytest.approx(clip["seconds"], abs=0.06), path.name


@pytest.fixture
def two_tracks(tone) -> bytes:
    """A film in two languages: 1 s in English, and 2 s in French, in stereo and called so."""
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as film:
        english = film.add_stream("flac", rate=16_000, layout="mono")
        french = film.add_stream("flac", rate=16_000, layout="stereo")
        english.metadata["language"] = "eng"
        french.metadata.update(language="fra", title="Commentary")
        for track, seconds in ((english, 1), (french, 2)):
            layout = track.layout.name
            count = track.codec_context.channels
            samples = (tone(16_000, float(seconds)) * 32_767).astype(np.int16)
            packed = np.repeat(samples, count)[None]
            frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            frame.sample_rate, frame.pts = 16_000, 0
            film.mux([*track.encode(frame), *track.encode(None)])
    return out.getvalue()


def test_one_of_several_tracks_is_heard(two_tracks: bytes) -> None:
    def heard(track: int | None) -> tuple[float, int]:
        chunks = list(read_file(io.BytesIO(two_tracks), track=track))
        return sum(chunk.seconds for chunk in chunks), chunks[0].num_channels

    assert heard(None) == heard(0) == (pytest.approx(1.0), 1)
    assert heard(1) == (pytest.approx(2.0), 2)
    assert [num_channels(io.BytesIO(two_tracks), track) for track in (0, 1)] == [1, 2]


def test_a_track_that_is_not_there_is_answered_with_those_that_are(
    two_tracks: bytes, record, tone
) -> None:
    with pytest.raises(AudioError) as told:
        list(read_file(io.BytesIO(two_tracks), track=2))
    assert str(told.value) == (
        "the open file has no audio track 2: it has 0 (eng, flac, 1 channel), "
        "1 (fra, Commentary, flac, 2 channels)"
    )
    assert duration_s(io.BytesIO(two_tracks), 2) is None
    ogg = record("ogg", "flac", tone(16_000, 1.0), 16_000)
    with pytest.raises(AudioError, match=r"has no audio track 1: it has 0 \(flac, 1 channel\)"):
        list(read_file(io.BytesIO(ogg), track=1))
