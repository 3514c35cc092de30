"""The model that ships with kiku, on sound: the examples, and people where their recordings are.

Laws that hold for tiny random networks are held here on real speech, where a slip changes words.
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import kiku
from kiku import End, Recognizer, StreamOptions, Word
from kiku.audio import read_chunks
from kiku.engine import StepOutput
from kiku.evaluate.aligning import word_errors
from tests.fakes import Driven

RATE = 24_000


def said(repo_root: Path) -> dict[str, str]:
    """What examples/README.md says is spoken, by file."""
    rows = re.findall(
        r"^\| `(\S+)` \| ([a-z ]+) \|", (repo_root / "examples/README.md").read_text(), re.M
    )
    return dict(rows)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return kiku.load("demo", device="cpu", slots=4, threads=1)


def sound_of(path: Path) -> NDArray[np.float32]:
    return np.concatenate(list(read_chunks(path, RATE)))


def words_of(recognizer: Recognizer, chunks: Iterator[NDArray[np.float32]]) -> list[Word]:
    """Live: each chunk is stepped before the next comes."""
    stream = Driven(recognizer)
    words: list[Word] = []
    for chunk in chunks:
        stream.push(chunk)
        words += [event for event in stream.run() if isinstance(event, Word)]
    stream.close()
    *rest, end = stream.run()
    assert isinstance(end, End)
    return words + [event for event in rest if isinstance(event, Word)]


def spoken(words: Iterable[Word]) -> list[tuple[str, float, float]]:
    return [(word.text, word.start, word.end) for word in words]


def test_the_examples_are_heard_right(recognizer: Recognizer, repo_root: Path) -> None:
    expected = said(repo_root)
    assert len(expected) == 3
    files = [repo_root / "examples" / name for name in expected]
    assert [r.text for r in recognizer.transcribe(files)] == list(expected.values())


def test_times_lie_where_the_sound_is(recognizer: Recognizer, repo_root: Path) -> None:
    path = repo_root / "examples/digits.wav"
    sound = sound_of(path)
    words = recognizer.transcribe(path).words
    assert all(a.end <= b.start + 1e-9 for a, b in pairwise(words))
    loud = np.abs(sound) > 0.05 * np.abs(sound).max()
    for word in words:
        assert 0 < word.probability <= 1
        around = loud[round(max(word.start - 0.2, 0) * RATE) : round((word.start + 0.2) * RATE)]
        assert around.any(), f"nothing is to be heard where {word} begins"


def test_file_live_and_batch_give_the_same_words(recognizer: Recognizer, repo_root: Path) -> None:
    files = [repo_root / "examples" / name for name in said(repo_root)]
    together = [spoken(r.words) for r in recognizer.transcribe(files)]
    for path, expected in zip(files, together, strict=True):
        sound = sound_of(path)
        assert spoken(recognizer.transcribe(path).words) == expected
        cuts = np.sort(np.random.default_rng(5).integers(0, len(sound), 40))
        assert spoken(words_of(recognizer, iter(np.split(sound, cuts)))) == expected


def test_live_words_come_while_one_speaks(recognizer: Recognizer, repo_root: Path) -> None:
    sound = sound_of(repo_root / "examples/digits.wav")
    stream = Driven(recognizer)
    first_at_s = None
    for at in range(0, len(sound), 1920):
        stream.push(sound[at : at + 1920])
        if (events := stream.run()) and first_at_s is None:
            assert isinstance(events[0], Word)
            first_at_s = (at + 1920) / RATE
            # Half a second of delay, the length of its pieces, and the frame that ends it.
            assert first_at_s - events[0].start < 1.2
    stream.release()
    assert first_at_s is not None


@pytest.mark.parametrize("level", [0.0, 0.003, 0.03])
def test_silence_and_noise_give_no_words(recognizer: Recognizer, level: float) -> None:
    noise = np.random.default_rng(3).standard_normal(30 * RATE).astype(np.float32) * level
    assert recognizer.transcribe(noise, rate=24_000).words == ()


def test_it_has_four_pause_heads_that_hear_a_pause(recognizer: Recognizer, repo_root: Path) -> None:
    pauses: list[NDArray[np.float32]] = []

    def listen(out: StepOutput) -> None:
        assert out.pauses is not None
        pauses.append(out.pauses)

    sound = sound_of(repo_root / "examples/digits.wav")
    stream = Driven(recognizer, StreamOptions(recovery=None), padded=False, on_output=listen)
    stream.push(np.concatenate([sound, np.zeros(4 * RATE, np.float32)]))
    stream.close()
    stream.run()
    heard = np.concatenate(pauses)
    assert heard.shape[1] == 4
    speech = heard[int(len(sound) / 1920 / 4) : int(len(sound) / 1920 * 3 / 4)]
    silence = heard[-25:]
    assert silence[:, 0].mean() > 0.8 > 0.6 > speech[:, 3].mean()


@cache
def strings_of_people(data: Path, count: int) -> list[tuple[NDArray[np.float32], list[str]]]:
    """Words of one speaker each, joined with gaps of 0.3 to 0.7 s, by speakers set apart."""
    said: dict[str, list[tuple[str, str]]] = {}
    for line in (data / "dev.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["group"] == "en-words":
            said.setdefault(row["speaker"], []).append((row["file"], row["text"]))
    random = np.random.default_rng(8)
    speakers = sorted(speaker for speaker, rows in said.items() if len(rows) >= 5)
    strings: list[tuple[NDArray[np.float32], list[str]]] = []
    for speaker in random.permutation(speakers)[:count]:
        rows = [said[speaker][i] for i in random.permutation(len(said[speaker]))[:5]]
        parts = [np.zeros(RATE // 2, np.float32)]
        for file, _ in rows:
            parts += [sound_of(data / file), np.zeros(random.integers(7200, 16800), np.float32)]
        strings.append((np.concatenate(parts), [word for _, word in rows]))
    return strings


def test_people_that_it_never_heard(recognizer: Recognizer, shared_data: Path) -> None:
    """As the card says, with room for so small a sample."""
    strings = strings_of_people(shared_data, 16)
    results = recognizer.transcribe([sound for sound, _ in strings], rate=24_000)
    wrong = sum(
        word_errors(words, result.text.split())
        for (_, words), result in zip(strings, results, strict=True)
    )
    spoken_words = sum(len(words) for _, words in strings)
    assert spoken_words == 80
    assert wrong / spoken_words < 0.2
