"""The best word errors to expect: a reader of the whole teacher's states."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from typer.testing import CliRunner

from recipes.demo.corpus import SAMPLE_RATE, Corpus
from recipes.english import __main__ as english_commands
from recipes.english import ceiling as ceiling_room
from recipes.english.ablation import TeacherEncoder
from recipes.english.beam import Setting
from recipes.english.ceiling import (
    Reader,
    States,
    examples_of,
    first_hours,
    learn,
    word_errors_of,
)
from recipes.english.lessons import make_vocabulary
from recipes.english.states import build_states
from tests.recipes.test_english import (
    PIECES,
    WORDS,
    Pico,
    corpus,
    given_to_a_run,
    teacher_of,
    trunk,
)
from tests.recipes.test_english_words import sentences_in

__all__ = ["corpus"]


def test_examples_are_the_last_states_of_recordings_with_words(corpus: Corpus, tmp_path) -> None:
    teacher = TeacherEncoder(teacher_of(trunk()))
    kept = build_states(teacher, corpus, corpus.recordings[:6], tmp_path / "states")
    deaf = replace(corpus.recordings[0], words=())
    found = examples_of(kept, [deaf, *corpus.recordings[1:8]])
    assert len(found) == 5  # not the deaf one, nor those without states
    longest = max(corpus.recordings[1:6], key=lambda one: one.seconds)
    assert (found[-1].words, found[-1].speaker) == (longest.words, longest.speaker)
    wanted = kept.of(longest)[:, 1] / kept.spread[1]
    torch.testing.assert_close(found[-1].states.float(), wanted, rtol=0.02, atol=0.02)


def test_the_first_hours_of_a_corpus(corpus: Corpus) -> None:
    third = corpus.recordings[2]
    assert first_hours(corpus, third.end / SAMPLE_RATE / 3600) == list(corpus.recordings[:3])
    assert first_hours(corpus, 1e-9) == []


def test_a_reader_of_states_learns_to_spell_them(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ceiling_room, "_BATCH", 200)
    monkeypatch.setattr(ceiling_room, "_WARMUP", 5)
    vocabulary = make_vocabulary([text for text in WORDS for _ in range(20)], PIECES, tmp_path)
    looks = torch.randn(len(vocabulary), 16, generator=torch.Generator().manual_seed(0))
    heard: list[States] = []
    for text in WORDS * 8:
        spelled = [0, *(one for piece in vocabulary.encode(text) for one in (piece, piece, 0, 0))]
        heard.append(States(looks[spelled].bfloat16(), tuple(text.split())))
    torch.manual_seed(0)
    reader = Reader(16, len(vocabulary), width=64)
    before = word_errors_of(reader, {"all": heard}, vocabulary)
    losses = list(learn(reader, heard, vocabulary, rounds=60))
    assert losses[-1] < 0.3 * losses[0]
    assert word_errors_of(reader, {"all": heard, "one": heard[:1]}, vocabulary)["all"] < 0.2
    assert before["all"] > 0.9


def test_the_ceiling_is_a_table(tmp_path: Path, monkeypatch) -> None:
    data, wheel = given_to_a_run(tmp_path)
    monkeypatch.setattr(english_commands, "NUM_PIECES", PIECES)
    sentences_in(data, "One two three four.", "Yes, no!", "Five six seven")
    monkeypatch.setitem(sys.modules, "py_nanotts", SimpleNamespace(NanoTTS=Pico))
    monkeypatch.setattr("recipes.english.speak._FLITE", 0.0)
    monkeypatch.setattr(english_commands, "SETTINGS", (Setting(0.3, 0.0), Setting(0.9, 2.0)))
    arguments = ["--data", data, "--out", tmp_path / "out", "--teacher", wheel, "--rounds", 2]
    ran = CliRunner().invoke(english_commands.app, ["ceiling", *map(str, arguments)])
    assert ran.exit_code == 0, ran.output
    rows = [line for line in ran.stdout.splitlines() if line.startswith(("| 1 |", "| 2 |"))]
    assert len(rows) == 2
    assert all(row.count("%") == 2 for row in rows)
    assert ran.stdout.count("%") == 2 * 2 + 2 * 2 + 3 * 4
    assert (tmp_path / "out" / "states-said" / "spans.npy").exists()
