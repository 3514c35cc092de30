"""Streams that go on from a recording and its text."""

import pickle
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

import kiku
from kiku.decoding import PromptPicker
from kiku.engine import StepOutput
from kiku.errors import AudioError, ConfigError, StreamError
from kiku.options import Prompt, StreamOptions
from kiku.scheduler import Member, Opening
from kiku.stream import TokenSession
from tests import tiny
from tests.conftest import ROOT
from tests.test_recognizer import noise, real

CONFIG = tiny.model_config()
RATE, SIZE = CONFIG.sample_rate, CONFIG.frame_size
DIGITS = str(ROOT / "examples/digits.wav")
LONG_S = 60.0


@cache
def demo() -> kiku.Recognizer:
    return kiku.load("demo", slots=2, threads=1)


@cache
def digits() -> NDArray[np.float32]:
    from kiku.audio import read_chunks

    return np.concatenate(list(read_chunks(DIGITS, 24_000)))


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_a_prompted_stream_says_what_it_would_behind_the_prompt(kind: str) -> None:
    """Token by token: as if prompt and sound were one recording, of which the prompt's text was
    given."""
    rec, text = real(slots=2, kind=kind), "one two"
    own, after = noise(40, 1), noise(20, 2)
    picker = PromptPicker(text, rec.vocabulary, CONFIG)
    silence = int(CONFIG.silence_prefix_s * RATE), int(np.ceil((CONFIG.text_delay_s + 0.8) * RATE))
    before = np.concatenate([np.zeros(silence[0]), own, np.zeros(silence[1])]).astype(np.float32)
    before = np.pad(before, (0, -len(before) % SIZE)).reshape(-1, SIZE)
    whole = TokenSession(np.concatenate([before, after.reshape(-1, SIZE)]))

    def pick(logits: NDArray[np.float32]) -> int:
        at_prompt = len(calls) <= len(before)
        calls.append(0)
        return picker(logits) if at_prompt else int(logits.argmax())

    calls: list[int] = []
    rec.scheduler.run([Member(whole, kiku.scheduler.SlotOptions(pick))])
    assert not picker.left
    said: list[int] = []

    def note(out: StepOutput) -> None:
        said.extend(out.tokens.tolist())

    prompt = rec.prompt(text, own, rate=RATE)
    assert rec.free_slots == 2
    options = StreamOptions(prompt=prompt, recovery=None)
    (member,) = rec._members(options, 1)  # pyright: ignore[reportPrivateUsage]
    rec.scheduler.open(Opening([Member(member.session, member.options, member.saved, note)]))
    session = member.session
    session.push(session.input.check(after))
    session.close()
    rec.scheduler.drive(lambda: session.done)
    assert said[:20] == whole.tokens[-20:]


def test_words_and_times_are_those_of_the_sound_behind_the_prompt() -> None:
    rec = demo()
    plain = rec.transcribe(digits(), rate=24_000)
    prompt = rec.prompt("left right up down on off", str(ROOT / "examples/directions.flac"))
    found = rec.transcribe(digits(), StreamOptions(prompt=prompt), rate=24_000)
    assert found.text == plain.text
    moved = [abs(a.start - b.start) for a, b in zip(found, plain, strict=True)]
    # What was before may move a word by a frame, but not all of them.
    assert max(moved) < 0.081
    assert sum(by < 1e-6 for by in moved) > len(moved) / 2
    assert found.duration == plain.duration


def test_a_prompt_serves_many_streams_and_other_processes() -> None:
    rec = demo()
    prompt = rec.prompt("seven three", digits()[:48_000], rate=24_000)
    again: Prompt = pickle.loads(pickle.dumps(prompt))
    assert again == prompt
    assert "seven three" in repr(prompt)
    assert len(repr(prompt)) < 100
    texts = [found.text for found in rec.transcribe([DIGITS, DIGITS], StreamOptions(prompt=again))]
    assert texts[0] == texts[1]
    with rec.stream(StreamOptions(prompt=prompt)) as stream:
        stream.push(digits())
        stream.close()
        words = [one.text for one in stream.events() if isinstance(one, kiku.Word)]
    assert words == texts[0].split()


def test_a_saved_stream_remembers_that_it_was_prompted() -> None:
    rec = demo()
    options = StreamOptions(prompt=rec.prompt("seven three", digits()[:48_000], rate=24_000))
    sound = digits()

    def words(stream: kiku.LiveStream) -> list[tuple[str, float]]:
        stream.push(sound[60_000:])
        stream.close()
        return [(one.text, one.start) for one in stream.events() if isinstance(one, kiku.Word)]

    with rec.stream(options) as stream:
        stream.push(sound[:60_000])
        state = stream.save()
        whole = words(stream)
    with rec.stream(state=state) as stream:
        assert words(stream) == whole
    with rec.stream(StreamOptions(), state=state) as stream:
        assert words(stream) == whole


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "needs the text"), ("  ", "needs the text"), ("zero " * 200, "ended before")],
)
def test_texts_that_cannot_be_are_told_and_hold_no_slot(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        demo().prompt(text, digits()[:48_000], rate=24_000)
    assert demo().free_slots == 2


def test_recordings_that_cannot_be_are_told() -> None:
    with pytest.raises(ConfigError, match="60 s"):
        demo().prompt("one", np.zeros(61 * 24_000, np.float32), rate=24_000)
    with pytest.raises(AudioError):
        demo().prompt("one", "no such file")
    assert demo().free_slots == 2


def test_a_prompt_of_another_model_is_told() -> None:
    prompt = real(kind="onnx").prompt("one", noise(40, 1), rate=RATE)
    with pytest.raises(StreamError, match="another model or engine"):
        demo().stream(StreamOptions(prompt=prompt))
    assert demo().free_slots == 2


def test_options_with_a_prompt_cannot_be_written_down() -> None:
    with pytest.raises(ConfigError, match="a prompt cannot be saved"):
        StreamOptions(prompt=Prompt("one", b"")).to_dict()
