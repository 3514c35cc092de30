import io
import struct

import av
import numpy as np
import pytest

from kiku.audio import read_chunks
from kiku.errors import AudioError, TruncatedAudio
from tests.audio import handmade

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
    ("mp3", "libmp3lame"),
    ("ogg", "libopus"),
    ("avi", "libmp3lame"),
    ("avi", "pcm_s16le"),
    ("caf", "pcm_s16le"),
    ("w64", "pcm_s16le"),
    ("asf", "libmp3lame"),
    ("rm", "ac3"),
    ("wv", "wavpack"),
    ("flv", "libmp3lame"),
    ("tta", "tta"),
    ("sox", "pcm_s32le"),
]
# Those without a length, of which only a packet that is cut in two tells it.
RAW = [
    ("adts", "aac"),
    ("latm", "aac"),
    ("mp2", "mp2"),
    ("ac3", "ac3"),
    ("eac3", "eac3"),
    ("mpegts", "mp2"),
    ("nut", "aac"),
    ("nut", "pcm_s16le"),
    ("nut", "libopus"),
    ("amr", "libopencore_amrnb"),
    ("voc", "pcm_s16le"),
    ("vob", "pcm_dvd"),
    ("vob", "ac3"),
    ("mpeg", "mp2"),
    ("ast", "pcm_s16be_planar"),
    ("smjpeg", "pcm_s16le"),
]
# What PyAV reads and does not write, of about two seconds.
HANDMADE = {
    "ape": handmade.ape(20, 1_600),
    "tak": handmade.tak(1_000),
    "amr wide": handmade.amr_wide(100),
    "sphere": handmade.sphere(32_000),
    "musepack": handmade.musepack(77),
    "dsf": handmade.dsd(172),
    "svag": handmade.playstation("svag", 1_140),
    "msf": handmade.playstation("msf", 1_140),
}
# Container, codec and rate of recordings of telephones, games and studios.
STATED = [
    ("mmf", "adpcm_yamaha", 22_050),
    ("adx", "adpcm_adx", 24_000),
    ("argo_asf", "adpcm_argo", 22_050),
    ("apm", "adpcm_ima_apm", 22_050),
    ("kvag", "adpcm_ima_ssi", 22_050),
    ("wsaud", "adpcm_ima_ws", 22_050),
    ("mxf_opatom", "pcm_s16le", 48_000),
    ("swf", "libmp3lame", 44_100),
]
# By container: where its length is stated, and what stands there if the writer did not know it.
UNSTATED = {"mmf": (4, bytes(4)), "adx": (12, bytes(4)), "swf": (4, b"\0\0\x40\x06")}
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
    sample_format = {"flac": "s16", "adpcm_ms": "s16", "tta": "s16"}.get(codec)
    rate = 48_000
    data = record(container, codec, tone(rate, 5.0), rate, sample_format=sample_format)
    source = pipe if piped else io.BytesIO
    seconds, message = read_until_it_breaks(source(data))
    assert seconds == pytest.approx(5.0, abs=0.06)
    assert message == ""
    # Cut in the middle of a packet, as a broken copy is.
    seconds, message = read_until_it_breaks(source(data[: len(data) * 6 // 10 + 1]))
    packet_s = 1.05 if codec == "tta" else 0.4
    assert seconds == pytest.approx(3.0, abs=packet_s)
    assert f"ends early, after {seconds:.2f} s" in message
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
    assert f"ends early, after {seconds:.2f} s" in message


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize(("container", "codec"), RAW)
def test_a_packet_that_is_cut_in_two_is_noticed(
    container: str, codec: str, piped: bool, record, tone, pipe
) -> None:
    rate = 8_000 if container == "amr" else 48_000
    data = record(container, codec, tone(rate, 2.0), rate)
    source = pipe if piped else io.BytesIO
    # What tag programs leave at the end is no sound, and not missing either.
    ends = (b"", b"TAG" + bytes(125), bytes(50))
    for end in ends[:1] if container in ("nut", "amr") else ends:
        seconds, message = read_until_it_breaks(source(data + end))
        assert seconds == pytest.approx(2.0, abs=0.06)
        assert message == ""
    for cut in (len(data) * 6 // 10 + 1, len(data) // 2 + 7):
        seconds, message = read_until_it_breaks(source(data[:cut]))
        assert f"ends early, after {seconds:.2f} s: what" in message


@pytest.mark.parametrize(("container", "codec"), [("adts", "aac"), ("ac3", "ac3")])
def test_what_is_cut_between_two_packets_cannot_be_known(
    container: str, codec: str, record, tone
) -> None:
    data = record(container, codec, tone(48_000, 2.0), 48_000)
    with av.open(io.BytesIO(data), "r") as whole:
        places = [packet.pos or 0 for packet in whole.demux(audio=0) if packet.size]
    seconds, message = read_until_it_breaks(io.BytesIO(data[: places[50]]))
    assert seconds == pytest.approx(50 * (1_024 if codec == "aac" else 1_536) / 48_000, abs=0.06)
    assert message == ""


def test_a_blu_rays_transport_stream_may_be_whole(record, tone) -> None:
    plain = record("mpegts", "mp2", tone(48_000, 2.0), 48_000)
    data = b"".join(bytes(4) + plain[i : i + 188] for i in range(0, len(plain), 188))
    assert read_until_it_breaks(io.BytesIO(data))[1] == ""
    assert read_until_it_breaks(io.BytesIO(data[:-50]))[1] != ""


def wav_with(data: bytes, size: int) -> bytes:
    place = data.index(b"data") + 4
    return data[:place] + struct.pack("<I", size) + data[place + 4 :]


# As ffmpeg, sox and others write them; the round ones are "surely enough" (Kyutai's pocket-tts).
PLACEHOLDERS = [0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF, 2_000_000_000, 1_000_000_000, 0x4000_0000]


@pytest.mark.parametrize("size", [*PLACEHOLDERS, 96_000 + 44])
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
    assert "ends early, after 1.00 s although it states 2.00 s" in message


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


@pytest.mark.parametrize("size", [0xFFFFFFFF, 2_000_000_000])
def test_an_au_that_cannot_know_its_length_raises_no_alarm(size: int, record, tone) -> None:
    data = record("au", "pcm_s16be", tone(24_000, 2.0), 24_000)
    data = data[:8] + struct.pack(">I", size) + data[12:]
    assert read_until_it_breaks(io.BytesIO(data)) == (2.0, "")


def test_a_wav_of_hours_that_was_cut_is_told(record, tone) -> None:
    """A size that is large and nothing else is no placeholder."""
    data = wav_with(record("wav", "pcm_s16le", tone(24_000, 2.0), 24_000), 1_234_567_890)
    _, message = read_until_it_breaks(io.BytesIO(data))
    assert "ends early, after 2.00 s although it states 25720.16 s" in message


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_cut_mp3_is_told_by_its_count_of_packets(rate: int, piped: bool, record, tone, pipe):
    """Also behind a tag with a picture in it, which is larger than what is kept of a head."""
    sound = record("mp3", "libmp3lame", tone(rate, 5.0), rate, options={"write_xing": "1"})
    start = sound.index(b"\xff", 45)
    size = 200_000
    tag = b"ID3\x04\0\0" + bytes(size >> 7 * i & 0x7F for i in (3, 2, 1, 0)) + bytes(size)
    source = pipe if piped else io.BytesIO
    for whole in (sound, tag + sound[start:]):
        seconds, message = read_until_it_breaks(source(whole))
        assert seconds == pytest.approx(5.0, abs=0.1)
        assert message == ""
        seconds, message = read_until_it_breaks(source(whole[: len(whole) - len(sound) * 4 // 10]))
        assert seconds == pytest.approx(3.0, abs=0.2)
        assert "although it states 5.0" in message


def test_an_mp3_without_a_count_raises_no_alarm_unless_a_packet_is_cut(record, tone) -> None:
    data = record("mp3", "libmp3lame", tone(48_000, 5.0), 48_000, options={"write_xing": "0"})
    first = data.index(b"\xff\xfb")
    size = 384  # 128 kbit/s at 48 kHz
    for num_bytes, told in ((len(data), False), (first + 100 * size, False), (first + 4e4, True)):
        message = read_until_it_breaks(io.BytesIO(data[: int(num_bytes)]))[1]
        assert ("ends early" in message) == told


def test_the_count_of_a_vbri_header_is_read(record, tone) -> None:
    """As Fraunhofer's encoder writes it, in the place where others have Xing."""
    data = bytearray(record("mp3", "libmp3lame", tone(48_000, 5.0), 48_000))
    place = data.index(b"Xing") if b"Xing" in data else data.index(b"Info")
    first = data.rindex(b"\xff", 0, place)
    (count,) = struct.unpack_from(">I", data, place + 8)
    data[first + 4 : first + 100] = bytes(96)
    struct.pack_into(">4sHHHII", data, first + 36, b"VBRI", 1, 0, 50, len(data), count)
    assert read_until_it_breaks(io.BytesIO(bytes(data)))[1] == ""
    cut = bytes(data[: len(data) * 6 // 10])
    assert "although it states 5.0" in read_until_it_breaks(io.BytesIO(cut))[1]


def test_an_rf64_that_was_cut_is_told(record, tone) -> None:
    """A wav whose size stands in a chunk of its own, as it may not fit 32 bits."""
    data = wav_with(record("wav", "pcm_s16le", tone(24_000, 2.0), 24_000), 0xFFFFFFFF)
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, len(data) + 28, 96_000, 48_000, 0)
    data = b"RF64\xff\xff\xff\xffWAVE" + sizes + data[12:]
    assert read_until_it_breaks(io.BytesIO(data)) == (2.0, "")
    seconds, message = read_until_it_breaks(io.BytesIO(data[:-48_000]))
    assert seconds == 1.0
    assert "although it states 2.00 s" in message


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("name", HANDMADE)
def test_rare_formats_are_heard_and_their_truncation_is_told(name: str, piped: bool, pipe) -> None:
    data = HANDMADE[name]
    source = pipe if piped else io.BytesIO
    seconds, message = read_until_it_breaks(source(data))
    assert seconds == pytest.approx(2.0, abs=0.13)
    assert message == ""
    for cut in (len(data) * 6 // 10 + 1, len(data) // 2 + 7):
        part_s, message = read_until_it_breaks(source(data[:cut]))
        assert 0 < part_s < 0.65 * seconds
        if name not in ("ape", "svag"):  # of which much is not sound
            assert part_s == pytest.approx(seconds * cut / len(data), abs=0.1)
        assert f"ends early, after {part_s:.2f} s" in message
        if name in ("ape", "tak", "sphere", "musepack"):
            assert f"although it states {seconds:.2f} s" in message


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize(("container", "codec", "rate"), STATED)
def test_a_stated_length_shows_a_truncation(
    container: str, codec: str, rate: int, piped: bool, record, tone, pipe
) -> None:
    sample_format = None if codec == "libmp3lame" else "s16p" if codec == "adpcm_argo" else "s16"
    data = record(container, codec, tone(rate, 3.0), rate, sample_format=sample_format)
    if container == "swf":  # FFmpeg states the size of films only
        data = data[:4] + struct.pack("<I", len(data)) + data[8:]
    source = pipe if piped else io.BytesIO
    whole_s, message = read_until_it_breaks(source(data))
    assert whole_s == pytest.approx(3.0, abs=0.12)
    assert message == ""
    cut = data[: len(data) * 6 // 10 + 1]
    seconds, message = read_until_it_breaks(source(cut))
    assert seconds == pytest.approx(1.8, abs=0.15)
    assert f"ends early, after {seconds:.2f} s" in message
    if container in UNSTATED:
        first, unknown = UNSTATED[container]
        cut = cut[:first] + unknown + cut[first + len(unknown) :]
        assert read_until_it_breaks(source(cut)) == (seconds, "")


def test_an_adx_of_two_channels_is_as_long_as_it_states(record, tone) -> None:
    data = record("adx", "adpcm_adx", tone(24_000, 2.0), 24_000, layout="stereo")
    assert read_until_it_breaks(io.BytesIO(data)) == (pytest.approx(2.0, abs=0.01), "")
    seconds, message = read_until_it_breaks(io.BytesIO(data[:-2_000]))
    assert f"ends early, after {seconds:.2f} s although it states 2.00 s" in message


@pytest.mark.parametrize("data", [handmade.svx(32_000), handmade.playstation("vag", 1_143)])
def test_an_8svx_and_a_vag_that_were_cut_are_told(data: bytes) -> None:
    assert read_until_it_breaks(io.BytesIO(data)) == (pytest.approx(2.0, abs=0.001), "")
    seconds, message = read_until_it_breaks(io.BytesIO(data[: len(data) * 5 // 8]))
    assert f"ends early, after {seconds:.2f} s" in message


@pytest.mark.parametrize("name", HANDMADE)
def test_rare_formats_that_are_damaged_give_samples_or_one_sentence(name: str) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        data = np.frombuffer(HANDMADE[name], np.uint8).copy()
        places = rng.integers(0, data.size, 6)
        data[places] = rng.integers(0, 256, 6)
        message = ""
        try:
            read_until_it_breaks(io.BytesIO(data[: int(rng.integers(8, data.size))].tobytes()))
        except AudioError as error:
            message = str(error)
        assert "\n" not in message


def test_a_nut_has_an_index_unless_its_version_may_go_without(record, tone) -> None:
    """A cut between two packets is told by it."""
    sound = tone(16_000, 60.0)
    data = record("nut", "pcm_s16le", sound, 16_000)
    size = struct.unpack(">Q", data[-12:-4])[0]
    assert read_until_it_breaks(io.BytesIO(data)) == (60.0, "")
    for end in (b"", struct.pack(">QI", 4_711, 0)):
        message = read_until_it_breaks(io.BytesIO(data[:-size] + end))[1]
        assert "ends early, after 60.00 s" in message
    options = {"strict": "experimental", "syncpoints": "timestamped", "write_index": "0"}
    later = record("nut", "pcm_s16le", sound, 16_000, options=options)
    assert read_until_it_breaks(io.BytesIO(later)) == (60.0, "")


@pytest.mark.parametrize("piped", [False, True])
def test_a_program_stream_may_end_between_two_packs(piped: bool, record, tone, pipe) -> None:
    """As those of DVDs do, which are split into files of equal size."""
    data = record("vob", "ac3", tone(48_000, 2.0), 48_000)
    source = pipe if piped else io.BytesIO
    for size, told in ((10 * 2_048, False), (10 * 2_048 + 3, True), (10 * 2_048 + 16, True)):
        assert ("ends early" in read_until_it_breaks(source(data[:size]))[1]) == told
    # The end of a program, and what looks like a packet and is none.
    for end in (b"\0\0\1\xb9", b"TAG\0\0\1\xc0\xff\xff\xff"):
        assert read_until_it_breaks(source(data[: 10 * 2_048] + end))[1] == ""


def test_a_matroska_that_begins_late_is_whole(tone) -> None:
    """Its header says when it ends, and not how long it is."""
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as file:
        track = file.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for first in range(0, 80_000, 8_000):
            frame = av.AudioFrame.from_ndarray(tone(16_000, 0.5)[None], "flt", "mono")
            frame.sample_rate, frame.pts = 16_000, 3 * 16_000 + first
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    data = out.getvalue()
    assert read_until_it_breaks(io.BytesIO(data)) == (5.0, "")
    seconds, message = read_until_it_breaks(io.BytesIO(data[: len(data) * 6 // 10]))
    assert f"ends early, after {seconds:.2f} s although it states 5.00 s" in message
