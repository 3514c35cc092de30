"""Words of tones are found where they are; what cannot be aligned is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from kiku.checkpoint import Loaded, load
from kiku.cli import main
from kiku.errors import ConfigError, TrainingError
from kiku.train.align import (
    AlignOptions,
    align,
    page_of,
)
from kiku.train.folders import read_rows
from kiku.train.forced import force, widen_words
from kiku.train.letters import letters_of, sign_without_letters, spoken_words
from kiku.train.manifest import read_training_manifest
from kiku.train.manifest import write_manifest as write_rows
from tests.train.recordings import RATE, some_words, spoken, write_manifest, write_wav

QUICK = AlignOptions(steps=120, width=48, batch_s=24.0, lr=5e-3)

LEVELS = dict(zip("eghnortw", (0.8, -0.8, 0.5, -0.5, 0.3, -0.3, 0.65, -0.65), strict=True))
"""What the tiny codec, which nobody taught, can tell apart: each letter is a level."""

Timed = list[tuple[str, float, float]]


def spelled(words: Timed, seconds: float) -> np.ndarray:
    """Each word's time is shared by its letters."""
    sound = np.random.default_rng(len(words)).normal(0, 0.002, int(seconds * RATE))
    for word, start, end in words:
        edges = np.linspace(start, end, len(word) + 1)
        for letter, first, last in zip(word, edges, edges[1:], strict=False):
            sound[int(first * RATE) : int(last * RATE)] += LEVELS[letter]
    return sound.astype(np.float32)


def corpus(folder: Path, count: int) -> tuple[Path, list[Timed]]:
    """Recordings with their texts, and when the words really are."""
    truth: list[Timed] = []
    rows: list[dict[str, object]] = []
    for i in range(count):
        words = some_words(i, 3.0)
        write_wav(folder / f"{i:03}.wav", spelled(words, 3.0))
        truth.append(words)
        text = " ".join(word for word, _, _ in words)
        rows.append({"path": f"{i:03}.wav", "text": text, "speaker": f"s{i}"})
    return write_manifest(folder, rows), truth


def test_letters() -> None:
    assert letters_of("Don't,") == "dont"
    assert letters_of("Ça") == "ça"
    assert letters_of("-") == ""


def test_signs_go_with_the_word_beside_them() -> None:
    for text, words in (
        ("seven ? zero 50 % one — four", ["seven ?", "zero", "50 %", "one —", "four"]),
        ("« Ça va ? »", ["« Ça", "va ? »"]),
        ("- !", []),
    ):
        assert spoken_words(text) == words
    assert sign_without_letters("zero 50 % one") == "%"
    assert sign_without_letters("a 5 € b") == "€"
    assert sign_without_letters("ça va ? — oui") is None


def test_a_long_recording_is_not_read_to_its_end(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def seconds(path: Path, rate: int):
        for number in range(100):
            read.append(number)
            yield np.full(rate, 0.1, np.float32)

    monkeypatch.setattr("kiku.train.sounds.read_chunks", seconds)
    rows = read_rows(write_manifest(tmp_path, [{"path": "a.wav", "text": "one"}]))
    with pytest.raises(TrainingError, match="longer than 4 s"):
        align(rows, loaded, AlignOptions(steps=1, width=16, most_s=4.0))
    assert len(read) < 14


def test_the_best_path_by_hand() -> None:
    likely = np.log(np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1],
                              [0.1, 0.1, 0.8]]))  # fmt: skip
    spans, score = force(likely, [1, 2])
    assert spans.tolist() == [[1, 2], [4, 4]]
    assert score == pytest.approx(np.log(0.8))
    # the same letter twice wants a blank between
    assert force(likely, [1, 1])[0].tolist()[1][0] - force(likely, [1, 1])[0].tolist()[0][1] > 1
    assert force(likely, [1, 2, 1, 2, 1, 2])[1] == -np.inf


def test_words_reach_to_where_their_sound_does() -> None:
    loudness = np.full(30, 0.001, np.float32)
    loudness[3:9] = loudness[10:20] = 0.2
    cores = np.array([[5, 7], [12, 14], [16, 18]])
    # a pause between the first two, none between the last two
    assert widen_words(cores, loudness).tolist() == [[3, 9], [10, 15], [15, 20]]
    loudness[:] = 0.2
    loudness[8] = 0.001
    assert widen_words(cores[:2], loudness).tolist() == [[0, 8], [9, 30]]


def test_words_are_found_where_they_are(loaded: Loaded, tmp_path: Path) -> None:
    path, truth = corpus(tmp_path, 40)
    done = align(read_rows(path), loaded, QUICK)
    assert not done.left_out
    assert len(done.rows) == 40
    errors = []
    for row, words in zip(done.rows, truth, strict=True):
        assert row.words is not None
        assert [w.text for w in row.words] == [word for word, _, _ in words]
        errors += [abs(w.start - a) for w, (_, a, _) in zip(row.words, words, strict=True)]
    assert np.median(errors) < 0.06
    assert np.mean(np.array(errors) < 0.2) > 0.9


def test_what_cannot_be_aligned(loaded: Loaded, tmp_path: Path) -> None:
    path, _ = corpus(tmp_path, 3)
    write_wav(tmp_path / "short.wav", spoken([("one", 0.0, 0.16)], 0.16))
    with path.open("a") as file:
        for row in (
            {"path": "none.wav", "text": "one"},
            {"path": "000.wav", "text": "- !"},
            {"path": "short.wav", "text": "one two three go one two three go"},
            {"path": "001.wav", "text": "one", "start": 60.0},
            {"path": "000.wav", "words": [["one", 0.1, 0.2]]},
            {"path": "000.wav", "text": ""},
            {"path": "001.wav", "text": "one two", "words": []},
            {"path": "002.wav"},
        ):
            file.write(json.dumps(row) + "\n")
    options = AlignOptions(steps=3, width=16, most_s=2.9)
    done = align(read_rows(path), loaded, AlignOptions(steps=3, width=16))
    said = {Path(one.row).name: one.why for one in done.left_out}
    assert "no such file" in said["none.wav"]
    assert said["000.wav"] == "its text has no letters"
    assert said["short.wav"] == "its letters do not fit its length"
    assert said["001.wav"] == "a text, but an empty list of words: leave the list out, or the text"
    assert said["002.wav"] == "no transcript"
    assert said["001.wav from 60 s"] == "no sound from 60 s on: that is its end, or later"
    assert (len(done.rows), done.timed) == (5, 3)
    assert [row.words and row.words[0].start for row in done.rows[3:]] == [0.1, None]
    with pytest.raises(TrainingError, match=r"none of 5 rows can be aligned"):
        align(read_rows(path)[:5], loaded, options)
    with pytest.raises(TrainingError, match="nothing to align"):
        align(done.rows[3:], loaded, options)


def test_what_is_wrong_in_a_folder_is_reported(loaded: Loaded, tmp_path: Path) -> None:
    corpus(tmp_path, 2)
    (tmp_path / "lost.txt").write_text("go")
    with pytest.raises(TrainingError, match="does not have the files of a known corpus"):
        read_rows(tmp_path)
    (tmp_path / "000.txt").write_text("")
    with pytest.raises(TrainingError, match=r"nothing to align; .*001\.wav: has no text: write"):
        align(read_rows(tmp_path), loaded, AlignOptions(steps=3, width=16))
    (tmp_path / "000.txt").write_text("one")
    done = align(read_rows(tmp_path), loaded, AlignOptions(steps=3, width=16))
    assert [row.path.name for row in done.rows] == ["000.wav"]
    assert [(Path(one.row).name, one.why.partition(":")[0]) for one in done.left_out] == [
        ("001.wav", "has no text"), ("lost.txt", "is a text without a recording"),
    ]  # fmt: skip


def test_a_text_of_another_recording_is_doubted(loaded: Loaded, tmp_path: Path) -> None:
    path, _ = corpus(tmp_path, 24)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[5]["text"] = "go go go go go go go go go go"
    done = align(read_rows(write_manifest(tmp_path, rows)), loaded, QUICK)
    assert "005.wav" in [Path(one.row).name for one in done.doubtful]
    assert len(done.doubtful) < 8
    assert len(done.pictures) == len(done.doubtful)
    assert page_of(done).count("<svg") == len(done.doubtful)
    drawn = done.pictures[[Path(one.row).name for one in done.doubtful].index("005.wav")]
    assert drawn.count(">go</text>") == 10


def test_what_is_written_comes_back_whole(loaded: Loaded, tmp_path: Path) -> None:
    path, _ = corpus(tmp_path, 3)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0] |= {"text": f"{rows[0]['text']} % ?", "id": "first", "turns": [[0.1, 2.0]]}
    done = align(read_rows(write_manifest(tmp_path, rows)), loaded, AlignOptions(steps=3, width=16))
    assert " ".join(word.text for word in done.rows[0].words or ()) == rows[0]["text"]
    assert [one.why for one in done.doubtful] == ["'%' has no letters: write what is said"]
    write_rows(done.rows, tmp_path / "timed.jsonl")
    line = json.loads((tmp_path / "timed.jsonl").read_text().splitlines()[0])
    assert (line["id"], line["turns"]) == ("first", [[0.1, 2.0]])


def test_the_command(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = corpus(tmp_path, 3)
    with path.open("a") as file:
        file.write('{"path": "none.wav", "text": "one"}\n{"path": "001.wav", "words": []}\n')
    out = tmp_path / "timed" / "aligned.jsonl"
    arguments = ["train", "align", str(path), "-o", str(out), "--model", str(tiny_folder)]
    assert main([*arguments, "--steps", "5"]) == 1  # a row was left out
    said = capsys.readouterr().out
    assert said.startswith(f"3 rows now have times, 1 more needed none: {out}\n")
    assert "none.wav: " in said
    rows = read_training_manifest(out)
    assert all(row.words and row.text for row in rows[:3])
    assert len(rows) == 4
    assert rows[0].path == tmp_path / "000.wav"
    report = json.loads((tmp_path / "timed" / "aligned.report.json").read_text())
    assert report["aligned"] == 3
    assert "<svg" not in (tmp_path / "timed" / "aligned.report.html").read_text()
    assert len(report["left_out"]) == 1
    assert load(tiny_folder).config.sample_rate == 1000


def test_nothing_that_is_there_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told before a model is loaded, and sounds are learned from."""
    monkeypatch.setattr("kiku.checkpoint.load", None)
    path, _ = corpus(tmp_path, 1)
    before = path.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(path)
    report = tmp_path / "a.report.html"
    report.write_text("of before")
    for output, code, said in (
        (path, 2, "is a manifest that this command reads"),
        (tmp_path / "link.jsonl", 2, "is a manifest that this command reads"),
        (tmp_path / "a.jsonl", 1, f"{report} already exists; overwrite it with --force"),
        (tmp_path, 1, "is a folder; name a file in it"),
        (Path("/dev/null"), 1, "is not a file"),
        (report / "b.jsonl", 1, f"{report} is a file; -o needs a file in a folder"),
    ):
        force = ["--force"] if code == 2 else []
        assert main(["train", "align", str(path), "-o", str(output), *force]) == code
        assert said in capsys.readouterr().err
    assert (path.read_bytes(), report.read_text()) == (before, "of before")


def test_force_replaces_what_is_there(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = corpus(tmp_path, 3)
    out = tmp_path / "aligned.jsonl"
    for one in (out, out.with_suffix(".report.json")):
        one.write_text("of before")
    options = ["-o", str(out), "--model", str(tiny_folder), "--steps", "3"]
    assert main(["train", "align", str(path), *options, "--force"]) == 0, capsys.readouterr().err
    assert len(read_training_manifest(out)) == 3
    assert json.loads(out.with_suffix(".report.json").read_text())["aligned"] == 3


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_seed_that_is_none(seed: int) -> None:
    with pytest.raises(ConfigError, match=r"seed must be from 0 to 2\^63 - 1, not"):
        AlignOptions(seed=seed)
