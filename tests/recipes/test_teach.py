"""Recordings for docs/teach.md: times that lie in the sound, and no voice in two splits."""

import json
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recipes.demo.corpus import VOCABULARY
from recipes.teach import speak
from tests.recipes.test_voices import needs_espeak


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@needs_espeak
def test_words_stand_where_they_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = tuple(replace(group, train=4, dev=2) for group in speak.GROUPS)
    monkeypatch.setattr(speak, "GROUPS", few)
    speak.speak(tmp_path, None)
    train = rows(tmp_path / "train.jsonl")
    dev = [row for group in few for row in rows(tmp_path / f"{group.name}-dev.jsonl")]
    assert (len(train), len(dev)) == (12, 6)
    assert not {row["speaker"] for row in train} & {row["speaker"] for row in dev}
    said = {"fr": set(), "en": set()}
    for row in train + dev:
        with wave.open(str(tmp_path / row["path"])) as file:
            rate, length = file.getframerate(), file.getnframes()
            samples = np.frombuffer(file.readframes(length), "<i2") / 32768
        for word, start, end in row["words"]:
            assert 0 <= start < end <= length / rate
            assert np.abs(samples[int(start * rate) : int(end * rate)]).max() > 0.02
            said[row["language"]].add(word)
    assert said["en"] <= {*VOCABULARY, speak.NEW_WORD}
    assert said["fr"] <= set(" ".join(speak.FRENCH).split())
    hello = rows(tmp_path / "hello-dev.jsonl")
    assert all(speak.NEW_WORD in [word for word, *_ in row["words"]] for row in hello)


def test_no_recording_of_a_person_is_trained_on_and_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speak, "decode", lambda path: np.full(2400, 9000, np.int16))
    for split, text in (("train", "LEFT"), ("dev", "right")):
        lines = [
            {"file": f"{split}{i}.ogg", "text": text, "speaker": split, "group": group}
            for i, group in enumerate(("en-words", "en-words", "en-read"))
        ]
        path = tmp_path / f"{split}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for split, word in (("train", "left"), ("dev", "right")):
        for speaker, language, (samples, words) in speak.people(tmp_path, split, 3, seed=0):
            assert (speaker, language) == (split, "en")
            assert [text for text, *_ in words] == [word, word]
            assert words[-1][2] < len(samples) / 24_000
