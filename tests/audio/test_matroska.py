"""Recordings in Matroska and WebM that state no length, as browsers make them."""

import io

import av
import numpy as np
import pytest

from kiku.audio import read_file
from kiku.audio.matroska import is_cut
from kiku.audio.source import open_source
from kiku.errors import TruncatedAudio

RATE = 48_000


def is_told(source) -> bool:
    try:
        for _ in read_file(source):
            pass
    except TruncatedAudio as error:
        return "ends early, after" in str(error)
    return False


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("webm", "libopus", {"live": "1"}),
        ("matroska", "pcm_s16le", {"live": "1"}),
        ("webm", "libopus", {"live": "1", "cluster_time_limit": "200"}),
    ],
)
def test_a_cut_within_a_block_is_told(
    container: str, codec: str, options: dict[str, str], piped: bool, record, tone, pipe
) -> None:
    data = record(container, codec, tone(RATE, 1.0), RATE, options=options)
    source = pipe if piped else io.BytesIO
    assert not is_told(source(data))
    sizes = range(len(data) // 2, len(data), len(data) // 31)
    cut = [is_told(source(data[:size])) for size in sizes]
    assert cut.count(False) <= 1, "where a block ends, nothing shows that another followed"
    last = data.rindex(b"\xa3" if codec.startswith("pcm") else b"\xa1")
    assert all(is_told(source(data[:size])) for size in (last + 1, last + 2, last + 20))


def test_a_duration_that_was_never_filled_in_is_none(record, tone) -> None:
    data = record("webm", "libopus", tone(RATE, 1.0), RATE)
    place = data.index(b"\x44\x89\x88") + 3
    data = data[:place] + bytes(8) + data[place + 8 :]
    assert not is_told(io.BytesIO(data))
    place = data.index(b"\xa3", len(data) // 2)
    assert any(is_told(io.BytesIO(data[:size])) for size in (place + 40, place + 80))


def test_a_cut_of_less_than_half_a_second_is_told_where_a_length_is_stated(record, tone) -> None:
    data = record("webm", "libopus", tone(RATE, 2.0), RATE)
    assert not is_told(io.BytesIO(data))
    last = data.rindex(b"\xa3")
    assert is_told(io.BytesIO(data[: last + 20]))


def test_pictures_after_the_sound_may_be_cut_as_well() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="matroska", options={"live": "1"}) as film:
        picture = film.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        sound = film.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ones((1, 4_000), np.int16), "s16", "mono")
        frame.sample_rate, frame.pts = 16_000, 0
        film.mux([*sound.encode(frame), *sound.encode(None)])
        noise = np.random.default_rng(0).integers(0, 255, (10, 64, 64, 3)).astype(np.uint8)
        for number, values in enumerate(noise):
            image = av.VideoFrame.from_ndarray(values)
            image.pts = number
            film.mux(picture.encode(image))
        film.mux(picture.encode(None))
    data = out.getvalue()
    assert not is_told(io.BytesIO(data))
    assert is_told(io.BytesIO(data[:-100]))
    # What is no element, as some programs leave behind, is no cut.
    assert not is_told(io.BytesIO(data + bytes(50)))


def is_end_cut(data: bytes, place: int, packet_size: int) -> bool:
    with open_source(io.BytesIO(data)) as reader:
        while reader.read(65_536):
            pass
        return is_cut(reader, place, packet_size)


def test_the_elements_that_browsers_write() -> None:
    block = b"\x81\0\0\0" + bytes(10)
    elements = [
        b"\xa1\x8e" + block,  # in a group, which began before
        b"\x9b\x81\x14",
        b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7,  # a cluster of unknown size
        b"\xe7\x81\x05",
        b"\xa3\x40\x0e" + block,
    ]
    ends = [20 + len(b"".join(elements[:count])) for count in range(1, 6)]
    data = bytes(20) + b"".join(elements)
    whole = [end for end in range(ends[0], len(data) + 1) if not is_end_cut(data[:end], 22, 10)]
    assert whole == ends
    # The size of this block ends in what looks like the beginning of another.
    large = bytes(20) + b"\xa3\x21\xa3\x8d" + bytes(0x1A38D)
    assert not is_end_cut(large, 24, 0x1A38D - 4)
    assert is_end_cut(large + b"\xa3\x8e", 24, 0x1A38D - 4)
