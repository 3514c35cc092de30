"""A sound of several channels, heard channel by channel."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import kiku
from kiku import TurnEnd, TurnStart
from kiku.errors import ConfigError
from kiku.options import AudioFormat, StreamOptions
from tests.guarantees.conftest import LONG_S

Load = Callable[..., kiku.Recognizer]
EACH = StreamOptions(channel="each")


@pytest.fixture(scope="session")
def both(digits: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """[S, 2] digits left, directions right."""
    size = max(len(digits), len(directions))
    return np.stack([np.pad(one, (0, size - len(one))) for one in (digits, directions)], axis=1)


def of_channel(words: object, channel: int | None) -> list[tuple[str, float, float]]:
    """Text and times of the words of a channel."""
    return [(w.text, w.start, w.end) for w in words if w.channel == channel]  # pyright: ignore


def test_a_recording_is_heard_channel_by_channel(
    load: Load, both: NDArray[np.float32], tmp_path: Path
) -> None:
    path = tmp_path / "both.wav"
    with av.open(str(path), "w") as container:
        track = container.add_stream("pcm_s16le", rate=24_000, layout="stereo")
        pcm = (both * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="stereo")
        frame.rate = 24_000
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    rec = load(2)
    alone = [rec.transcribe(path, StreamOptions(channel=i)) for i in (0, 1)]
    found = rec.transcribe(path, EACH)
    for i in (0, 1):
        assert of_channel(found.words, i) == of_channel(alone[i].words, None)
        assert of_channel(found.words, i)
    starts = [word.start for word in found.words]
    assert starts == sorted(starts)
    assert found.to_dict()["words"][0]["channel"] in (0, 1)
    assert found.duration == pytest.approx(len(both) / 24_000)
    array = rec.transcribe(both, EACH, rate=24_000)
    assert [w.text for w in array] == [w.text for w in found]


def test_a_warning_says_in_which_channel(load: Load) -> None:
    sound = np.zeros((24_000 * 3, 2), np.float32)
    sound[:, 1] = np.sign(np.sin(np.arange(len(sound)) / 10))
    found = load(2).transcribe(sound, EACH, rate=24_000)
    told = {(one.kind, one.channel) for one in found.warnings}
    assert {("silent", 0), ("clipped", 1)} <= told
    assert not told & {("silent", 1), ("clipped", 0)}


def test_a_live_stream_is_heard_channel_by_channel(load: Load, both: NDArray[np.float32]) -> None:
    rec = load(2)
    alone = [rec.transcribe(np.ascontiguousarray(both[:, i]), rate=24_000) for i in (0, 1)]
    options = StreamOptions(channel="each", format=AudioFormat(channels=2), turns=True)
    stream = rec.stream(options)
    assert rec.free_slots == 0
    half = len(both) // 2
    for first in range(0, half, 5_000):
        stream.push(both[first : min(first + 5_000, half)])
    state = stream.save()
    stream.stop()
    assert rec.free_slots == 2
    stream = rec.stream(options, state=state)
    stream.push(both[half:])
    stream.finalize("x")
    stream.close()
    events: list[object] = []
    while True:
        event = stream.next_event(LONG_S)
        assert event is not None
        events.append(event)
        if isinstance(event, kiku.End):
            break
    words = [event for event in events if isinstance(event, kiku.Word)]
    for i in (0, 1):
        assert of_channel(words, i) == of_channel(alone[i].words, None)
    assert {e.channel for e in events if isinstance(e, kiku.Finalized)} == {0, 1}
    for kind in (TurnStart, TurnEnd):
        assert {e.channel for e in events if isinstance(e, kind)} == {0, 1}
    assert stream.next_event(0) is None
    assert sum(isinstance(event, kiku.End) for event in events) == 1


def test_the_mix_and_one_channel(load: Load, both: NDArray[np.float32]) -> None:
    rec = load()
    assert rec.transcribe(both, StreamOptions(channel=1), rate=24_000).words[0].channel is None
    with pytest.raises(kiku.KikuError, match="channel"):
        rec.transcribe(both, StreamOptions(channel=2), rate=24_000)


def test_too_few_slots_are_told(load: Load, both: NDArray[np.float32]) -> None:
    rec = load(1)
    with pytest.raises(ConfigError, match="slots=2"):
        rec.transcribe(both, EACH, rate=24_000)
    with pytest.raises(ConfigError, match="slots=2"):
        rec.stream(StreamOptions(channel="each", format=AudioFormat(channels=2)))
    assert rec.free_slots == 1


def test_a_part_of_a_recording_keeps_its_times(load: Load, digits: NDArray[np.float32]) -> None:
    rec = load()
    whole = rec.transcribe(digits, rate=24_000)
    part = rec.transcribe(digits, StreamOptions(start_s=1.9, end_s=4.4), rate=24_000)
    wanted = [word for word in whole if word.start >= 1.9 and word.end <= 4.4]
    assert [word.text for word in part] == [word.text for word in wanted]
    for ours, theirs in zip(part, wanted, strict=True):
        assert ours.start == pytest.approx(theirs.start, abs=0.17)
        assert ours.end <= 4.4
