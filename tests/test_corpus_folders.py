"""Folders of corpora: what is found, what is wrong with the rest, and that evaluating and training
find the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kiku.corpus_folders import BadCorpus, CorpusRow, read_corpus
from kiku.errors import InputError, TrainingError
from kiku.evaluate import read_manifests
from kiku.train.folders import read_rows
from kiku.train.manifest import problem_of

NO_FILE = "there is no such file, but a text of it"
HEAD = "client_id\tpath\tsentence\tlocale\n"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def librispeech(folder: Path) -> Path:
    inner = folder / "dev-clean" / "12" / "34"
    touch(inner, "12-34-0000.flac", "12-34-0001.wav", "12-35-0000.flac", ".hidden.flac")
    lines = "12-34-0000 HELLO  YOU\n\n12-34-0001 GO\n12-34-0002 LOST\n"
    (inner / "12-34.trans.txt").write_text(lines)
    return folder


def common_voice(folder: Path) -> Path:
    touch(folder / "clips", "a.mp3", "b.mp3", "in_no_table.mp3")
    (folder / "train.tsv").write_text(HEAD + 'c1\ta.mp3\tSay "hi.\tfr\nc3\tlost.mp3\tOui.\tfr\n')
    (folder / "dev.tsv").write_text(HEAD + "c2\tb.mp3\tNon.\tfr\n")
    (folder / "validated.tsv").write_text(HEAD + "c1\ta.mp3\tSay\tfr\n")
    return folder


def ljspeech(folder: Path) -> Path:
    touch(folder / "wavs", "LJ1.wav", "LJ.2.wav", "LJ3.wav")
    (folder / "metadata.csv").write_text("LJ1|in 19|in nineteen\n\nLJ.2|so\nLJ4|lost\n")
    return folder


def kaldi(folder: Path) -> Path:
    touch(folder, "talk.wav", "sub/b.wav")
    return write(
        folder,
        **{"wav.scp": "r1 talk.wav\nr2 sub/b.wav\nr3 lost.wav\n"},
        text="u1 hello you\nu2 go\nr2 so\nr3 no\nback yes\n",
        segments="u1 r1 0.5 2.0\nu2 r1 2.0 3.5\nquiet r1 4 -1\nback r1 3 2.5\n",
        utt2spk="u1 ann\nu2 bob\nr2 cid\n",
        ctm="r1 1 1.1 0.2 you\nr1 1 0.6 0.3 hello\nr1 1 2.2 0.4 go\n",
    )


def texts_beside(folder: Path) -> Path:
    touch(folder, "a.wav", "b/c.MP3", "b/still.flac", "b/untold.flac", "b/notes.pdf", ".d.wav")
    touch(folder, "broken.wav")
    for name, text in (("a", "Hello\n you "), ("b/c", "Go."), ("b/still", ""), (".d", "no")):
        (folder / f"{name}.txt").write_text(text)
    (folder / "alone.txt").write_text("lost")
    (folder / "broken.txt").write_bytes(b"caf\xe9")
    return folder


Shape = Callable[[Path], Path]
SHAPES: tuple[Shape, ...] = (librispeech, common_voice, ljspeech, kaldi, texts_beside)


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluating_and_training_find_the_same(shape: Shape, tmp_path: Path) -> None:
    folder = shape(tmp_path / "corpus")
    told: list[str] = []
    rows, heard = read_rows(folder, told.append), read_manifests([folder])
    learned = [row for row in rows if not row.fault]
    assert [
        (
            row.path, row.text, row.start, row.end, row.speaker, row.language, row.split,
            [(word.text, word.start, word.end) for word in row.words or ()],
        )
        for row in learned
    ] == [
        (
            one.path, one.text, one.start_s, one.end_s, one.fields.get("speaker"),
            one.fields.get("language"), one.fields.get("split", "train"),
            [(word.text, word.start, word.end) for word in one.words],
        )
        for one in heard.utterances
    ]  # fmt: skip
    assert learned
    left_out = [(row.path, problem_of(row)) for row in rows if row.fault]
    assert left_out
    assert [why for _, why in left_out] == [one.message for one in heard.problems]
    for (path, _), one in zip(left_out, heard.problems, strict=True):
        assert one.where.startswith(path.relative_to(folder).as_posix())
    assert told == list(heard.notes)


@pytest.mark.parametrize("content", [{}, {"metadata.csv": ""}, {"metadata.csv": "a"}])
def test_evaluating_and_training_refuse_the_same_folders(
    content: dict[str, str], tmp_path: Path
) -> None:
    folder = write(tmp_path / "corpus", **content)
    with pytest.raises(TrainingError) as training:
        read_rows(folder)
    with pytest.raises(InputError) as evaluating:
        read_manifests([folder])
    assert str(training.value) == str(evaluating.value)


def test_librispeech(tmp_path: Path) -> None:
    found = read_corpus(librispeech(tmp_path))
    inner = tmp_path / "dev-clean" / "12" / "34"

    def row(name: str, text: str | None, fault: str = "") -> CorpusRow:
        return CorpusRow(inner / name, text, speaker="12", split="dev", language="en", fault=fault)

    why = "has no text: write what is said to 12-35-0000.txt, and nothing if nothing is said"
    assert found.rows == (
        row("12-34-0000.flac", "hello you"),
        row("12-34-0001.wav", "go"),
        row("12-34-0002.flac", None, NO_FILE),
        CorpusRow(inner / "12-35-0000.flac", fault=why),
    )
    assert found.notes == (
        f"{tmp_path} has all its texts in capitals: they are read in small letters",
    )


def test_a_split_is_the_name_of_a_folder_inside_the_corpus(tmp_path: Path) -> None:
    touch(tmp_path, "test-data/mine/1-2-0000.flac", "test-data/mine/talk.wav")
    (tmp_path / "test-data/mine/1-2.trans.txt").write_text("1-2-0000 go\ntalk no\n")
    assert [(row.split, row.speaker) for row in read_corpus(tmp_path / "test-data/mine").rows] == [
        (None, "1"), (None, None),
    ]  # fmt: skip
    assert {row.split for row in read_corpus(tmp_path / "test-data").rows} == {"test"}


def test_a_list_that_is_no_text_costs_its_chapter_alone(tmp_path: Path) -> None:
    librispeech(tmp_path)
    bad = tmp_path / "1-2.trans.txt"
    bad.write_bytes(b"1-2-0000 caf\xe9")
    (first, *others) = read_corpus(tmp_path).rows
    assert (first.path, first.text) == (bad, None)
    assert "is not text in UTF-8" in first.fault
    assert sum(not row.fault for row in others) == 2


def test_common_voice(tmp_path: Path) -> None:
    assert read_corpus(common_voice(tmp_path)).rows == (
        CorpusRow(tmp_path / "clips/a.mp3", 'Say "hi.', speaker="c1", split="train", language="fr"),
        CorpusRow(
            tmp_path / "clips/lost.mp3", speaker="c3", split="train", language="fr", fault=NO_FILE
        ),
        CorpusRow(tmp_path / "clips/b.mp3", "Non.", speaker="c2", split="dev", language="fr"),
    )
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).unlink()
    (row,) = read_corpus(tmp_path).rows
    assert (row.text, row.split) == ("Say", None)
    (tmp_path / "train.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(BadCorpus, match="line 2, lacks the column path or sentence"):
        read_corpus(tmp_path)


def test_of_a_corpus_without_some_splits_only_those_asked_for_are_told(tmp_path: Path) -> None:
    common_voice(tmp_path)
    found = read_manifests([tmp_path], only={"split": "dev"})
    assert ([one.text for one in found.utterances], found.problems) == (["Non."], ())
    assert len(read_manifests([tmp_path], only={"split": "train"}).problems) == 1


def test_ljspeech(tmp_path: Path) -> None:
    me, wavs = tmp_path.name, tmp_path / "wavs"
    assert read_corpus(ljspeech(tmp_path)).rows == (
        CorpusRow(wavs / "LJ1.wav", "in nineteen", speaker=me),
        CorpusRow(wavs / "LJ.2.wav", "so", speaker=me),
        CorpusRow(wavs / "LJ4.wav", speaker=me, fault=NO_FILE),
        CorpusRow(wavs / "LJ3.wav", speaker=me, fault="has no text: metadata.csv does not name it"),
    )


def test_texts_beside_their_recordings(tmp_path: Path) -> None:
    rows = read_corpus(texts_beside(tmp_path)).rows
    assert [row for row in rows if not row.fault] == [
        CorpusRow(tmp_path / "a.wav", "Hello you"),
        CorpusRow(tmp_path / "b/c.MP3", "Go."),
        CorpusRow(tmp_path / "b/still.flac", ""),
    ]
    assert [(row.path.name, row.fault.partition(":")[0]) for row in rows if row.fault] == [
        ("alone.txt", "is a text without a recording"),
        ("untold.flac", "has no text"),
        ("broken.wav", f"{tmp_path / 'broken.txt'} is not text in UTF-8 (see byte 3)"),
    ]


def test_kaldi(tmp_path: Path) -> None:
    talk = tmp_path / "talk.wav"
    assert read_corpus(kaldi(tmp_path)).rows == (
        CorpusRow(
            talk, "hello you", (("hello", 0.6, 0.9), ("you", 1.1, 1.3)), 0.5, 2.0, speaker="ann"
        ),
        CorpusRow(talk, "go", (("go", 2.2, 2.6),), 2.0, 3.5, speaker="bob"),
        CorpusRow(tmp_path / "sub/b.wav", "so", speaker="cid"),
        CorpusRow(tmp_path / "lost.wav", fault=NO_FILE),
        CorpusRow(
            talk, start=3, end=2.5, fault="ends at 2.5 s, which is not after its start at 3 s"
        ),
        CorpusRow(talk, start=4, fault="has no text: there is no line quiet in text"),
    )
    assert [one.id for one in read_manifests([tmp_path]).utterances] == [
        "talk.wav 0.5-2", "talk.wav 2-3.5", "sub/b.wav",
    ]  # fmt: skip


def small_kaldi(folder: Path, **files: str) -> Path:
    touch(folder, "talk.wav")
    return write(folder, **{"wav.scp": "rec1 talk.wav\n", **files})


def test_times_by_segment_count_from_its_beginning(tmp_path: Path) -> None:
    folder = small_kaldi(
        tmp_path, text="utt1\tyes no\n", segments="utt1 rec1 1.0 5.0\n",
        ctm="utt1 1 0.5 0.3 yes\nutt1 1 1.2 0.3 no\n",
    )  # fmt: skip
    (row,) = read_corpus(folder).rows
    assert row.words == (("yes", 1.5, 1.8), ("no", 2.2, 2.5))


@pytest.mark.parametrize("told", ["yes no go", "no yes", ""])
def test_a_text_that_its_times_do_not_spell_keeps_its_words(tmp_path: Path, told: str) -> None:
    ctm = "rec1 1 0.5 0.3 yes\nrec1 1 1.2 0.3 no\n"
    (row,) = read_corpus(small_kaldi(tmp_path, text=f"rec1 {told}\n", ctm=ctm)).rows
    assert (row.text, row.words, row.fault) == (told, None, "")


def test_two_texts_of_one_recording_are_no_two_recordings(tmp_path: Path) -> None:
    scp = "rec1 talk.wav\nrec2 talk.wav\n"
    folder = small_kaldi(tmp_path, text="rec1 yes\nrec2 no\n", **{"wav.scp": scp})
    first, second = read_corpus(folder).rows
    assert (first.text, first.fault) == ("yes", "")
    assert (second.text, second.fault) == (None, "has two texts: leave one out")


def test_a_corpus_in_capitals_is_read_in_small_letters(tmp_path: Path) -> None:
    ctm = "rec1 1 0.5 0.3 OUI\nrec1 1 1.2 0.3 ÇA\n"
    found = read_corpus(small_kaldi(tmp_path, text="rec1 OUI ÇA\n", ctm=ctm))
    assert found.rows[0].text == "oui ça"
    assert [text for text, _, _ in found.rows[0].words or ()] == ["oui", "ça"]
    assert len(found.notes) == 1
    for text in ("OUI Ça", "はい"):
        found = read_corpus(small_kaldi(tmp_path, text=f"rec1 {text}\n"))
        assert (found.rows[0].text, found.notes) == (text, ())


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("text", b"rec1 caf\xe9\n", "text is not text in UTF-8"),
        ("text", b"rec2 yes\n", "text names rec2, which is missing in wav.scp"),
        ("wav.scp", b"rec1 sph2pipe a.sph |\n", "with a command"),
        ("segments", b"u1 rec1 0.5 2.0\nu2 rec1 x 2\n", "segments, line 2: 'x' is not a number"),
        ("segments", b"u1 rec1 -1 2\n", "'-1' is not a number of seconds from 0 on"),
        ("segments", b"u1 rec1\n", "segments, line 1, must contain name recording start end"),
        ("ctm", b"rec1 1 0.5 nan yes\n", "ctm, line 1: 'nan' is not a number"),
        ("ctm", b"rec1 1 0.5\n", "ctm, line 1, must contain name channel"),
    ],
)
def test_a_bad_line_of_a_folder_is_named(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    folder = small_kaldi(tmp_path, text="rec1 yes\n")
    (folder / name).write_bytes(data)
    with pytest.raises(BadCorpus, match=said):
        read_corpus(folder)


def test_a_bad_table_is_named(tmp_path: Path) -> None:
    for sounds in ("wavs", "clips"):
        (tmp_path / sounds).mkdir()
    (tmp_path / "metadata.csv").write_bytes(b"a|caf\xe9\n")
    with pytest.raises(BadCorpus, match=r"metadata\.csv is not text in UTF-8"):
        read_corpus(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    head = HEAD.encode()
    (tmp_path / "train.tsv").write_bytes(head + b"c\ta.mp3\tcaf\xe9\tfr\n")
    with pytest.raises(BadCorpus, match=r"train\.tsv is not text in UTF-8"):
        read_corpus(tmp_path)
    long = b"x" * 200_000  # longer than a cell may be
    (tmp_path / "train.tsv").write_bytes(head + b"c\ta.mp3\t" + long + b"\tfr\n")
    with pytest.raises(BadCorpus, match=r"train\.tsv, line 2, cannot be read"):
        read_corpus(tmp_path)
    (tmp_path / "train.tsv").unlink()
    (tmp_path / "metadata.csv").mkdir()
    with pytest.raises(BadCorpus, match=r"metadata\.csv cannot be read \(is a directory\)"):
        read_corpus(tmp_path)


def test_what_the_system_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ljspeech(tmp_path)
    (tmp_path / "metadata.csv").write_text(f"LJ1|a\u2028b\n{300 * 'x'}|too long\n")
    first, second, *_ = read_corpus(tmp_path).rows
    assert (first.text, second.fault) == ("a b", "cannot be read (file name too long)")

    def denied(folder: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("kiku.corpus_folders._SHAPES", ((denied, None),))
    with pytest.raises(BadCorpus, match=r"cannot be read \(permission denied\)"):
        read_corpus(tmp_path)


def test_the_text_of_ljspeech_is_the_last_one_that_is_there(tmp_path: Path) -> None:
    touch(tmp_path / "wavs", "a.wav", "b.wav", "c.wav", "d.wav")
    (tmp_path / "metadata.csv").write_text(
        "a|zero one|\nb|in 19|in nineteen|ann\nc|\nd|go| \n/|x\n"
    )
    rows = {row.path.stem: row.text for row in read_corpus(tmp_path).rows if not row.fault}
    assert rows == {"a": "zero one", "b": "in nineteen", "c": "", "d": "go"}


@pytest.mark.parametrize("name", ["metadata.csv", "train.tsv", "validated.tsv"])
def test_a_table_without_its_folder_of_sounds_is_not_that_corpus(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "a.wav")
    write(tmp_path, **{"a.txt": "go", name: "file_name,transcription\n"})
    assert [row.text for row in read_corpus(tmp_path).rows] == ["go"]


def test_one_table_of_common_voice_is_enough_and_splits_may_share_a_clip(tmp_path: Path) -> None:
    touch(tmp_path / "clips", "a.mp3")
    for split in ("test", "dev"):
        (tmp_path / f"{split}.tsv").write_text(HEAD + "c1\ta.mp3\tOui\tfr\n")
        rows = read_corpus(tmp_path).rows
        assert not any(row.fault for row in rows)
    assert [row.split for row in rows] == ["dev", "test"]


def test_a_part_of_librispeech_belongs_to_its_split(tmp_path: Path) -> None:
    librispeech(tmp_path / "test-data")
    inner = tmp_path / "test-data" / "dev-clean" / "12"
    for folder in (inner, inner / "34"):
        assert {row.split for row in read_corpus(folder).rows if row.text} == {"dev"}
    (tmp_path / "link").symlink_to(inner)
    assert {row.split for row in read_corpus(tmp_path / "link").rows if row.text} == {"dev"}


@pytest.mark.parametrize(
    ("texts", "read"),
    [
        (["你好 OK", "再见"], "你好 OK"),
        (["DIE STRAßE", "JA"], "die straße"),
        (["NO", "NHK 4"], "no"),
    ],
)
def test_capitals_are_those_of_most_letters(tmp_path: Path, texts: list[str], read: str) -> None:
    for number, text in enumerate(texts):
        touch(tmp_path, f"{number}.wav")
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    assert read_corpus(tmp_path).rows[0].text == read


def test_hidden_folders_are_left_out_and_suffixes_may_be_capitals(tmp_path: Path) -> None:
    touch(tmp_path, "a.WAV", ".kept/a.wav", "b/.kept/c.wav")
    for name in ("a.TXT", ".kept/a.txt", "b/.kept/c.txt"):
        (tmp_path / name).write_text("go")
    assert [(row.path.name, row.text) for row in read_corpus(tmp_path).rows] == [("a.WAV", "go")]


def test_a_folder_of_no_known_shape(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    with pytest.raises(BadCorpus, match="does not have the files of a known corpus"):
        read_corpus(tmp_path)
