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


def test_librispeech(tmp_path: Path) -> None:
    folder = tmp_path / "dev-clean" / "12" / "34"
    folder.mkdir(parents=True)
    (folder / "12-34.trans.txt").write_text("12-34-0000 HELLO YOU\n12-34-0001 GO\n")
    rows = read_rows(tmp_path)
    assert rows[0] == TrainingRow(
        folder / "12-34-0000.flac", "hello you", speaker="12", split="dev", language="en"
    )
    assert len(rows) == 2


def test_what_nobody_wrote_down_is_told(tmp_path: Path) -> None:
    libri = tmp_path / "libri" / "1" / "2"
    libri.mkdir(parents=True)
    (libri / "1-2.trans.txt").write_text("1-2-0000 GO\n")
    for name in ("1-2-0000.flac", "1-2-0001.flac", "1-3-0000.flac"):
        (libri / name).touch()
    kaldi = tmp_path / "kaldi"
    kaldi.mkdir()
    (kaldi / "wav.scp").write_text("r1 a.wav\nr2 b.wav\n")
    (kaldi / "text").write_text("r1 go\n")
    lj = tmp_path / "lj"
    (lj / "wavs").mkdir(parents=True)
    (lj / "metadata.csv").write_text("a|go\n")
    for name in ("a.wav", "b.wav"):
        (lj / "wavs" / name).touch()
    for folder, without_text in (
        (tmp_path / "libri", libri / "1-2-0001.flac"), (kaldi, kaldi / "b.wav"),
        (lj, lj / "wavs" / "b.wav"),
    ):  # fmt: skip
        said, unsaid = read_rows(folder)
        assert said.text == "go"
        assert unsaid.path == without_text
        assert problem_of(unsaid) == "no transcript"


def test_common_voice(tmp_path: Path) -> None:
    head = "client_id\tpath\tsentence\tlocale\n"
    (tmp_path / "train.tsv").write_text(head + 'c1\ta.mp3\tSay "hi.\tfr\n')
    (tmp_path / "dev.tsv").write_text(head + "c2\tb.mp3\tNon.\tfr\n")
    (tmp_path / "validated.tsv").write_text(head + "c1\ta.mp3\tSay\tfr\n")
    assert read_rows(tmp_path) == [
        TrainingRow(tmp_path / "clips/a.mp3", 'Say "hi.', speaker="c1", language="fr"),
        TrainingRow(tmp_path / "clips/b.mp3", "Non.", speaker="c2", split="dev", language="fr"),
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


def test_texts_beside_their_recordings(tmp_path: Path) -> None:
    for name in ("a.wav", "b/c.MP3", "b/still.flac", "b/untold.flac", "b/notes.pdf", ".d.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name, text in (("a", "Hello\n you "), ("b/c", "Go."), ("b/still", ""), (".d", "no")):
        (tmp_path / f"{name}.txt").write_text(text)
    assert read_rows(tmp_path) == [
        TrainingRow(tmp_path / "a.wav", "Hello you"),
        TrainingRow(tmp_path / "b/c.MP3", "Go."),
        TrainingRow(tmp_path / "b/still.flac", ""),
        TrainingRow(tmp_path / "b/untold.flac"),
    ]


def test_kaldi(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("r1 talk.wav\nr2 /elsewhere/b.wav\n")
    (tmp_path / "text").write_text("u1 hello you\nu2 go\nr2 so\n")
    (tmp_path / "segments").write_text("u1 r1 0.5 2.0\nu2 r1 2.0 3.5\n")
    (tmp_path / "utt2spk").write_text("u1 ann\nu2 bob\nr2 cid\n")
    (tmp_path / "ctm").write_text("r1 1 1.1 0.2 you\nr1 1 0.6 0.3 hello\nr1 1 2.2 0.4 go\n")
    rows = read_rows(tmp_path)
    assert rows == [
        TrainingRow(
            tmp_path / "talk.wav", "hello you",
            (TimedWord("hello", 0.6, 0.9), TimedWord("you", 1.1, 1.3)), 0.5, 2.0, speaker="ann",
        ),
        TrainingRow(
            tmp_path / "talk.wav", "go", (TimedWord("go", 2.2, 2.6),), 2.0, 3.5, speaker="bob",
        ),
        TrainingRow(Path("/elsewhere/b.wav"), "so", speaker="cid"),
    ]  # fmt: skip
    (tmp_path / "wav.scp").write_text("r1 sph2pipe a.sph |\n")
    with pytest.raises(TrainingError, match="with a command"):
        read_rows(tmp_path)


def kaldi(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "wav.scp").write_text("rec1 talk.wav\n")
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_times_by_segment_count_from_its_beginning(tmp_path: Path) -> None:
    folder = kaldi(
        tmp_path, text="utt1\tyes no\n", segments="utt1 rec1 1.0 5.0\n",
        ctm="utt1 1 0.5 0.3 yes\nutt1 1 1.2 0.3 no\n",
    )  # fmt: skip
    (row,) = read_rows(folder)
    assert row.words == (TimedWord("yes", 1.5, 1.8), TimedWord("no", 2.2, 2.5))
    assert problem_of(row) is None


def test_a_corpus_in_capitals_is_read_in_small_letters(tmp_path: Path) -> None:
    told: list[str] = []
    ctm = "rec1 1 0.5 0.3 OUI\nrec1 1 1.2 0.3 ÇA\n"
    folder = kaldi(tmp_path, text="rec1 OUI ÇA\n", ctm=ctm)
    (row,) = read_rows(folder, told.append)
    assert row.text == "oui ça"
    assert [word.text for word in row.words or ()] == ["oui", "ça"]
    assert told == [f"{folder} has all its texts in capitals: they are read in small letters"]
    for text in ("OUI Ça", "はい"):
        kaldi(tmp_path, text=f"rec1 {text}\n")
        assert read_rows(folder, told.append)[0].text == text
    (tmp_path / "m.jsonl").write_text('{"path": "a.wav", "text": "OUI"}')
    assert read_rows(tmp_path / "m.jsonl", told.append)[0].text == "OUI"
    assert len(told) == 1


@pytest.mark.parametrize("told", ["yes no go", "no yes", ""])
def test_a_text_that_its_times_do_not_spell_keeps_its_words(tmp_path: Path, told: str) -> None:
    folder = kaldi(tmp_path, text=f"rec1 {told}\n", ctm="rec1 1 0.5 0.3 yes\nrec1 1 1.2 0.3 no\n")
    (row,) = read_rows(folder)
    assert (row.text, row.words) == (told, None)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("text", b"rec1 caf\xe9\n", "text is not text in UTF-8"),
        ("segments", b"u1 rec1 0.5 2.0\nu2 rec1 x 2\n", "segments, line 2: 'x' is not a number"),
        ("segments", b"u1 rec1\n", "segments, line 1, must contain name recording start end"),
        ("ctm", b"rec1 1 0.5 nan yes\n", "ctm, line 1: 'nan' is not a number"),
        ("ctm", b"rec1 1 0.5\n", "ctm, line 1, must contain name channel"),
    ],
)
def test_a_bad_line_of_a_folder_is_named(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    folder = kaldi(tmp_path, text="rec1 yes\n")
    (folder / name).write_bytes(data)
    with pytest.raises(TrainingError, match=said):
        read_rows(folder)


def test_a_bad_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(b"a|caf\xe9\n")
    with pytest.raises(TrainingError, match=r"metadata\.csv is not text in UTF-8"):
        read_rows(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    head = b"client_id\tpath\tsentence\tlocale\n"
    (tmp_path / "train.tsv").write_bytes(head + b"c\ta.mp3\tcaf\xe9\tfr\n")
    with pytest.raises(TrainingError, match=r"train\.tsv is not text in UTF-8"):
        read_rows(tmp_path)
    long = b"x" * 200_000  # longer than a cell may be
    (tmp_path / "train.tsv").write_bytes(head + b"c\ta.mp3\t" + long + b"\tfr\n")
    with pytest.raises(TrainingError, match=r"train\.tsv, line 2, cannot be read"):
        read_rows(tmp_path)


@pytest.mark.parametrize("split", ["../out", "test/clean", ".hidden", "a b"])
def test_a_split_begins_the_name_of_a_file(tmp_path: Path, split: str) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps({"path": "a", "words": [], "split": split}))
    with pytest.raises(TrainingError, match=r"line 1: has the split .* only letters"):
        read_training_manifest(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_text('{"path": "a", "words": [], "split": "dev-clean.2"}')
    assert read_training_manifest(tmp_path / "m.jsonl")[0].split == "dev-clean.2"


def test_a_folder_of_no_known_shape(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="does not have the files of a known corpus"):
        read_rows(tmp_path)
