"""Decoding once, reading by slices."""

import json
import wave

import numpy as np
import pytest

from recipes.demo.corpus import build, decode, normalise

RATE = 24_000


def write_wav(path, samples: np.ndarray, rate: int = RATE) -> None:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 32767).astype("<i2").tobytes())


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = {
        "train": [("a.wav", "ONE, two!", "ann"), ("b.wav", "Stop", "bob")],
        "dev": [("c.wav", "no", "eve")],
    }
    for split, files in rows.items():
        lines = []
        for i, (name, text, speaker) in enumerate(files):
            tone = 0.3 * np.sin(np.arange(RATE // 2) * (0.05 + 0.1 * i)).astype(np.float32)
            write_wav(folder / name, tone)
            lines.append(
                {
                    "file": name,
                    "text": text,
                    "speaker": speaker,
                    "group": "en-words",
                    "language": "en",
                }
            )
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return folder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ONE, two!", ("one", "two")),
        ("don't  stop", ("don't", "stop")),
        ("", ()),
        ("1-2 go", ("go",)),
    ],
)
def test_words_of_a_transcript(text: str, words: tuple[str, ...]) -> None:
    assert normalise(text) == words


def test_the_corpus_holds_what_the_files_hold(data, tmp_path) -> None:
    corpus = build(data, tmp_path / "cache", jobs=1)
    assert [r.words for r in corpus.recordings] == [("one", "two"), ("stop",), ("no",)]
    assert [r.split for r in corpus.recordings] == ["train", "train", "dev"]
    for recording, name in zip(corpus.recordings, ("a.wav", "b.wav", "c.wav"), strict=True):
        assert np.array_equal(
            corpus.audio(recording), decode(data / name).astype(np.float32) / 32768.0
        )
        assert recording.seconds == pytest.approx(0.5)
    assert [r.speaker for r in corpus.select("train", "en-words")] == ["ann", "bob"]
    assert corpus.select("train", "en-an4") == []


def test_a_finished_cache_is_read_not_made(data, tmp_path) -> None:
    first = build(data, tmp_path / "cache", jobs=1)
    for file in data.glob("*.wav"):
        file.unlink()
    again = build(data, tmp_path / "cache", jobs=1)
    assert again.recordings == first.recordings


def test_any_rate_becomes_24_khz(tmp_path) -> None:
    write_wav(tmp_path / "slow.wav", 0.3 * np.sin(np.arange(8_000) * 0.2), rate=8_000)
    assert len(decode(tmp_path / "slow.wav")) == pytest.approx(RATE, abs=50)
