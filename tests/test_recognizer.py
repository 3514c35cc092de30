"""Recordings: streams fed faster, side by side; raw tokens; what happens on bad days."""

import asyncio
import copy
import gc
import io
import math
import pickle
import threading
import wave
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import _TemporaryFileWrapper  # pyright: ignore[reportPrivateUsage]
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kiku import (
    AudioFormat,
    End,
    Event,
    IncompleteTranscript,
    Recognizer,
    StreamOptions,
    Transcription,
    Word,
)
from kiku.audio import Chunk, StreamWarning, array_chunks
from kiku.decoding import SamplingParams
from kiku.engine import StepOutput
from kiku.errors import (
    AudioError,
    ConfigError,
    InputError,
    NoFreeSlot,
    StreamError,
    TruncatedAudio,
)
from kiku.scheduler import Binding, Member, Opening
from kiku.stream import WordSession
from kiku.transcription import RecordingBatch, RecordingSound, RecordingTask, as_done, sources
from kiku.transcription.progress import BatchProgress
from tests import tiny
from tests.engine.engines import make_engine
from tests.fakes import Driven, EchoEngine, hold_back, spoken

CONFIG = tiny.model_config()
SIZE = CONFIG.frame_size
ONE, TWO, THREE = (tiny.PIECES.index(p) for p in ("▁one", "▁two", "▁three"))
PLAIN = StreamOptions(recovery=None)


def echo(slots: int = 1) -> tuple[Recognizer, EchoEngine]:
    engine = EchoEngine(slots)
    return Recognizer(engine, CONFIG, tiny.vocabulary(), name="echo"), engine


def real(slots: int = 1, kind: str = "torch") -> Recognizer:
    return Recognizer(make_engine(kind, slots=slots), CONFIG, tiny.vocabulary(), name="tiny")


@cache
def heard_alone(kind: str, num_frames: int, seed: int) -> list[tuple[str, float, float]]:
    """The words of some noise in a recognizer of its own."""
    sound = noise(num_frames, seed)
    words = real(kind=kind).transcribe(sound, rate=CONFIG.sample_rate)
    return [(word.text, word.start, word.end) for word in words]


def sentence(*words: int) -> NDArray[np.float32]:
    """Each word with a marker before and PADs after."""
    return spoken([t for word in words for t in (3, 0, word, 3, 3)], SIZE)


def noise(num_frames: int, seed: int) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(num_frames * SIZE) * 0.3).astype(np.float32)


def words_of(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Word)]


def test_a_recording_becomes_words_with_times() -> None:
    rec, engine = echo()
    result = rec.transcribe(sentence(ONE, TWO), rate=CONFIG.sample_rate)
    assert result.text == "one two"
    assert [w.start for w in result.words] == pytest.approx([0.0, 8 * 0.08 - 0.5])
    assert result.duration == pytest.approx(10 * 0.08)
    assert result.problem is None
    assert [s.text for s in result.segments] == ["one two"]
    assert result.model == "echo"
    assert not engine.held


def test_words_come_before_the_recording_ends() -> None:
    rec, _ = echo()
    result = rec.transcription(
        np.concatenate([sentence(ONE), np.zeros(10_000 * SIZE, np.float32)]),
        rate=CONFIG.sample_rate,
    )
    assert next(iter(result)).text == "one"
    assert result.heard_s < 100
    assert [w.text for w in result.so_far] == ["one"]


def test_iterating_twice_gives_the_same_words() -> None:
    rec, _ = echo()
    result = rec.transcription(sentence(ONE, TWO, THREE), rate=CONFIG.sample_rate)
    assert list(result) == list(result) == list(result.result().words) == list(result.result())


def test_a_backlog_moves_in_blocks_and_live_sound_frame_by_frame() -> None:
    rec, engine = echo()
    live = Driven(rec, PLAIN)
    for _ in range(3):
        live.push(np.zeros(SIZE, np.float32))
        live.run()
    live.push(np.zeros(13 * SIZE, np.float32))
    live.run()
    assert engine.steps == [{0: 1}] * 3 + [{0: 8}, {0: 5}]  # alone, it takes what there is


def test_backlogs_of_several_streams_share_steps() -> None:
    rec, engine = echo(slots=2)
    streams = [Driven(rec, PLAIN) for _ in range(2)]
    for stream, frames in zip(streams, (13, 9), strict=True):
        stream.push(np.zeros(frames * SIZE, np.float32))
    for stream in streams:
        stream.run()
    assert engine.steps == [{0: 8, 1: 8}, {0: 5, 1: 1}]


@settings(deadline=None, max_examples=25)
@given(kind=st.sampled_from(["onnx", "plain"]), data=st.data())
def test_streams_side_by_side_give_what_each_gives_alone(kind: str, data: st.DataObject) -> None:
    """Random offsets, chunk sizes and lengths, more streams than slots, on a real (tiny) network;
    those in PyTorch, which take ten times as long, have the same law in test_live."""
    lengths = data.draw(st.lists(st.integers(1, 30), min_size=2, max_size=4))
    sounds = [noise(n, seed) for seed, n in enumerate(lengths)]
    expected = [heard_alone(kind, n, seed) for seed, n in enumerate(lengths)]
    rec = real(slots=2, kind=kind)
    words: dict[int, list[tuple[str, float, float]]] = {i: [] for i in range(len(sounds))}
    open_streams: dict[int, tuple[Driven, int]] = {}
    waiting = list(range(len(sounds)))
    while waiting or open_streams:
        if waiting and rec.free_slots and (not open_streams or data.draw(st.booleans())):
            i = waiting.pop(0)
            open_streams[i] = (Driven(rec), 0)
        for i, (stream, at) in list(open_streams.items()):
            chunk = sounds[i][at : at + data.draw(st.integers(1, 6 * SIZE))]
            if len(chunk):
                stream.push(chunk)
            else:
                stream.close()
            open_streams[i] = (stream, at + len(chunk))
        for i, (stream, _) in list(open_streams.items()):
            for event in stream.run():
                if isinstance(event, Word):
                    words[i].append((event.text, event.start, event.end))
                elif isinstance(event, End):
                    del open_streams[i]
    assert [words[i] for i in range(len(sounds))] == expected


def _around(file: Any) -> Any:
    return _TemporaryFileWrapper(file, "name", delete=False)


@pytest.mark.parametrize("slots", [1, 2])
def test_one_open_file_in_two_places_is_refused_before_any_of_it_is_read(
    slots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the two would hear what the other left of it, and nothing would tell."""
    rec, _ = echo(slots)
    (path := tmp_path / "one.wav").write_bytes(_wav(np.repeat(sentence(ONE, TWO), 8), 8000))
    with path.open("rb") as file, path.open("rb") as input_file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(input_file))
        buffer = io.BytesIO(path.read_bytes())
        lists: list[tuple[list[Any], str]] = [
            ([buffer, path, buffer], r"the same open file .* sources\[0\] and sources\[2\]"),
            ([file, _around(file)], "the same open file"),
            ([_around(buffer), buffer], "the same open file"),
            ([file, file.raw], "the same open file"),
            ([file, io.FileIO(file.fileno(), closefd=False)], "the same open file"),
            (["-", path, {"path": "-"}], r"standard input .* sources\[0\] and sources\[2\]"),
        ]
        for sources, match in lists:
            for call in (
                rec.transcribe,
                rec.transcriptions,
                lambda all: rec.transcriptions(iter(all)),
            ):
                with pytest.raises(InputError, match=match):
                    call(sources)
        with path.open("rb") as other:  # which is another place in the same recording
            heard = rec.transcribe([file, buffer, path, other, path, "-"])
        assert [one.text for one in heard] == ["one two"] * 6


def test_a_file_that_was_read_to_its_end_says_so(tmp_path: Path) -> None:
    """As of an upload that somebody has saved before."""
    rec, _ = echo()
    file = io.BytesIO(_wav(np.repeat(sentence(ONE), 8), 8000))
    assert rec.transcribe(file).text == "one"
    with pytest.raises(AudioError, match=r"was already read to its end: file\.seek\(0\)"):
        rec.transcribe(file)
    file.seek(0)
    assert rec.transcribe(file).text == "one"
    with pytest.raises(AudioError, match="is empty"):
        rec.transcribe(io.BytesIO())


def test_recordings_may_come_from_a_generator() -> None:
    rec, _ = echo()
    sounds = (sentence(word) for word in (ONE, TWO))
    several = rec.transcriptions(sounds, rate=CONFIG.sample_rate)
    assert [one.result().text for one in several] == ["one", "two"]


@pytest.mark.parametrize(
    "several", [(x for x in "ab"), {"a"}, {"a": "b"}.values(), Path().glob("*.none"), range(3)]
)
def test_what_is_no_list_of_recordings_is_told_to_be_made_one(several: Any) -> None:
    with pytest.raises(
        InputError, match=r"several recordings must be given as a list: write list\(\.\.\.\)"
    ):
        echo()[0].transcribe(several)


def test_samples_before_their_rate_are_told_to_be_turned_round() -> None:
    rec, _ = echo()
    pair: Any = (sentence(ONE), CONFIG.sample_rate)
    calls: list[Callable[[], object]] = [
        lambda: rec.transcribe(pair),
        lambda: rec.transcribe(pair, rate=CONFIG.sample_rate),
        lambda: rec.transcribe([pair]),
        lambda: rec.transcription(pair),
        lambda: rec.transcriptions(pair),
        lambda: rec.transcriptions([pair]),
        lambda: rec.prompt("one", pair),
    ]
    for call in calls:
        with pytest.raises(InputError, match=f"in the wrong order.* rate={CONFIG.sample_rate}"):
            call()
    assert rec.transcribe(pair[::-1]).text == "one"


def test_what_cannot_leave_its_process_says_what_can() -> None:
    rec, _ = echo(2)
    lazy = rec.transcription(sentence(ONE), rate=CONFIG.sample_rate)
    with rec.stream(PLAIN) as stream:
        for one, told in (
            (rec, "a loaded model .* load it there"),
            ({"model": [rec]}, "a loaded model .* load it there"),
            (stream, r"a live stream .* save\(\) gives"),
            (lazy, r"a transcription in progress .* its result\(\)"),
        ):
            for send in (pickle.dumps, copy.copy, copy.deepcopy):
                if send is not copy.copy or not isinstance(one, dict):
                    with pytest.raises(InputError, match=told):
                        send(one)
    assert pickle.loads(pickle.dumps(lazy.result())).text == "one"


def test_a_stream_of_tasks_cannot_leave_its_process_either() -> None:
    async def sends() -> None:
        async with await echo()[0].astream(PLAIN) as stream:
            with pytest.raises(InputError, match="a live stream cannot be copied"):
                pickle.dumps(stream)

    asyncio.run(sends())


def test_several_recordings_share_the_slots() -> None:
    rec, engine = echo(slots=2)
    sounds = [sentence(ONE), sentence(TWO, TWO), sentence(THREE), sentence(ONE, THREE)]
    assert [r.text for r in rec.transcribe(sounds, rate=CONFIG.sample_rate)] == [
        "one",
        "two two",
        "three",
        "one three",
    ]
    assert any(len(step) == 2 for step in engine.steps)
    assert not engine.held


def test_one_bad_recording_does_not_stop_the_rest(tmp_path: Path) -> None:
    rec, engine = echo(slots=2)
    sources = [sentence(ONE), tmp_path / "missing.wav", sentence(TWO), sentence()]
    good, bad, also, empty = rec.transcribe(sources, rate=CONFIG.sample_rate)
    assert good.text == "one"
    assert also.text == "two"
    assert isinstance(bad.problem, AudioError)
    assert isinstance(empty.problem, AudioError)
    assert not engine.held
    good, bad, also, empty = rec.transcriptions(sources, rate=CONFIG.sample_rate)
    assert good.result().text == "one"
    assert also.result().text == "two"
    with pytest.raises(AudioError, match=r"missing\.wav"):
        list(bad)
    with pytest.raises(AudioError, match="no samples"):
        list(empty)
    assert isinstance(bad.result_or_problem().problem, AudioError)
    assert not engine.held


def _wav(samples: NDArray[np.float32], rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def test_a_truncated_file_gives_its_words_and_says_so(tmp_path: Path) -> None:
    rec, engine = echo()
    path = tmp_path / "cut.wav"
    sound = np.concatenate([sentence(ONE), np.zeros(20 * SIZE, np.float32)])
    path.write_bytes(_wav(np.repeat(sound, 8), 8000)[:-1000])
    with pytest.warns(UserWarning, match="everything before was transcribed"):
        words = (result := rec.transcribe(path)).words
    assert [w.text for w in words] == ["one"]
    assert isinstance(result.problem, TruncatedAudio)
    assert not engine.held


def _too_long(rec: Recognizer) -> tuple[Any, StreamOptions]:
    """A recording of which a second is heard, and that in several steps."""
    sound = np.concatenate([sentence(ONE, TWO), np.zeros(200 * SIZE, np.float32)])
    return (rec.config.sample_rate, sound), replace(PLAIN, max_duration_s=10.0)


def test_where_warnings_are_errors_a_list_loses_no_word() -> None:
    """They are errors here. The sound stops in what is read ahead of the words."""
    rec, engine = echo()
    source, options = _too_long(rec)
    for result in rec.transcribe([source, source], options):
        assert result.text == "one two"
        assert result.duration == pytest.approx(10.0)
        assert type(result.problem) is AudioError
    for some in as_done(several := rec.transcriptions([source, source], options)):
        assert {one.result_or_problem().text for one in some} == {"one two"}
    assert [one.problem is None for one in several] == [False, False]
    assert not engine.held


def test_nothing_is_held_back_while_all_others_wait_for_slots() -> None:
    def stuck() -> None:
        raise AssertionError("it waits for a slot, perhaps for hours")

    first, second, third = (
        SimpleNamespace(done=name == "first", is_any_heard=False, advance=stuck)
        for name in ("first", "second", "third")
    )
    given = as_done([first, second, third], every_s=1e6)  # pyright: ignore
    assert next(given) == [first]
    second.done = True
    assert next(given) == [second]
    third.is_any_heard = True
    with pytest.raises(AssertionError, match="waits"):
        next(given)


def test_where_warnings_are_errors_what_is_raised_has_the_words() -> None:
    rec, engine = echo()
    source, options = _too_long(rec)
    with pytest.raises(IncompleteTranscript, match=r"longer than 10.*before was tr") as caught:
        rec.transcribe(source, options)
    assert caught.value.transcript.text == "one two"
    assert type(caught.value.transcript.problem) is AudioError
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (str(sent), sent.transcript) == (str(caught.value), caught.value.transcript)
    lazy = rec.transcription(source, options)
    found: list[str] = []
    with pytest.raises(IncompleteTranscript):
        found.extend(word.text for word in lazy)  # raises only when all of them were given
    assert found == ["one", "two"]
    assert [word.text for word in lazy] == [word.text for word in lazy.so_far] == ["one", "two"]
    assert lazy.result() == caught.value.transcript  # and it is told once
    with pytest.raises(IncompleteTranscript):
        (other := rec.transcription(source, options)).result()
    assert other.result().text == "one two"
    assert not engine.held


def test_what_is_wrong_with_a_file_stands_in_its_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(
        source: object, *, on_warning: Callable[[StreamWarning], None], track: int | None
    ) -> Iterator[Chunk]:
        yield from array_chunks(sentence(ONE), CONFIG.sample_rate)
        on_warning(StreamWarning("damaged", "a packet is damaged", 0.1))

    monkeypatch.setattr(sources, "read_file", damaged)
    result = echo()[0].transcribe("any.wav")
    assert (result.text, result.problem) == ("one", None)
    assert [one.kind for one in result.warnings] == ["damaged"]
    assert result.to_dict()["warnings"][0]["message"] == "a packet is damaged"


def test_a_recording_that_is_too_long_keeps_what_was_transcribed() -> None:
    """A file of a few bytes may claim days of silence."""
    rec, engine = echo()
    sound = np.concatenate([sentence(ONE), np.zeros(1_000 * SIZE, np.float32)])
    options = StreamOptions(recovery=None, max_duration_s=20.0)
    with pytest.warns(UserWarning, match="longer than 20 seconds"):
        result = rec.transcribe(sound, options, rate=CONFIG.sample_rate)
    assert result.text == "one"
    assert result.duration == pytest.approx(20.0)
    assert isinstance(result.problem, AudioError)
    assert "max_duration_s" in str(result.problem)
    assert not engine.held
    # What is not asked for does not count.
    part = StreamOptions(recovery=None, max_duration_s=20.0, end_s=10.0)
    assert rec.transcribe(sound, part, rate=CONFIG.sample_rate).problem is None


@pytest.mark.parametrize("most_s", [0.4, 1.5, 2.0, 2.04])
def test_a_recording_is_heard_up_to_the_second_at_which_it_is_too_long(
    most_s: float, tmp_path: Path
) -> None:
    """Not only up to the chunk before."""
    rec, engine = echo()
    sound = np.concatenate([sentence(ONE), np.zeros(50 * SIZE, np.float32)])
    path = tmp_path / "long.wav"
    path.write_bytes(_wav(np.repeat(sound, 8), 8000))
    rated: Any = (CONFIG.sample_rate, sound)
    for source in (rated, path):
        with pytest.warns(UserWarning, match="longer than") as caught:
            result = rec.transcribe(source, replace(PLAIN, max_duration_s=most_s))
        assert caught[0].filename == __file__
        assert result.text == "one"
        assert result.duration == pytest.approx(most_s, abs=1e-3)
        assert "max_duration_s" in str(result.problem)
    assert not engine.held


def test_a_recording_that_is_as_long_as_it_may_be_is_whole() -> None:
    rec, _ = echo()
    sound = np.zeros(50 * SIZE, np.float32)  # 4 s
    for source, most_s in ((sound, 4.0), (sound[: 7 * SIZE], 0.56)):
        options = replace(PLAIN, max_duration_s=most_s)
        result = rec.transcribe(source, options, rate=CONFIG.sample_rate)
        assert (result.duration, result.problem) == (pytest.approx(most_s), None)


def test_sound_that_turns_bad_keeps_its_words() -> None:
    rec, _ = echo()
    sound = np.concatenate([sentence(ONE), np.zeros(3000 * SIZE, np.float32)])
    sound[-5] = np.nan
    with pytest.warns(UserWarning, match="everything before"):
        words = (result := rec.transcribe(sound, rate=CONFIG.sample_rate)).words
    assert [w.text for w in words] == ["one"]
    assert result.problem is not None


def test_an_abandoned_transcription_gives_its_slot_back() -> None:
    rec, engine = echo()
    for _ in range(3):
        for word in rec.transcription(sentence(ONE, TWO, THREE), rate=CONFIG.sample_rate):
            assert word.text == "one"
            assert engine.held
            break
        gc.collect()
        assert rec.free_slots == 1


@pytest.mark.parametrize("moment", ["while it begins", "while it waits"])
def test_a_recording_that_is_dropped_in_line_lets_the_others_go_on(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage collector may do so at any moment, while another recording is iterated over."""
    rec, engine = echo()
    held = Driven(rec)
    first, second = rec.transcriptions([sentence(ONE), sentence(TWO)], rate=CONFIG.sample_rate)
    line = [first]
    del first
    begin, drive = RecordingTask.begin, rec.scheduler.drive

    def begins(recording: RecordingTask) -> Opening:
        opening = begin(recording)
        if moment == "while it begins":
            line.clear()
        return opening

    def drives(until: Callable[[], bool], timeout: float | None = None) -> bool:
        line.clear()
        if not held.session.done:
            held.release()
        return drive(until, 60.0 if timeout is None else timeout)

    monkeypatch.setattr(RecordingTask, "begin", begins)
    monkeypatch.setattr(rec.scheduler, "drive", drives)
    for _ in range(100):
        if not second.done:
            second.advance()
    assert [word.text for word in second.so_far] == ["two"]
    assert rec.free_slots == 1
    assert list(engine.heard) == [0]


def test_a_recording_that_is_dropped_at_its_end_lets_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The garbage collector may do so at any moment, while another recording is iterated over."""
    rec, _ = echo(slots=2)
    short, long = sentence(ONE), sentence(TWO, THREE, ONE, TWO, THREE)
    first, second = rec.transcriptions([short, long], rate=CONFIG.sample_rate)
    several, dropped = [first], first._recording
    del first
    collect = RecordingTask.collect

    def collects(recording: RecordingTask) -> None:
        collect(recording)
        if recording is dropped and recording.so_far.done:
            several.clear()

    monkeypatch.setattr(RecordingTask, "collect", collects)
    assert second.result().text == "two three one two three"
    assert not several
    assert rec.free_slots == 2


def test_a_full_house_is_told() -> None:
    rec, _ = echo()
    stream = Driven(rec)
    with pytest.raises(NoFreeSlot):
        Driven(rec)
    with pytest.raises(NoFreeSlot):
        rec.transcribe(sentence(ONE), rate=CONFIG.sample_rate)
    with pytest.raises(NoFreeSlot):
        rec.transcribe(sentence(ONE), timeout=0.01, rate=CONFIG.sample_rate)
    with pytest.raises(NoFreeSlot):
        rec.tokens(sentence(ONE))
    stream.release()
    stream.release()
    assert rec.transcribe(sentence(ONE), rate=CONFIG.sample_rate).text == "one"


def test_a_recording_waits_for_a_slot_that_another_thread_gives_back() -> None:
    rec, _ = echo()
    streams: list[Driven] = []
    other = threading.Thread(target=lambda: streams.append(Driven(rec)))
    other.start()
    other.join()
    with pytest.raises(NoFreeSlot):
        rec.transcribe(sentence(ONE), timeout=0.01, rate=CONFIG.sample_rate)
    timer = threading.Timer(0.05, streams[0].release)
    timer.start()
    assert rec.transcribe(sentence(ONE), rate=CONFIG.sample_rate).text == "one"
    timer.join()


def test_a_slot_that_comes_just_as_the_timeout_ends_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rec, engine = echo()
    held = Driven(rec)
    take_slots = rec.scheduler.take_slots

    def late(opening: Opening) -> list[Binding]:
        held.release()
        assert rec.scheduler.drive(lambda: opening.done)
        return take_slots(opening)

    monkeypatch.setattr(rec.scheduler, "take_slots", late)
    result = rec.transcription(sentence(ONE), rate=CONFIG.sample_rate, timeout=0.01)
    for _ in range(100):  # it would go on for ever
        if not result.done:
            result.advance()
    assert [word.text for word in result.so_far] == ["one"]
    assert not engine.held


def test_who_does_not_wait_gets_the_slots_that_are_free_next_to_a_live_stream() -> None:
    """A thread of the driver's own gives the slots then, a moment after they were asked for."""
    rec, _ = echo(slots=2)
    with rec.stream():
        for _ in range(3):
            assert rec.transcribe(sentence(ONE), rate=CONFIG.sample_rate, timeout=0).text == "one"
            several = [sentence(ONE), sentence(TWO), sentence(THREE)]  # each after the other
            found = rec.transcribe(several, rate=CONFIG.sample_rate, timeout=0)
            assert [one.text for one in found] == ["one", "two", "three"]
        with ThreadPoolExecutor(1) as other, other.submit(rec.stream).result():
            with pytest.raises(NoFreeSlot, match="all 2 slots are held"):
                rec.transcribe(sentence(ONE), rate=CONFIG.sample_rate, timeout=0)
            result = rec.transcription(sentence(ONE), rate=CONFIG.sample_rate, timeout=0)
            with pytest.raises(NoFreeSlot):
                result.advance()
            assert result.done


def test_an_open_stream_that_waits_holds_up_nobody() -> None:
    rec, _ = echo(slots=2)
    live = Driven(rec)
    assert rec.transcribe(sentence(ONE), rate=CONFIG.sample_rate).text == "one"
    assert rec.tokens([sentence(ONE), sentence(TWO)])[1].tolist()[3] == TWO
    live.push(sentence(THREE))
    live.close()
    assert words_of(live.run()) == ["three"]


def test_raw_tokens_are_one_a_frame() -> None:
    rec, engine = echo()
    tokens = [5, 3, 0, 7, 3]
    # Token t comes after frame t - 1: the first is said before any sound, the last frame's is not
    # asked for.
    assert rec.tokens(spoken(tokens, SIZE)).tolist() == [3, 5, 3, 0, 7]
    assert rec.tokens(spoken(tokens, SIZE), max_tokens=2).tolist() == [3, 5]
    assert rec.tokens(spoken(tokens, SIZE), max_tokens=0).tolist() == []
    assert rec.tokens(spoken(tokens, SIZE)[: SIZE - 1]).tolist() == []
    several = rec.tokens([spoken(tokens, SIZE), spoken([9], SIZE), np.zeros(0, np.float32)])
    assert [t.tolist() for t in several] == [[3, 5, 3, 0, 7], [3], []]
    assert not engine.held


def test_raw_tokens_are_picked_as_one_likes() -> None:
    rec, engine = echo()
    sound = spoken([5, 3, 0, 7, 3], SIZE)
    assert rec.tokens(sound, picker=lambda logits: int(np.argmax(logits)) + 1).tolist() == [
        4, 6, 4, 1, 8,
    ]  # fmt: skip
    assert rec.tokens([sound, sound], picker=SamplingParams(temperature=0.01))[1].tolist()[1] == 5
    assert not engine.held


def test_who_listens_to_the_engine_sees_every_output() -> None:
    rec = real()
    seen: list[int] = []
    stream = Driven(
        rec, PLAIN, padded=False, on_output=lambda out: seen.extend(out.tokens.tolist())
    )
    stream.push(noise(20, 0))
    stream.close()
    stream.run()
    assert seen[:20] == rec.tokens(noise(20, 0)).tolist()
    assert len(seen) == 21


def test_refused_samples_and_failing_listeners_give_the_slot_back() -> None:
    rec, engine = echo()
    with pytest.raises(AudioError, match="NaN"):
        rec.tokens(np.full(5 * SIZE, np.nan, np.float32))

    def listener(_: object) -> None:
        raise RuntimeError("listener")

    with pytest.raises(RuntimeError, match="listener"):
        Driven(rec, on_output=listener)
    assert not engine.held
    with pytest.raises(InputError, match="at least 0"):
        rec.tokens(sentence(ONE), max_tokens=-1)
    with pytest.raises(InputError, match="mono"):
        rec.tokens(np.zeros((2, 5 * SIZE), np.float32))
    with pytest.raises(InputError, match="one array"):
        rec.tokens([sentence(ONE)], picker=lambda logits: 0)


class _Breaks(EchoEngine):
    """Fails in its second step."""

    error: BaseException = RuntimeError("out of memory")

    def step(
        self,
        slots: Sequence[int],
        frames: NDArray[np.float32],
        counts: Sequence[int] | None = None,
    ) -> StepOutput:
        if len(self.steps) == 1:
            self.steps.append({})
            raise self.error
        return super().step(slots, frames, counts)


def test_a_step_that_fails_ends_its_recordings_and_frees_their_slots() -> None:
    engine = _Breaks()
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="breaks")
    result = rec.transcription(sentence(ONE, TWO, THREE), rate=CONFIG.sample_rate)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(result)
    assert not engine.held
    assert rec.transcribe(sentence(TWO), rate=CONFIG.sample_rate).text == "two"
    assert [w.text for w in result.so_far] == ["one", "two"]
    told = result.result_or_problem()
    assert told.text == "one two"
    assert "out of memory" in str(told.problem)


def test_an_interrupted_transcription_says_that_it_is_not_whole() -> None:
    engine = _Breaks()
    engine.error = KeyboardInterrupt()
    rec = Recognizer(engine, CONFIG, tiny.vocabulary(), name="breaks")
    result = rec.transcription(sentence(ONE, TWO, THREE), rate=CONFIG.sample_rate)
    with pytest.raises(KeyboardInterrupt):
        list(result)
    assert not engine.held
    for _ in range(2):
        with pytest.raises(StreamError, match="interrupted"):
            result.result()
    assert [w.text for w in result.so_far] == ["one", "two"]


def test_an_interruption_while_one_of_several_gets_its_slot_holds_no_slot() -> None:
    rec, engine = echo()
    begin, begun = engine.backend.begin, list[int]()

    def interrupted(slot: int) -> Any:
        begun.append(slot)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return begin(slot)

    engine.backend.begin = interrupted
    several = rec.transcriptions([sentence(ONE), sentence(TWO)], rate=CONFIG.sample_rate)
    with pytest.raises(KeyboardInterrupt):
        [one.result() for one in several]
    assert rec.free_slots == engine.num_slots
    assert not engine.held


def test_nothing_is_run_when_a_transcription_is_dropped_that_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C would be lost in what Python runs then."""
    rec, engine = echo()
    abandoned: list[RecordingTask] = []
    monkeypatch.setattr(
        RecordingBatch, "abandon", lambda self, recording: abandoned.append(recording)
    )
    done = rec.transcription(sentence(ONE), rate=CONFIG.sample_rate)
    assert done.result().text == "one"
    begun = rec.transcription(sentence(ONE), rate=CONFIG.sample_rate)
    del done
    assert abandoned == []
    del begun
    assert len(abandoned) == 1
    assert not engine.held


class _Interrupted:
    """A pipe in which a read is interrupted, once so many bytes have come."""

    def __init__(self, data: bytes, after: int, error: type[BaseException]) -> None:
        self._file, self._after, self._error = io.BytesIO(data), after, error
        self.num_reads = 0

    def read(self, num_bytes: int) -> bytes:
        self.num_reads += 1
        if self._file.tell() >= self._after:
            raise self._error(3)
        return self._file.read(min(num_bytes, 4_000))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_of_a_read_is_raised_and_the_words_before_are_kept(
    error: type[BaseException],
) -> None:
    """PyAV swallows what is raised in the reads that it asks for."""
    rec, _ = echo()
    sound = np.concatenate([sentence(ONE, TWO), np.zeros(400 * SIZE, np.float32)])
    data = _wav(np.repeat(sound, 8), 8000)
    source: Any = _Interrupted(data, len(data) // 2, error)
    result = rec.transcription(source)
    with pytest.raises(error, match="3"):
        result.result()
    assert [w.text for w in result.so_far] == ["one", "two"]
    assert rec.free_slots == 1
    num_reads = source.num_reads
    with pytest.raises(StreamError, match="interrupted"):
        result.result()
    assert source.num_reads == num_reads


@pytest.mark.parametrize("after", [0, 2_000, 4_000, 8_000])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_while_a_recording_is_opened_is_raised(
    error: type[BaseException], after: int
) -> None:
    rec, engine = echo()
    data = _wav(np.repeat(sentence(ONE, TWO, THREE), 8), 8000)
    source: Any = _Interrupted(data, after, error)
    result = rec.transcription(source)
    with pytest.raises(error, match="3"):
        result.result()
    with pytest.raises(StreamError, match="interrupted"):
        result.result()
    assert not engine.held


def test_a_transcription_collected_during_a_step_disturbs_nobody() -> None:
    rec, engine = echo(slots=2)
    other = Driven(rec)
    stream = Driven(rec, on_output=lambda _: other.release())
    stream.push(sentence(ONE))
    other.push(sentence(TWO))
    stream.run()
    assert engine.held == {1}


def test_stopping_gives_the_open_word_and_the_slot() -> None:
    rec, engine = echo()
    result = rec.transcription(
        np.concatenate([sentence(ONE), np.zeros(9_000 * SIZE, np.float32)]), rate=CONFIG.sample_rate
    )
    iterator = iter(result)
    assert next(iterator).text == "one"
    assert engine.held
    assert result.stop() == []
    assert not engine.held
    assert list(iterator) == []
    assert result.result().text == "one"
    assert result.stop() == []


def test_a_recording_that_was_stopped_before_it_began_takes_no_slot() -> None:
    rec, engine = echo()
    first, second = rec.transcriptions([sentence(ONE), sentence(TWO)], rate=CONFIG.sample_rate)
    assert first.stop() == second.stop() == []
    assert list(first) == list(second) == []
    assert not engine.held
    assert not engine.steps


def test_the_word_that_is_open_when_a_recording_is_stopped_is_its_last() -> None:
    rec, _ = echo()

    def endless() -> Iterator[Chunk]:
        yield from array_chunks(spoken([3, 0, TWO, ONE, *[3] * 5, 0], SIZE), 1000)
        while True:  # glued words: one is always open
            yield from array_chunks(spoken([THREE] * 64, SIZE), 1000)

    recording = RecordingTask(
        RecordingSound(endless()), lambda _: [Member(WordSession(CONFIG, tiny.vocabulary(), PLAIN))]
    )
    result = Transcription(recording, RecordingBatch(rec.scheduler, [recording], None), "echo")
    first = [word.text for word, _ in zip(result, range(3), strict=False)]
    assert first == ["two", "one", "three"]
    known = len(result.so_far)
    (last,) = result.stop()
    assert last.text == "three"
    assert len(result.so_far) == known + 1


def test_a_word_that_is_open_when_one_stops_is_not_lost() -> None:
    rec, _ = echo()
    stream = Driven(rec)
    stream.push(spoken([3, 0, TWO], SIZE))
    assert stream.run() == []
    rec.scheduler.release(stream.binding, cut=True)
    rec.scheduler.step()
    word, _, end = stream.run()
    assert isinstance(word, Word)
    assert word.text == "two"
    assert isinstance(end, End)


def test_anything_that_numpy_takes_is_sound() -> None:
    import torch

    rec, _ = echo()
    assert rec.transcribe(torch.from_numpy(sentence(ONE)), rate=CONFIG.sample_rate).text == "one"  # pyright: ignore
    two = np.stack([sentence(TWO), sentence(TWO)])
    assert rec.transcribe(two, rate=CONFIG.sample_rate).text == "two"


def test_samples_need_their_rate_and_may_say_it_themselves() -> None:
    rec, engine = echo()
    sound, rate = sentence(ONE), CONFIG.sample_rate
    for source in (
        (rate, sound),
        (np.int64(rate), sound),
        (float(rate), sound),
        (np.float32(rate), sound),
        {"array": sound, "sampling_rate": rate},
        {"array": sound, "sampling_rate": float(rate)},
    ):
        assert rec.transcribe(sound, rate=float(rate)).text == "one"  # pyright: ignore
        assert rec.transcribe(source).text == "one"  # pyright: ignore
        assert rec.transcribe(source, rate=rate).text == "one"  # pyright: ignore
        assert [one.text for one in rec.transcribe([source, source])] == ["one", "one"]  # pyright: ignore
        with pytest.raises(InputError, match="leave rate out"):
            rec.transcribe(source, rate=2 * rate)  # pyright: ignore
    # Of another rate, not only another number.
    assert rec.transcribe((2 * rate, np.repeat(sound, 2))).duration == pytest.approx(5 * 0.08)
    with pytest.raises(AudioError, match="not whole"):
        rec.transcribe((rate + 0.5, sound))  # pyright: ignore
    for bare in (sound, [sound, sound]):
        with pytest.raises(InputError, match="give it, such as rate=16000"):
            rec.transcribe(bare)
    assert not engine.held


def test_a_rate_beside_files_alone_is_refused(tmp_path: Path) -> None:
    """It is ignored in silence otherwise, and was meant for something."""
    rec, engine = echo()
    sound, rate = sentence(ONE), CONFIG.sample_rate
    data = _wav(np.repeat(sound, 8), 8000)
    path = tmp_path / "one.wav"
    path.write_bytes(data)
    row = {"bytes": data, "path": None}
    for source in (path, str(path), io.BytesIO(data), row, [path, row]):
        with pytest.raises(InputError, match="files state their rate themselves: leave rate out"):
            rec.transcribe(source, rate=8000)  # pyright: ignore
    with pytest.raises(InputError, match="files state their rate themselves"):
        rec.prompt("one", path, rate=8000)
    mixed: list[Any] = [path, sound, (rate, sound), {"array": sound, "sampling_rate": rate}]
    assert [one.text for one in rec.transcribe(mixed, rate=rate)] == ["one"] * 4
    assert rec.transcribe([], rate=rate) == []
    assert not engine.held


@pytest.mark.parametrize("numbers", [[0.1, -0.2], [1, 2, 3], [np.float64(0.5)], (0.1, 0.2)])
def test_a_list_of_numbers_is_refused_at_once(numbers: list[float]) -> None:
    with pytest.raises(InputError, match="a list of numbers"):
        echo()[0].transcribe(numbers, rate=16_000)  # pyright: ignore
    with pytest.raises(InputError, match="this one has 'audio'"):
        echo()[0].transcribe({"audio": numbers})


class _Decoder:
    """As torchcodec's: also a mapping by its look, and none by its type."""

    def __init__(self, planes: NDArray[np.float32], rate: int) -> None:
        self.data, self.sample_rate = planes, rate

    def __getitem__(self, key: str) -> object:
        return {"array": self.data.mean(0), "sampling_rate": self.sample_rate}[key]

    def get_all_samples(self) -> "_Decoder":
        return self


def test_rows_of_datasets_are_recordings(tmp_path: Path) -> None:
    rec, engine = echo()
    sound, rate = sentence(ONE), CONFIG.sample_rate
    data = _wav(np.repeat(sound, 8), 8000)
    path = tmp_path / "one.wav"
    path.write_bytes(data)
    sources: list[Any] = [
        {"array": sound, "sampling_rate": rate},
        {"array": sound.tolist(), "sampling_rate": rate, "path": "gone.wav"},
        {"raw": sound, "sampling_rate": rate},
        {"bytes": data, "path": None},
        {"bytes": bytearray(data)},
        {"bytes": None, "path": str(path)},
        {"path": path},
        _Decoder(sound[None], rate),
        _Decoder(np.stack([sound, sound]), rate),
    ]
    for source in sources:
        assert rec.transcribe(source).text == "one"
    assert [one.text for one in rec.transcribe(sources)] == ["one"] * len(sources)
    assert rec.transcribe({"array": sound}, rate=rate).text == "one"
    with pytest.raises(AudioError, match=r"talk\.mp3 is not a recording"):
        rec.transcribe({"bytes": b"no sound", "path": "talk.mp3"})
    with pytest.raises(InputError, match="leave rate out"):
        rec.transcribe(sources[-1], rate=2 * rate)
    assert not engine.held


def test_rows_are_decoded_one_by_one() -> None:
    """A dataset may not fit into memory, and one that cannot be decoded stops no other."""
    rec, _ = echo()
    num_decoded = 0

    class Counted(_Decoder):
        def get_all_samples(self) -> _Decoder:
            nonlocal num_decoded
            num_decoded += 1
            if num_decoded == 2:
                raise RuntimeError("broken")
            return self

    rows: list[Any] = [Counted(sentence(ONE)[None], CONFIG.sample_rate) for _ in range(3)]
    several = rec.transcriptions(rows)
    assert num_decoded == 0
    found = [one.result_or_problem() for one in several]
    assert [one.text for one in found] == ["one", "", "one"]
    assert isinstance(found[1].problem, RuntimeError)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (None, "from a NoneType: give a path"),
        (object(), "an array of samples with its rate="),
        (b"RIFF", r"give these bytes as io\.BytesIO"),
        ({}, "has nothing"),
        ({"bytes": "text"}, "has 'bytes'"),
        ({"bytes": None, "path": None}, "has 'bytes', 'path'"),
        ({"array": np.zeros(5)}, "such as rate=16000"),
    ],
)
def test_what_is_no_recording_is_told_with_what_is_one(source: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        echo()[0].transcribe(source)


EACH = StreamOptions(recovery=None, channel="each")


def stereo() -> NDArray[np.float32]:
    """The second channel speaks first."""
    left = spoken([3] * 10 + [0, ONE, 3, 3, 3, 3, 3, 0, ONE, 3, 3, 3], SIZE)
    right = spoken([3] * 7 + [0, TWO, 3, 3, 3, 3, 3, 0, THREE, *[3] * 6], SIZE)
    return np.stack([left, right], axis=1)


def test_each_channel_is_heard_by_itself_and_words_stand_in_their_order() -> None:
    rec, engine = echo(slots=2)
    result = rec.transcribe(stereo(), EACH, rate=CONFIG.sample_rate)
    assert [(w.text, w.channel) for w in result] == [
        ("two", 1), ("one", 0), ("three", 1), ("one", 0),
    ]  # fmt: skip
    assert result.duration == pytest.approx(22 * 0.08)
    assert not engine.held
    lazy = rec.transcription(stereo(), EACH, rate=CONFIG.sample_rate)
    assert [w.text for w in lazy] == ["two", "one", "three", "one"]
    assert (
        rec.transcribe(
            stereo(), StreamOptions(recovery=None, channel=1), rate=CONFIG.sample_rate
        ).text
        == "two three"
    )
    assert rec.transcribe(sentence(ONE), EACH, rate=CONFIG.sample_rate)[0].channel == 0


@pytest.mark.parametrize(
    ("channel", "counts", "words", "told"),
    [
        ("each", (1, 2), [("one", 0), ("one", 0)], "1 channel at first and has 2 channels"),
        ("each", (2, 3), [("one", 0), ("two", 1)] * 2, "from 2 on are not transcribed"),
        ("each", (3, 2), [("one", 0), ("two", 1), ("three", 2), ("one", 0), ("two", 1)],
         "from 2 on are silent"),
        ("each", (2, 2), [("one", 0), ("two", 1)] * 2, None),
        ("mix", (1, 2), [("one", None)], None),
        (0, (2, 3), [("one", None)] * 2, None),
        (2, (3, 2, 3), [("three", None)] * 2, "3 channels at first and has 2"),
    ],
)  # fmt: skip
def test_channels_of_a_recording_that_come_or_go_are_told(
    monkeypatch: pytest.MonkeyPatch, channel: Any, counts: Sequence[int], told: str | None,
    words: list[tuple[str, int | None]],
) -> None:  # fmt: skip
    planes = np.stack([sentence(ONE), sentence(TWO), sentence(THREE)], axis=1)

    def links(*_: object, **__: object) -> Iterator[Chunk]:
        for count in counts:
            yield from array_chunks(planes[:, :count], CONFIG.sample_rate)

    monkeypatch.setattr(sources, "read_file", links)
    rec, engine = echo(slots=3)
    result = rec.transcribe("any.opus", replace(PLAIN, channel=channel))
    if channel != "mix":  # of which the engine says what it likes
        assert sorted((word.text, word.channel) for word in result) == sorted(words)
    assert result.duration == pytest.approx(0.4 * len(counts))
    assert [one.kind for one in result.warnings] == (["damaged"] if told else [])
    assert not told or told in result.warnings[0].message
    assert not engine.held


def test_a_channel_that_was_never_there_is_refused() -> None:
    rec, engine = echo()
    with pytest.raises(AudioError, match="channel 2 was asked for, but there are 2"):
        rec.transcribe(stereo(), replace(PLAIN, channel=2), rate=CONFIG.sample_rate)
    assert not engine.held


def test_channels_that_come_apart_are_put_in_order_at_the_end() -> None:
    """One channel's words are held back by nothing; the transcript has them by their starts."""
    rec, _ = echo(slots=2)
    left = spoken([*[3] * 100, 0, ONE, 3, 3, 3, 3, 3], SIZE)
    right = spoken([0, TWO, 3, 3, *[3] * 95, 0, TWO, 3, 3, 3, 3, 3, 3], SIZE)
    left, right = left[: len(right)], right[: len(left)]
    result = rec.transcribe(np.stack([left, right], axis=1), EACH, rate=CONFIG.sample_rate)
    starts = [word.start for word in result]
    assert starts == sorted(starts)
    assert len(starts) == 3


def test_a_channel_that_lags_is_put_in_order_in_the_transcript() -> None:
    rec, _ = echo(slots=2)

    def members(count: int) -> list[Member]:
        sessions = [WordSession(CONFIG, tiny.vocabulary(), EACH, channel=i) for i in range(count)]
        first, second = sessions
        hold_back(second, first)
        return [Member(one) for one in sessions]

    recording = RecordingTask(RecordingSound(array_chunks(stereo(), 1000)), members)
    result = Transcription(recording, RecordingBatch(rec.scheduler, [recording], None), "echo")
    assert [word.text for word in result] == ["one", "one", "two", "three"], "as they came"
    assert result.result().text == "two one three one"


def test_channels_without_a_slot_each_are_refused() -> None:
    rec, engine = echo(slots=1)
    with pytest.raises(ConfigError, match="slots=2"):
        rec.transcribe(stereo(), EACH, rate=CONFIG.sample_rate)
    assert not engine.held


def test_sound_that_cannot_be_read_from_its_beginning_is_raised() -> None:
    rec, engine = echo()
    sound = np.full(100, np.nan, np.float32)
    with pytest.raises(AudioError):
        rec.transcribe(sound, rate=CONFIG.sample_rate)
    assert not engine.held


def test_no_more_sound_is_read_than_is_needed() -> None:
    rec, _ = echo()
    read: list[float] = []

    def chunks() -> Iterator[Chunk]:
        for _ in range(100):
            read.append(1.0)
            yield from array_chunks(np.zeros(1000, np.float32), 1000)

    recording = RecordingTask(
        RecordingSound(chunks()), lambda _: [Member(WordSession(CONFIG, tiny.vocabulary(), PLAIN))]
    )
    batch = RecordingBatch(rec.scheduler, [recording], None)
    batch.advance()
    batch.advance()
    assert sum(read) <= 12
    batch.stop(recording)


def test_a_part_of_a_recording_keeps_its_times() -> None:
    rec, _ = echo()
    sound = np.concatenate([np.zeros(25 * SIZE, np.float32), sentence(ONE, TWO, THREE)])
    whole = rec.transcribe(sound, PLAIN, rate=CONFIG.sample_rate)
    options = StreamOptions(recovery=None, start_s=2.0, end_s=2.0 + 10 * 0.08)
    part = rec.transcribe(sound, options, rate=CONFIG.sample_rate)
    assert part.text == "one two"
    assert [w.start for w in part][1] == pytest.approx(whole[1].start)
    assert all(2.0 <= w.start <= w.end <= 2.8 + 1e-9 for w in part)


def test_a_source_without_end_is_read_up_to_the_end_that_is_asked_for() -> None:
    rec, engine = echo()
    sound = np.repeat(np.concatenate([sentence(ONE), np.zeros(20 * SIZE, np.float32)]), 8)

    class Endless:
        def __init__(self) -> None:
            self.data, self.num_given = _wav(sound, 8000), 0

        def read(self, num_bytes: int) -> bytes:
            part, self.data = self.data[:num_bytes], self.data[num_bytes:]
            self.num_given += len(part)
            assert self.num_given < 100 * len(sound)
            self.data = self.data or bytes(16_000)
            return part

    source: Any = Endless()
    source.data = source.data[:40] + b"\xff" * 4 + source.data[44:]  # of any length
    result = rec.transcribe(source, replace(PLAIN, end_s=3.0))
    assert (result.text, result.duration, result.problem) == ("one", 3.0, None)
    assert source.num_given / 16_000 <= 6.0  # FFmpeg reads 2 s at this rate at once
    assert not engine.held


def test_no_more_of_an_array_is_read_than_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rec, _ = echo()
    num_read = 0

    def counted(
        samples: NDArray[np.generic], rate: int, channels_axis: int | None
    ) -> Iterator[Chunk]:
        nonlocal num_read
        assert channels_axis is None
        for chunk in array_chunks(samples, rate):
            num_read += 1
            yield chunk

    monkeypatch.setattr(sources, "_array_chunks", counted)
    sound = np.concatenate([sentence(ONE, TWO), np.zeros(1_000 * SIZE, np.float32)])
    for end_s, most in ((2.0, 2), (2.5, 3), (0.4, 1)):
        num_read, calls = 0, Calls()
        options = replace(PLAIN, end_s=end_s)
        result = rec.transcribe(sound, options, rate=CONFIG.sample_rate, progress=_noted(calls))
        assert (result.duration, num_read) == (end_s, most)
        assert calls[-1] == (end_s, end_s)


def test_a_cut_file_has_no_problem_where_all_that_was_asked_for_is_there(tmp_path: Path) -> None:
    rec, _ = echo()
    path = tmp_path / "cut.wav"
    sound = np.concatenate([sentence(ONE), np.zeros(100 * SIZE, np.float32)])
    path.write_bytes(_wav(np.repeat(sound, 8), 8000)[:-20_000])
    result = rec.transcribe(path, replace(PLAIN, end_s=2.0))
    assert (result.text, result.duration, result.problem) == ("one", 2.0, None)
    with pytest.warns(UserWarning, match="ends early"):
        assert rec.transcribe(path, replace(PLAIN, end_s=8.3)).problem is not None


@pytest.mark.parametrize(
    ("start_s", "end_s", "is_told"),
    [(5.0, None, True), (2.4, None, True), (2.3, None, False), (5.0, 6.0, True), (1.0, 2.0, False)],
)
def test_a_start_behind_the_end_is_told(
    start_s: float, end_s: float | None, is_told: bool, tmp_path: Path
) -> None:
    rec, _ = echo()
    sound = np.concatenate([sentence(ONE), np.zeros(25 * SIZE, np.float32)])  # 2.4 s
    path = tmp_path / "short.wav"
    path.write_bytes(_wav(np.repeat(sound, 8), 8000))
    rated: Any = (CONFIG.sample_rate, sound)
    for source in (rated, path):
        result = rec.transcribe(source, replace(PLAIN, start_s=start_s, end_s=end_s))
        told = [one.message for one in result.warnings if "give an earlier start_s" in one.message]
        assert len(told) == is_told
        assert not told or f"ends after 2.40 s, before start_s (--start) {start_s:g}" in told[0]
        assert (result.text, result.problem) == ("", None)


def test_sound_of_which_nothing_could_be_read_is_raised() -> None:
    rec, _ = echo()

    def chunks() -> Iterator[Chunk]:
        yield Chunk(np.zeros(0, np.float32), 1000, 0, 1, None, 0.0)
        raise AudioError("broken")

    recording = RecordingTask(
        RecordingSound(chunks()), lambda _: [Member(WordSession(CONFIG, tiny.vocabulary(), PLAIN))]
    )
    result = Transcription(recording, RecordingBatch(rec.scheduler, [recording], None), "echo")
    with pytest.raises(AudioError, match="broken"):
        result.result()
    assert rec.free_slots == 1


def test_a_recording_that_was_stopped_in_line_is_passed_over() -> None:
    rec, engine = echo()
    first, second, third = rec.transcriptions(
        [sentence(ONE), sentence(TWO), sentence(THREE)], rate=CONFIG.sample_rate
    )
    assert first.stop() == []
    assert next(iter(second)).text == "two"
    assert third.stop() == [], "it had asked for a slot"
    assert second.result().text == "two"
    assert (first.so_far, third.so_far) == ([], [])
    assert rec.transcribe(sentence(ONE), timeout=0.01, rate=CONFIG.sample_rate).text == "one"
    assert not engine.held


def test_one_channel_that_fails_ends_the_recording() -> None:
    rec, _ = echo(slots=2)

    class Bad(WordSession):
        def accept(self, *said: object) -> None:
            raise RuntimeError("out of memory")

    def members(count: int) -> list[Member]:
        kinds = [WordSession, Bad][:count]
        return [
            Member(kind(CONFIG, tiny.vocabulary(), EACH, channel=i)) for i, kind in enumerate(kinds)
        ]

    sound = np.concatenate([stereo(), np.zeros((3_000 * SIZE, 2), np.float32)])
    recording = RecordingTask(RecordingSound(array_chunks(sound, 1000)), members)
    result = Transcription(recording, RecordingBatch(rec.scheduler, [recording], None), "echo")
    with pytest.raises(RuntimeError, match="out of memory"):
        result.result()
    assert rec.free_slots == 2
    assert result.heard_s < 200


Calls = list[tuple[float, float | None]]


def _noted(calls: Calls) -> Callable[[float, float | None], None]:
    return lambda heard_s, total_s: calls.append((heard_s, total_s))


@pytest.fixture
def every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told whenever there is some."""
    monkeypatch.setattr("kiku.transcription.progress.PROGRESS_EVERY_S", 0.0)


@pytest.mark.usefixtures("every_time")
def test_progress_goes_from_the_beginning_to_the_end() -> None:
    rec, _ = echo()
    calls: Calls = []
    sound = np.concatenate([sentence(ONE), np.zeros(1_000 * SIZE, np.float32)])
    result = rec.transcribe(sound, rate=CONFIG.sample_rate, progress=_noted(calls))
    heard = [heard_s for heard_s, _ in calls]
    assert len(calls) > 3
    assert heard == sorted(heard)
    assert heard[0] < result.duration == heard[-1]
    assert [total_s for _, total_s in calls] == [pytest.approx(1_005 * 0.08)] * len(calls)


@pytest.mark.usefixtures("every_time")
def test_progress_of_several_recordings_is_of_all_together(tmp_path: Path) -> None:
    rec, _ = echo(slots=2)
    (tmp_path / "a.wav").write_bytes(_wav(sentence(ONE, TWO), CONFIG.sample_rate))
    calls: Calls = []
    sources = [sentence(ONE), tmp_path / "a.wav", tmp_path / "missing.wav", sentence(THREE)]
    results = rec.transcribe(sources, rate=CONFIG.sample_rate, progress=_noted(calls))
    assert [one.text for one in results] == ["one", "one two", "", "three"]
    whole_s = sum(one.duration for one in results)
    assert calls[-1] == (pytest.approx(whole_s), pytest.approx(whole_s))
    # How long the one is that is missing is not known until it was looked for.
    assert calls[0][1] is None


@pytest.mark.usefixtures("every_time")
def test_what_does_not_say_how_long_it_is_has_no_total() -> None:
    rec, _ = echo()
    calls: Calls = []
    sound = np.concatenate([sentence(ONE), np.zeros(1_000 * SIZE, np.float32)])

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    pipe = Pipe(_wav(sound, CONFIG.sample_rate))
    result = rec.transcribe(pipe, progress=_noted(calls))
    assert [total_s for _, total_s in calls[:-1]] == [None] * (len(calls) - 1)
    assert calls[-1] == (result.duration, result.duration)


@pytest.mark.usefixtures("every_time")
def test_the_total_is_of_what_is_wanted() -> None:
    rec, _ = echo()
    calls: Calls = []
    sound = np.zeros(1_000 * SIZE, np.float32)
    part = StreamOptions(recovery=None, end_s=40.0)
    rec.transcribe(sound, part, rate=CONFIG.sample_rate, progress=_noted(calls))
    assert calls[0][1] == 40.0


def test_progress_is_not_told_more_often_than_somebody_can_look() -> None:
    rec, _ = echo()
    calls: Calls = []
    result = rec.transcription(
        np.zeros(10_000 * SIZE, np.float32), rate=CONFIG.sample_rate, progress=_noted(calls)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kiku.transcription.progress.time.monotonic", lambda: 1.0)
        result.result()
    assert len(calls) == 2  # at first, and at the end


def test_progress_of_many_recordings_asks_once_which_of_them_go_on() -> None:
    class Counted(list[RecordingTask]):
        looks = 0

        def __iter__(self) -> Iterator[RecordingTask]:
            self.looks += 1
            return super().__iter__()

    calls: Calls = []
    tasks = [RecordingTask(RecordingSound(iter(())), lambda _: []) for _ in range(9)]
    progress = BatchProgress(_noted(calls), tasks)
    progress._stated = [2.0] * 9  # pyright: ignore[reportPrivateUsage]
    tasks[0].so_far.duration = 1.0
    pending = Counted(tasks[1:])
    progress.report(pending)
    assert calls == [(1.0, 17.0)]
    assert pending.looks == 1


@pytest.mark.usefixtures("every_time")
@pytest.mark.parametrize("error", [RuntimeError("enough"), KeyboardInterrupt()])
def test_a_progress_callback_that_raises_stops_its_call_alone(error: BaseException) -> None:
    rec, _ = echo(slots=3)
    other = rec.transcription(
        np.concatenate([sentence(ONE, TWO), np.zeros(100 * SIZE, np.float32)]),
        rate=CONFIG.sample_rate,
    )
    assert next(iter(other)).text == "one"

    def enough(heard_s: float, total_s: float | None) -> None:
        raise error

    sounds = [np.concatenate([sentence(ONE), np.zeros(1_000 * SIZE, np.float32)])] * 4
    several = rec.transcriptions(sounds, rate=CONFIG.sample_rate, progress=enough)
    with pytest.raises(type(error)) as raised:
        several[0].result_or_problem()
    assert raised.value is error
    assert rec.free_slots == 2
    for one in several:
        with pytest.raises(StreamError, match="stopped by its progress callback"):
            one.result()
    with pytest.raises(type(error)):
        rec.transcribe(sounds, rate=CONFIG.sample_rate, progress=enough)
    assert rec.free_slots == 2
    assert other.result().text == "one two"


def test_a_rate_may_be_a_whole_float_as_microphones_give_it() -> None:
    rec, _ = echo()
    sound, rate = sentence(ONE), float(CONFIG.sample_rate)
    given: Any = (rate, sound)
    assert rec.transcribe(given).text == rec.transcribe(sound, rate=rate).text == "one"  # pyright: ignore
    with pytest.raises(AudioError, match="is not whole"):
        rec.transcribe(sound, rate=1000.5)  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.parametrize(
    "one",
    ["a.wav", Path("a.wav"), b"bytes", io.BytesIO(b"a file"), np.zeros(SIZE, np.float32),
     (1_000, np.zeros(SIZE, np.float32)), {"path": "a.wav"}, 3, None],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_one_recording_is_not_taken_apart_for_several(one: Any) -> None:
    with pytest.raises(InputError, match="this needs a list of recordings, not"):
        echo()[0].transcriptions(one)


@pytest.mark.parametrize("wrong", [3, "show", [print]])
def test_progress_that_cannot_be_called_is_refused(wrong: Any) -> None:
    rec = echo()[0]
    for call in (rec.transcribe, rec.transcription):
        with pytest.raises(InputError, match="progress must be a function"):
            call(np.zeros(SIZE, np.float32), rate=1_000, progress=wrong)


@pytest.mark.parametrize("wrong", ["3", 1.5, math.nan, True, -1, [3]])
def test_a_number_of_tokens_is_a_whole_one(wrong: Any) -> None:
    rec, sound = echo()[0], np.zeros(5 * SIZE, np.float32)
    with pytest.raises(InputError, match="max_tokens must be a whole number"):
        rec.tokens(sound, max_tokens=wrong)
    for most in (3, 3.0, np.int64(3)):
        assert len(rec.tokens(sound, max_tokens=most)) == 3  # pyright: ignore
    assert rec.free_slots == 1


@pytest.mark.parametrize("wrong", [None, 3, 0.5])
def test_tokens_of_no_samples_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="samples must be an array"):
        echo()[0].tokens(wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("talk.wav", r"not 'talk.wav': .* kiku.audio.read_chunks"),
        (Path("talk.wav"), "not .*'talk.wav'"),
        (b"ab", "not b'ab'"),
        ([0.5, 0.25], r"not 0.5: give np.array\(..., np.float32\)"),
        ([np.zeros(3, np.float32), "a"], "not 'a'"),
        (np.zeros((2, 3), np.float32), r"not of shape \[2, 3\]"),
        (np.float32(1), r"not of shape \[\]"),
    ],
)
def test_what_is_no_array_for_tokens_is_told(wrong: Any, told: str) -> None:
    with pytest.raises(InputError, match=f"samples must be an array .*{told}"):
        echo()[0].tokens(wrong)


def test_a_tensor_is_one_array_for_tokens() -> None:
    class Tensor:
        shape = (2 * SIZE,)

        def __array__(self, dtype: Any = None) -> NDArray[np.float32]:
            return sentence(ONE)[: 2 * SIZE]

        def __iter__(self) -> Iterator[Any]:
            return map(np.asarray, self.__array__())

    rec, _ = echo()
    given: Any = Tensor()
    assert rec.tokens(given).tolist() == rec.tokens(np.asarray(given)).tolist() != []
    assert len(rec.tokens([given, given])) == 2
    rec.tokens(given, picker=lambda logits: int(logits.argmax()))


@pytest.mark.parametrize("wrong", [3, None, ["left"], b"left"])
def test_the_text_of_a_prompt_is_a_text(wrong: Any) -> None:
    with pytest.raises(InputError, match="the text of a prompt must be text"):
        echo()[0].prompt(wrong, np.zeros(5 * SIZE, np.float32), rate=1_000)


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_an_array_of_many_channels_says_which_axis_is_time(axis: int) -> None:
    rec, _ = echo()
    mono = spoken([3, 0, ONE, 3, TWO, 3, 3], SIZE)
    many = np.stack([mono] * 70, axis=axis)
    with pytest.raises(AudioError, match=r"StreamOptions\(format=AudioFormat\(channels_axis=0\)\)"):
        rec.transcribe(many, PLAIN, rate=CONFIG.sample_rate)
    told = replace(PLAIN, format=AudioFormat(channels_axis=axis))
    totals: list[float | None] = []
    found = rec.transcribe(
        many, told, rate=CONFIG.sample_rate, progress=lambda _, total: totals.append(total)
    )
    assert found.text == rec.transcribe(mono, PLAIN, rate=CONFIG.sample_rate).text == "one two"
    with pytest.raises(
        ConfigError, match="70 channels cannot be transcribed separately, at most 64 can"
    ):
        rec.transcribe(many, replace(told, channel="each"), rate=CONFIG.sample_rate)
    assert totals[-1] == pytest.approx(len(mono) / CONFIG.sample_rate)
