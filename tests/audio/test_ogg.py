"""Ogg recordings of several links, and how their ends are told."""

import io

import numpy as np
import pytest

from kiku.audio import AudioInput, StreamWarning, read_chunks, read_file
from kiku.errors import AudioError, TruncatedAudio

LINKS = [("libopus", 48_000, "mono"), ("libopus", 48_000, "stereo"), ("flac", 16_000, "mono"),
         ("flac", 44_100, "mono"), ("libopus", 48_000, "mono")]  # fmt: skip


@pytest.fixture
def links(record, tone) -> list[bytes]:
    return [
        record("ogg", codec, tone(rate, 1.5, 300 + 100 * number), rate, layout=layout,
               sample_format="s16" if codec == "flac" else None)
        for number, (codec, rate, layout) in enumerate(LINKS)
    ]  # fmt: skip


def heard(source) -> np.ndarray:
    return np.concatenate(list(read_chunks(source, 24_000)))


@pytest.mark.parametrize("piped", [False, True])
def test_all_links_are_heard_whatever_their_codec_rate_and_channels(links, piped, pipe) -> None:
    data = b"".join(links)
    got = heard(pipe(data) if piped else io.BytesIO(data))
    assert got.size / 24_000 == pytest.approx(1.5 * len(links), abs=0.05)
    for number in range(len(links)):
        middle = got[36_000 * number + 12_000 : 36_000 * number + 24_000]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(middle.size)))
        assert spectrum.argmax() * 2 == pytest.approx(300 + 100 * number, abs=4)


def test_a_channel_goes_on_where_links_are_mono(links) -> None:
    right = AudioInput(24_000, channel=1)
    parts = [right.feed(chunk) for chunk in read_file(io.BytesIO(links[1] + links[2]))]
    assert sum(map(len, parts)) / 24_000 == pytest.approx(3.0, abs=0.1)
    assert np.abs(parts[-2]).max() > 0.2


def test_damage_between_pages_is_left_out(links) -> None:
    got = heard(io.BytesIO(links[0] + b"no page at all Ogg" * 9 + links[1]))
    assert got.size / 24_000 == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize("piped", [False, True])
def test_an_ogg_without_its_last_page_is_told_as_cut(links, piped, pipe) -> None:
    source = pipe if piped else io.BytesIO
    last = links[0].rindex(b"OggS")
    for data in (links[0][:last], links[0][: last + 40], links[1] + links[0][:last]):
        with pytest.raises(TruncatedAudio, match="ends early, after"):
            heard(source(data))


def test_a_link_that_was_cut_before_another_is_a_warning(links, record, tone) -> None:
    """Its last page would swallow the first of the next link."""
    found: list[StreamWarning] = []
    long = record("ogg", "libopus", tone(48_000, 6.0), 48_000)
    chunks = list(read_file(io.BytesIO(long[: len(long) // 2] + links[1]), on_warning=found.append))
    assert sum(chunk.seconds for chunk in chunks) == pytest.approx(3.0 + 1.5, abs=1.1)
    assert [one.kind for one in found] == ["damaged"]
    assert "ends early," in found[0].message


def test_an_end_that_is_no_recording_does_not_lose_what_was_before(links) -> None:
    head = links[0][: links[0].index(b"OggS", 4)]  # a link that only begins
    with pytest.raises(TruncatedAudio, match="cannot be read beyond 1"):
        heard(io.BytesIO(links[1] + head))
    with pytest.raises(AudioError, match="not a recording"):
        heard(io.BytesIO(head))
