"""Rows from JSON lines and from folders; what is wrong is named."""

import json
from pathlib import Path

import pytest

from kiku.errors import TrainingError
from kiku.train.folders import read_rows
from kiku.train.manifest import (
    Row,
    TimedWord,
    problem_of,
    read_manifest,
    refuse_shared_speakers,
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
    (row,) = read_manifest(manifest(tmp_path, line, ""))
    assert row.path == tmp_path / "a/b.wav"
    assert row.words == (TimedWord("hello", 0.3, 0.7), TimedWord("you", 1.0, 2.0))
    assert (row.start, row.end, row.language, row.speaker, row.split) == (
        0.1, 3.0, "en", "ann", "dev",
    )  # fmt: skip
    write_manifest([row, Row(tmp_path / "x.wav", "said")], tmp_path / "back.jsonl")
    back = read_manifest(tmp_path / "back.jsonl")
    assert back == [row, Row(tmp_path / "x.wav", "said")]


def test_words_as_kiku_evaluate_has_them(tmp_path: Path) -> None:
    line = '{"path": "a.wav", "words": [{"text": "hello", "start": 0.3, "end": 0.7}]}'
    (row,) = read_manifest(manifest(tmp_path, line))
    assert row.words == (TimedWord("hello", 0.3, 0.7),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: is no JSON"),
        ("[1]", "not an object"),
        ('{"pth": "a"}', "a key 'pth' that is not known"),
        ('{"text": "a"}', "has no path"),
        ('{"path": "a", "text": 3}', '"text" must be text, not 3'),
        ('{"path": "a", "words": [["a", 1]]}', "words must be"),
        ('{"path": "a", "words": [["a", "1", 2]]}', "word 1 .a. has no times"),
        ('{"path": "a", "words": {"a": 1}}', "words must be"),
        ('{"path": "a", "start": 3, "end": 2, "text": ""}', "ends at 2 s, which is not behind"),
        ('{"path": "a", "start": -1}', '"start" must be seconds'),
    ],
)
def test_a_line_that_is_no_row(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        read_manifest(manifest(tmp_path, line))


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no rows"):
        read_manifest(manifest(tmp_path, ""))
    with pytest.raises(TrainingError, match="cannot be read"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "bad").write_bytes(b"\xff\xfe{}")
    with pytest.raises(TrainingError, match="UTF-8"):
        read_manifest(tmp_path / "bad")


def words(*given: tuple[str, float, float]) -> Row:
    return Row(Path("a.wav"), words=tuple(TimedWord(*one) for one in given))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (words(("a", 1, 2), ("b", 0.5, 3)), "out of order: 'b' begins at 0.5 s, before 'a' at 1 s"),
        (words(("a", 1, 1)), "'a' ends at 1 s, not after"),
        (words((" ", 1, 2)), "an empty word at 1 s"),
        (Row(Path("a.wav")), "no transcript"),
        (Row(Path("a.wav"), words=(TimedWord("a", 1, 2),), start=1.5), "outside the part"),
        (Row(Path("a.wav"), words=(TimedWord("a", 5, 6),), end=4.0), "outside the part"),
    ],
)
def test_rows_that_cannot_be_used(row: Row, said: str) -> None:
    assert said in (problem_of(row) or "")


def test_rows_that_can_be_used() -> None:
    assert problem_of(words(("a", 1, 2), ("b", 1, 3))) is None
    assert problem_of(words()) is None
    assert problem_of(Row(Path("a.wav"), "")) is None


def test_speakers_in_two_splits_are_named() -> None:
    rows = [
        Row(Path("a"), speaker="ann"),
        Row(Path("b"), speaker="bob"),
        Row(Path("c"), speaker="ann", split="dev"),
        Row(Path("d"), split="dev"),
        Row(Path("e")),
    ]
    with pytest.raises(TrainingError, match=r"two splits: ann \(dev and train\); give"):
        refuse_shared_speakers(rows)
    refuse_shared_speakers(rows[:2] + rows[3:])


def test_a_text_without_times_is_refused() -> None:
    rows = [words(("a", 1, 2)), Row(Path("b.wav"), "hello"), Row(Path("c.wav"), "")]
    with pytest.raises(TrainingError, match=r"1 of 3 rows have a text but no times.*b\.wav.*align"):
        refuse_untimed(rows)
    refuse_untimed([rows[0], rows[2]])


def test_librispeech(tmp_path: Path) -> None:
    folder = tmp_path / "dev-clean" / "12" / "34"
    folder.mkdir(parents=True)
    (folder / "12-34.trans.txt").write_text("12-34-0000 HELLO YOU\n12-34-0001 GO\n")
    rows = read_rows(tmp_path)
    assert rows[0] == Row(
        folder / "12-34-0000.flac", "HELLO YOU", speaker="12", split="dev", language="en"
    )
    assert len(rows) == 2


def test_common_voice(tmp_path: Path) -> None:
    head = "client_id\tpath\tsentence\tlocale\n"
    (tmp_path / "train.tsv").write_text(head + 'c1\ta.mp3\tSay "hi.\tfr\n')
    (tmp_path / "dev.tsv").write_text(head + "c2\tb.mp3\tNon.\tfr\n")
    (tmp_path / "validated.tsv").write_text(head + "c1\ta.mp3\tSay\tfr\n")
    assert read_rows(tmp_path) == [
        Row(tmp_path / "clips/a.mp3", 'Say "hi.', speaker="c1", language="fr"),
        Row(tmp_path / "clips/b.mp3", "Non.", speaker="c2", split="dev", language="fr"),
    ]
    (tmp_path / "train.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(TrainingError, match="lacks the column"):
        read_rows(tmp_path)


def test_ljspeech(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("LJ1|in 19|in nineteen\nLJ2|so\n")
    rows = read_rows(tmp_path)
    assert [(row.path, row.text, row.speaker) for row in rows] == [
        (tmp_path / "wavs/LJ1.wav", "in nineteen", tmp_path.name),
        (tmp_path / "wavs/LJ2.wav", "so", tmp_path.name),
    ]


def test_kaldi(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("r1 talk.wav\nr2 /elsewhere/b.wav\n")
    (tmp_path / "text").write_text("u1 hello you\nu2 go\nr2 so\n")
    (tmp_path / "segments").write_text("u1 r1 0.5 2.0\nu2 r1 2.0 3.5\n")
    (tmp_path / "utt2spk").write_text("u1 ann\nu2 bob\nr2 cid\n")
    (tmp_path / "ctm").write_text("r1 1 1.1 0.2 you\nr1 1 0.6 0.3 hello\nr1 1 2.2 0.4 go\n")
    rows = read_rows(tmp_path)
    assert rows == [
        Row(
            tmp_path / "talk.wav", "hello you",
            (TimedWord("hello", 0.6, 0.9), TimedWord("you", 1.1, 1.3)), 0.5, 2.0, speaker="ann",
        ),
        Row(
            tmp_path / "talk.wav", "go", (TimedWord("go", 2.2, 2.6),), 2.0, 3.5, speaker="bob",
        ),
        Row(Path("/elsewhere/b.wav"), "so", speaker="cid"),
    ]  # fmt: skip
    (tmp_path / "wav.scp").write_text("r1 sph2pipe a.sph |\n")
    with pytest.raises(TrainingError, match="with a command"):
        read_rows(tmp_path)


def test_a_folder_of_no_known_shape(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no folder of a known shape"):
        read_rows(tmp_path)
