"""The one loop: streams side by side, files as streams fed faster, what happens on bad days."""

import gc
import io
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kiku import End, Recognizer, Stream, Transcription, Word
from kiku.engine import StepOutput
from kiku.engine.torch import TorchEngine
from kiku.errors import (
    AudioError,
    InputError,
    NoFreeSlot,
    StreamError,
    TruncatedAudio,
)
from kiku.stream import NO_CARE, Wishes
from kiku.transcription import Batch, Job
from tests import tiny
from tests.fakes import EchoEngine, spoken

CONFIG = tiny.model_config()
SIZE = CONFIG.frame_size
ONE, TWO, THREE = (tiny.PIECES.index(p) for p in ("▁one", "▁two", "▁three"))


def echo(slots: int = 1) -> tuple[Recognizer, EchoEngine]:
    engine = EchoEngine(slots)
    return Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo"), engine


def real(slots: int = 1) -> Recognizer:
    engine = TorchEngine(tiny.codec(), tiny.lm(), slots=slots, device="cpu")
    return Recognizer(engine, CONFIG, tiny.vocabulary(), name="tiny")


def sentence(*words: int) -> NDArray[np.float32]:
    """Each word with a marker before and PADs after."""
    return spoken([t for word in words for t in (3, 0, word, 3, 3)], SIZE)


def noise(num_frames: int, seed: int) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(num_frames * SIZE) * 0.3).astype(np.float32)


def test_a_recording_becomes_words_with_times() -> None:
    rec, engine = echo()
    result = rec.transcribe(sentence(ONE, TWO))
    assert result.text == "one two"
    assert [w.start for w in result.words] == pytest.approx([0.0, 8 * 0.08 - 0.5])
    assert result.duration == pytest.approx(10 * 0.08)
    assert result.problem is None
    assert [s.text for s in result.segments] == ["one two"]
    assert not engine.held


def test_words_come_before_the_recording_ends() -> None:
    rec, _ = echo()
    result = rec.transcribe(np.concatenate([sentence(ONE), np.zeros(10_000 * SIZE, np.float32)]))
    assert next(iter(result)).text == "one"
    assert result.heard_s < 100
    assert [w.text for w in result.so_far] == ["one"]


def test_iterating_twice_gives_the_same_words() -> None:
    rec, _ = echo()
    result = rec.transcribe(sentence(ONE, TWO, THREE))
    assert list(result) == list(result) == result.words


def test_a_backlog_moves_in_blocks_and_live_sound_frame_by_frame() -> None:
    rec, engine = echo()
    live = rec.open()
    for _ in range(3):
        live.push(np.zeros(SIZE, np.float32))
        assert rec.step() == 1
    live.push(np.zeros(13 * SIZE, np.float32))
    while rec.step():
        pass
    assert engine.steps == [(1, 1)] * 3 + [(1, 8), (1, 5)]  # alone, it takes what there is


def test_backlogs_of_several_streams_share_steps() -> None:
    rec, engine = echo(slots=2)
    streams = [rec.open() for _ in range(2)]
    for stream, frames in zip(streams, (13, 9), strict=True):
        stream.push(np.zeros(frames * SIZE, np.float32))
    while rec.step():
        pass
    assert engine.steps == [(2, 8), (1, 1), (1, 4), (1, 1)]


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_streams_side_by_side_give_what_each_gives_alone(data: st.DataObject) -> None:
    """Random offsets, chunk sizes and lengths, more streams than slots, on a real (tiny)
    network."""
    lengths = data.draw(st.lists(st.integers(1, 30), min_size=2, max_size=4))
    sounds = [noise(n, seed) for seed, n in enumerate(lengths)]
    expected = []
    for sound in sounds:
        rec = real()
        expected.append([(w.text, w.start, w.end) for w in rec.transcribe(sound)])
    rec = real(slots=2)
    words: dict[int, list[tuple[str, float, float]]] = {i: [] for i in range(len(sounds))}
    open_streams: dict[int, tuple[Stream, int]] = {}
    waiting = list(range(len(sounds)))
    while waiting or open_streams:
        if waiting and rec.free_slots and (not open_streams or data.draw(st.booleans())):
            i = waiting.pop(0)
            open_streams[i] = (rec.open(), 0)
        for i, (stream, at) in list(open_streams.items()):
            chunk = sounds[i][at : at + data.draw(st.integers(1, 6 * SIZE))]
            if len(chunk):
                stream.push(chunk)
            else:
                stream.close()
            open_streams[i] = (stream, at + len(chunk))
        rec.step()
        for i, (stream, _) in list(open_streams.items()):
            for event in stream.events():
                if isinstance(event, Word):
                    words[i].append((event.text, event.start, event.end))
                elif isinstance(event, End):
                    del open_streams[i]
    assert [words[i] for i in range(len(sounds))] == expected


def test_several_recordings_share_the_slots() -> None:
    rec, engine = echo(slots=2)
    sounds = [sentence(ONE), sentence(TWO, TWO), sentence(THREE), sentence(ONE, THREE)]
    assert [r.text for r in rec.transcribe(sounds)] == ["one", "two two", "three", "one three"]
    assert any(n == 2 for n, _ in engine.steps)
    assert not engine.held


def test_one_bad_recording_does_not_stop_the_rest(tmp_path: Path) -> None:
    rec, engine = echo(slots=2)
    sources = [sentence(ONE), tmp_path / "missing.wav", sentence(TWO), sentence()]
    good, bad, also, empty = rec.transcribe(sources)
    assert good.text == "one"
    assert also.text == "two"
    with pytest.raises(AudioError, match=r"missing\.wav"):
        list(bad)
    with pytest.raises(AudioError, match="no samples"):
        list(empty)
    assert not engine.held


def _wav(samples: NDArray[np.float32], rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def test_a_truncated_file_gives_its_words_and_says_so(tmp_path: Path) -> None:
    rec, engine = echo()
    path = tmp_path / "cut.wav"
    path.write_bytes(
        _wav(np.concatenate([sentence(ONE), np.zeros(20 * SIZE, np.float32)]), 1000)[:-1000]
    )
    with pytest.warns(UserWarning, match="everything before was transcribed"):
        words = (result := rec.transcribe(path)).words
    assert [w.text for w in words] == ["one"]
    assert isinstance(result.problem, TruncatedAudio)
    assert not engine.held


def test_sound_that_turns_bad_keeps_its_words() -> None:
    rec, _ = echo()
    sound = np.concatenate([sentence(ONE), np.zeros(3000 * SIZE, np.float32)])
    sound[-5] = np.nan
    with pytest.warns(UserWarning, match="everything before"):
        words = (result := rec.transcribe(sound)).words
    assert [w.text for w in words] == ["one"]
    assert result.problem is not None


def test_an_abandoned_transcription_gives_its_slot_back() -> None:
    rec, engine = echo()
    for _ in range(3):
        for word in rec.transcribe(sentence(ONE, TWO, THREE)):
            assert word.text == "one"
            break
        gc.collect()
    assert not engine.held


def test_a_full_house_is_told() -> None:
    rec, _ = echo()
    stream = rec.open()
    with pytest.raises(NoFreeSlot):
        rec.open()
    result = rec.transcribe(sentence(ONE))
    for _ in range(2):
        with pytest.raises(NoFreeSlot):
            list(result)
    with pytest.raises(NoFreeSlot):
        rec.tokens(sentence(ONE))
    rec.release(stream)
    rec.release(stream)
    assert result.text == "one"


def test_an_open_stream_that_waits_holds_up_nobody() -> None:
    rec, _ = echo(slots=2)
    live = rec.open()
    assert rec.transcribe(sentence(ONE)).text == "one"
    assert rec.tokens([sentence(ONE), sentence(TWO)])[1].tolist()[3] == TWO
    live.push(sentence(THREE))
    live.close()
    while rec.step():
        pass
    assert [e.text for e in live.events() if isinstance(e, Word)] == ["three"]


def test_raw_tokens_are_one_a_frame() -> None:
    rec, _ = echo()
    tokens = [5, 3, 0, 7, 3]
    # Token t comes after frame t - 1: the first is said before any sound, the last frame's is not
    # asked for.
    assert rec.tokens(spoken(tokens, SIZE)).tolist() == [3, 5, 3, 0, 7]
    assert rec.tokens(spoken(tokens, SIZE), max_tokens=2).tolist() == [3, 5]
    assert rec.tokens(spoken(tokens, SIZE)[: SIZE - 1]).tolist() == []
    several = rec.tokens([spoken(tokens, SIZE), spoken([9], SIZE)])
    assert [t.tolist() for t in several] == [[3, 5, 3, 0, 7], [3]]


def test_a_tap_sees_every_output() -> None:
    rec = real()
    seen: list[int] = []
    raw = Wishes(care=NO_CARE)
    stream = rec.open(padded=False, wishes=raw, tap=lambda out: seen.extend(out.tokens[0].tolist()))
    stream.push(noise(20, 0))
    stream.close()
    while rec.step():
        pass
    assert seen[:20] == rec.tokens(noise(20, 0)).tolist()
    assert len(seen) == 21


def test_refused_samples_and_failing_taps_give_the_slot_back() -> None:
    rec, engine = echo()
    with pytest.raises(AudioError, match="NaN"):
        rec.tokens(np.full(5 * SIZE, np.nan, np.float32))

    def tap(_: object) -> None:
        raise RuntimeError("tap")

    with pytest.raises(RuntimeError, match="tap"):
        rec.open(tap=tap)
    assert not engine.held
    with pytest.raises(InputError, match="at least 0"):
        rec.tokens(sentence(ONE), max_tokens=-1)
    with pytest.raises(InputError, match="mono"):
        rec.tokens(np.zeros((2, 5 * SIZE), np.float32))
    with pytest.raises(InputError, match="one array"):
        rec.tokens([sentence(ONE)], choose=lambda logits: 0)


class _Breaks(EchoEngine):
    """Fails in its second step."""

    error: BaseException = RuntimeError("out of memory")

    def step(self, slots: Sequence[int], frames: NDArray[np.float32]) -> StepOutput:
        if len(self.steps) == 1:
            self.steps.append((0, 0))
            raise self.error
        return super().step(slots, frames)


def test_a_step_that_fails_ends_its_recordings_and_frees_their_slots() -> None:
    engine = _Breaks()
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="breaks")
    result = rec.transcribe(sentence(ONE, TWO, THREE))
    with pytest.raises(RuntimeError, match="out of memory"):
        list(result)
    assert not engine.held
    assert rec.transcribe(sentence(TWO)).text == "two"
    assert [w.text for w in result.so_far] == ["one", "two"]


def test_an_interrupted_transcription_says_that_it_is_not_whole() -> None:
    engine = _Breaks()
    engine.error = KeyboardInterrupt()
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="breaks")
    result = rec.transcribe(sentence(ONE, TWO, THREE))
    with pytest.raises(KeyboardInterrupt):
        list(result)
    with pytest.raises(StreamError, match="so_far"):
        _ = result.text


def test_a_transcription_collected_during_a_step_disturbs_nobody() -> None:
    rec, engine = echo(slots=2)
    other = rec.open()
    stream = rec.open(tap=lambda _: rec.release(other))
    stream.push(sentence(ONE))
    other.push(sentence(TWO))
    rec.step()
    assert engine.held == {1}


def test_stopping_gives_the_open_word_and_the_slot() -> None:
    rec, engine = echo()
    result = rec.transcribe(np.concatenate([sentence(ONE), np.zeros(9_000 * SIZE, np.float32)]))
    iterator = iter(result)
    assert next(iterator).text == "one"
    assert engine.held
    assert result.stop() == []
    assert not engine.held
    assert list(iterator) == []
    assert result.text == "one"
    assert result.stop() == []


def test_the_word_that_is_open_when_a_recording_is_stopped_is_its_last() -> None:
    rec, _ = echo()

    def endless() -> Iterator[NDArray[np.float32]]:
        yield spoken([3, 0, TWO, ONE, *[3] * 5, 0], SIZE)
        while True:
            yield spoken([THREE] * 64, SIZE)  # glued words: one is always open

    job = Job(endless())
    result = Transcription(job, Batch(rec.loop, [job], rec.open))
    first = [word.text for word, _ in zip(result, range(3), strict=False)]
    assert first == ["two", "one", "three"]
    known = len(result.so_far)
    (last,) = result.stop()
    assert last.text == "three"
    assert len(result.so_far) == known + 1


def test_a_word_that_is_open_when_one_stops_is_not_lost() -> None:
    rec, _ = echo()
    stream = rec.open()
    stream.push(spoken([3, 0, TWO], SIZE))
    while rec.step():
        pass
    assert stream.events() == []
    stream.cut()
    word, _, end = stream.events()
    assert isinstance(word, Word)
    assert word.text == "two"
    assert isinstance(end, End)


def test_anything_that_numpy_takes_is_sound() -> None:
    import torch

    rec, _ = echo()
    assert rec.transcribe(torch.from_numpy(sentence(ONE))).text == "one"  # pyright: ignore
    two = np.stack([sentence(TWO), sentence(TWO)])
    assert rec.transcribe(two).text == "two"
