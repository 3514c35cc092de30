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
    held = {
        split: [row for group in few for row in rows(tmp_path / f"{group.name}-{split}.jsonl")]
        for split in ("dev", "test")
    }
    assert (len(train), len(held["dev"]), len(held["test"])) == (12, 6, 6)
    speakers = [{row["speaker"] for row in part} for part in (train, *held.values())]
    assert sum(len(one) for one in speakers) == len(set[str]().union(*speakers))
    assert [row.get("keep", False) for row in train] == [False] * 8 + [True] * 4
    assert not any("keep" in row for part in held.values() for row in part)
    said = {"fr": set(), "en": set()}
    for row in train + held["dev"] + held["test"]:
        with wave.open(str(tmp_path / row["path"])) as file:
            rate, length = file.getframerate(), file.getnframes()
            samples = np.frombuffer(file.readframes(length), "<i2") / 32768
        habit = speak.HABIT_S if row["split"] == "train" else 0.0
        assert ("words" in row) == (not row.get("keep"))
        for word, begun, ended in row.get("words", ()):
            start, end = begun - habit, ended - habit
            assert 0 <= start < end <= length / rate
            assert np.abs(samples[int(start * rate) : int(end * rate)]).max() > 0.02
            said[row["language"]].add(word)
    assert said["en"] <= {*VOCABULARY, speak.NEW_WORD}
    assert said["fr"] <= set(" ".join(speak.FRENCH).split())
    hello = rows(tmp_path / "hello-test.jsonl")
    assert all(speak.NEW_WORD in [word for word, *_ in row["words"]] for row in hello)


def test_no_recording_of_a_person_is_trained_on_and_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speak, "decode", lambda path: np.full(2400, 9000, np.int16))
    for file, speakers, text in (("train", 15, "LEFT"), ("dev", 3, "right")):
        lines = [
            {"file": f"{file}{i}.ogg", "text": text, "speaker": f"{file}-{i % speakers}",
             "group": group}
            for i, group in enumerate(["en-words"] * 2 * speakers + ["en-read"] * speakers)
        ]  # fmt: skip
        path = tmp_path / f"{file}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    heard: dict[str, set[str]] = {}
    for split, word in (("train", "left"), ("dev", "left"), ("test", "right")):
        for speaker, language, (samples, words) in speak.people(tmp_path, split, 40, seed=0):
            heard.setdefault(split, set()).add(speaker)
            assert language == "en"
            assert [text for text, *_ in words] == [word, word]
            assert words[-1][2] < len(samples) / 24_000
    assert {one.partition("-")[0] for one in heard["train"] | heard["dev"]} == {"train"}
    assert {one.partition("-")[0] for one in heard["test"]} == {"dev"}
    assert not heard["train"] & heard["dev"]
    assert len(heard["dev"]) == 2
