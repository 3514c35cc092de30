"""Rows from JSON lines and from folders; what is wrong is named."""

import json
from pathlib import Path

import pytest

from kiku.errors import TrainingError
from kiku.train.folders import read_rows
from kiku.train.manifest import (
    TimedWord,
    TrainingRow,
    problem_of,
    read_training_manifest,
    refuse_shared_splits,
    refuse_untimed,
    write_manifest,
)


def manifest(folder: Path, *lines: str) -> Path:
    path = folder / "m.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_a_row_and_back(tmp_path: Path) -> None:
    line = json.dumps({
        "path": "a/b.wav", "words": [["hello", 0.3, 0.7], ["you", 1, 2]], "start": 0.1, "end": 3,
        "language": "en", "speaker": "ann", "split": "dev",
    })  # fmt: skip
    (row,) = read_training_manifest(manifest(tmp_path, line, ""))
    assert row.path == tmp_path / "a/b.wav"
    assert row.words == (TimedWord("hello", 0.3, 0.7), TimedWord("you", 1.0, 2.0))
    assert (row.start, row.end, row.language, row.speaker, row.split) == (
        0.1, 3.0, "en", "ann", "dev",
    )  # fmt: skip
    write_manifest([row, TrainingRow(tmp_path / "x.wav", "said")], tmp_path / "back.jsonl")
    back = read_training_manifest(tmp_path / "back.jsonl")
    assert back == [row, TrainingRow(tmp_path / "x.wav", "said")]
    both = TrainingRow(tmp_path / "x.wav", "said", ())  # wrong, and not to become silence
    write_manifest([both], tmp_path / "back.jsonl")
    assert read_training_manifest(tmp_path / "back.jsonl") == [both]


def test_words_as_kiku_evaluate_has_them(tmp_path: Path) -> None:
    line = '{"path": "a.wav", "words": [{"text": "hello", "start": 0.3, "end": 0.7}]}'
    (row,) = read_training_manifest(manifest(tmp_path, line))
    assert row.words == (TimedWord("hello", 0.3, 0.7),)


def test_what_is_for_others_is_left_as_it_is(tmp_path: Path) -> None:
    others = {"group": "phone", "speaker_id": 3, "sentence_id": "x", "idx": 1, "Language": "en"}
    line = json.dumps({"path": "a.wav", "text": "one", "language": "en", **others})
    (row,) = read_training_manifest(manifest(tmp_path, line))
    assert row == TrainingRow(tmp_path / "a.wav", "one", language="en")
    write_manifest([row], tmp_path / "back.jsonl")
    assert others.items() <= json.loads((tmp_path / "back.jsonl").read_text()).items()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: is not JSON"),
        ("[1]", "not an object"),
        ('{"pth": "a"}', "a key 'pth' that is not known; did you mean 'path'"),
        ('{"path": "a", "Text": "b"}', "a key 'Text' that is not known; did you mean 'text'"),
        ('{"path": "a", "word": []}', "did you mean 'words'"),
        ('{"path": "a", "text": "b", "speakers": "c"}', "did you mean 'speaker'"),
        ('{"text": "a"}', "has no path"),
        ('{"path": "a", "text": 3}', '"text" must be text, not 3'),
        ('{"path": "a", "words": [["a", 1]]}', "words must be"),
        ('{"path": "a", "words": [["a", "1", 2]]}', "word 1 .a. has no times"),
        ('{"path": "a", "words": {"a": 1}}', "words must be"),
        ('{"path": "a", "start": 3, "end": 2, "text": ""}', "ends at 2 s, which is not after"),
        ('{"path": "a", "start": -1}', '"start" must be seconds'),
    ],
)
def test_a_line_that_is_no_row(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        read_training_manifest(manifest(tmp_path, line))


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="contains no rows"):
        read_training_manifest(manifest(tmp_path, ""))
    with pytest.raises(TrainingError, match="cannot be read"):
        read_training_manifest(tmp_path / "none.jsonl")
    (tmp_path / "bad").write_bytes(b"\xff\xfe{}")
    with pytest.raises(TrainingError, match="UTF-8"):
        read_training_manifest(tmp_path / "bad")


def words(*given: tuple[str, float, float]) -> TrainingRow:
    return TrainingRow(Path("a.wav"), words=tuple(TimedWord(*one) for one in given))


def said(text: str, *timed: str) -> TrainingRow:
    return TrainingRow(
        Path("a.wav"), text, tuple(TimedWord(word, i, i + 1) for i, word in enumerate(timed))
    )


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (words(("a", 1, 2), ("b", 0.5, 3)), "out of order: 'b' begins at 0.5 s, before 'a' at 1 s"),
        (words(("a", 1, 1)), "'a' ends at 1 s, not after"),
        (words((" ", 1, 2)), "an empty word at 1 s"),
        (TrainingRow(Path("a.wav")), "no transcript"),
        (TrainingRow(Path("a.wav"), words=(), fault="has two texts"), "has two texts"),
        (TrainingRow(Path("a.wav"), "yes no", words=()), "a text, but an empty list of words"),
        (said("yes no", "yes", "go"), "'go' at 1 s is not the next word of its text"),
        (said("yes no", "yes", "no", "go"), "'go' at 2 s is not the next word of its text"),
        (said("yes no", "yes"), "its text goes on after 'yes', its last word"),
        (TrainingRow(Path("a.wav"), words=(TimedWord("a", 1, 2),), start=1.5), "outside the part"),
        (TrainingRow(Path("a.wav"), words=(TimedWord("a", 5, 6),), end=4.0), "outside the part"),
    ],
)
def test_rows_that_cannot_be_used(row: TrainingRow, why: str) -> None:
    assert why in (problem_of(row) or "")


def test_rows_that_can_be_used() -> None:
    assert problem_of(words(("a", 1, 2), ("b", 1, 3))) is None
    assert problem_of(words()) is None
    assert problem_of(TrainingRow(Path("a.wav"), "")) is None
    assert problem_of(said("caf\u00e9", "cafe\u0301")) is None
    # times of an aligner that knows letters only
    assert problem_of(said("Yes - no, don't!", "yes", "no", "don", "t")) is None


def test_speakers_in_two_splits_are_named() -> None:
    rows = [
        TrainingRow(Path("a"), speaker="ann"),
        TrainingRow(Path("b"), speaker="bob"),
        TrainingRow(Path("c"), speaker="ann", split="dev"),
        TrainingRow(Path("d"), split="dev"),
        TrainingRow(Path("e")),
    ]
    with pytest.raises(TrainingError, match=r"two splits: ann \(dev and train\); put"):
        refuse_shared_splits(rows)
    refuse_shared_splits(rows[:2] + rows[3:])


def part(path: str, start: float, end: float | None, split: str) -> TrainingRow:
    return TrainingRow(Path(path), start=start, end=end, split=split)


def test_sound_in_two_splits_is_named() -> None:
    first, second = part("a.wav", 0, 2, "train"), part("a.wav", 2, None, "dev")
    refuse_shared_splits([second, first, part("a.wav", 1, 2, "train")])
    refuse_shared_splits([part("a.wav", 0, 0.1 + 0.2, "train"), part("a.wav", 0.3, 1, "dev")])
    for path, start, end in (("b/../a.wav", 1.5, 3), ("a.wav", 0, None), ("a.wav", 0.5, 1)):
        other = part(path, start, end, "dev")
        with pytest.raises(TrainingError, match=r"a\.wav.* is in two splits, (train|dev) and"):
            refuse_shared_splits([second, first, other])


def test_a_text_without_times_is_refused() -> None:
    rows = [words(("a", 1, 2)), TrainingRow(Path("b.wav"), "hello"), TrainingRow(Path("c.wav"), "")]
    with pytest.raises(TrainingError, match=r"1 of 3 rows have a text but no times.*b\.wav.*align"):
        refuse_untimed(rows)
    refuse_untimed([rows[0], rows[2]])


def test_a_folder_in_capitals_is_read_in_small_letters_and_a_manifest_is_not(
    tmp_path: Path,
) -> None:
    told: list[str] = []
    (tmp_path / "a.wav").touch()
    (tmp_path / "a.txt").write_text("OUI")
    assert read_rows(tmp_path, told.append) == [TrainingRow(tmp_path / "a.wav", "oui")]
    assert told == [f"{tmp_path} has all its texts in capitals: they are read in small letters"]
    path = manifest(tmp_path, '{"path": "a.wav", "text": "OUI"}')
    assert read_rows(path, told.append) == [TrainingRow(tmp_path / "a.wav", "OUI")]
    assert len(told) == 1


@pytest.mark.parametrize("split", ["../out", "test/clean", ".hidden", "a b"])
def test_a_split_begins_the_name_of_a_file(tmp_path: Path, split: str) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps({"path": "a", "words": [], "split": split}))
    with pytest.raises(TrainingError, match=r"line 1: has the split .* only letters"):
        read_training_manifest(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_text('{"path": "a", "words": [], "split": "dev-clean.2"}')
    assert read_training_manifest(tmp_path / "m.jsonl")[0].split == "dev-clean.2"
