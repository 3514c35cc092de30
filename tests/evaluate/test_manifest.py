"""Manifests and folders: what is used of them, and what is told of the rest."""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.errors import InputError
from kiku.evaluate import Manifest, read_manifests
from kiku.evaluate.manifest import Span, SpokenWord

Make = Callable[..., Path]
GOOD = {"path": "good.wav", "text": "one"}


@pytest.fixture(autouse=True)
def sound(tmp_path: Path) -> None:
    (tmp_path / "good.wav").write_bytes(b"sound")


def problems(manifest: Path) -> list[str]:
    return [one.message for one in read_manifests([manifest]).problems]


def test_a_row_is_an_utterance(manifest: Make, tmp_path: Path) -> None:
    words = [{"text": "one", "start": 0, "end": 0.5}, {"word": "two", "start": 0.5, "end": 1}]
    row = {
        **GOOD, "text": " one two ", "words": words, "turns": [{"start": 0, "end": 1}],
        "start": 1.5, "end": 3, "speaker": "ann", "language": "en", "level": 3, "of": [1],
    }  # fmt: skip
    (one,) = read_manifests([manifest(row)]).utterances
    assert (one.id, one.path, one.text) == ("good.wav 1.5-3", tmp_path / "good.wav", "one two")
    assert (one.start_s, one.end_s) == (1.5, 3.0)
    assert one.words == (SpokenWord("one", 0.0, 0.5), SpokenWord("two", 0.5, 1.0))
    assert one.turns == (Span(0.0, 1.0),)
    assert one.fields == {"speaker": "ann", "language": "en", "level": "3"}


@pytest.mark.parametrize(
    "names", [("file", "transcript"), ("audio", "sentence"), ("audio_filepath", "text")]
)
def test_others_names_for_path_and_text_are_known(manifest: Make, names: tuple[str, str]) -> None:
    (one,) = read_manifests(
        [manifest(dict(zip(names, ("good.wav", "one"), strict=True)))]
    ).utterances
    assert (one.path.name, one.text, one.fields) == ("good.wav", "one", {})


def test_words_alone_are_a_text(manifest: Make) -> None:
    words = [{"text": text, "start": 0, "end": 1} for text in ("one", "two")]
    (one,) = read_manifests([manifest({"path": "good.wav", "words": words})]).utterances
    assert one.text == "one two"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", "is not JSON"),
        ("[1]", "is [1], not an object"),
        ({"text": "one"}, "has no path"),
        ({"path": "none.wav", "text": "one"}, "there is no file none.wav"),
        ({"path": "a\0b", "text": "one"}, "cannot be read"),
        ({"path": 3, "text": "one"}, '"path" must be text, not 3'),
        ({"path": "good.wav"}, 'has no text: write "text": ""'),
        ({**GOOD, "text": 1}, '"text" must be text'),
        ({**GOOD, "start": 2, "end": 2}, "ends at 2.0 s, which is not after"),
        ({**GOOD, "start": -1}, '"start" must be seconds'),
        ({**GOOD, "end": True}, '"end" must be seconds'),
        ('{"path": "good.wav", "text": "one", "end": NaN}', '"end" must be seconds'),
        ({**GOOD, "words": "one"}, "words must be a list"),
        ({**GOOD, "words": [{"text": "one"}]}, "word 1 (one) has no times"),
        ({**GOOD, "words": [["one", -1, 2]]}, "word 1 (one) has impossible times"),
        ({**GOOD, "words": [{"start": 0, "end": 1}]}, "word 1 must have text"),
        ({**GOOD, "words": [{"text": "a", "start": 1, "end": 0}]}, "ends at 0.0 s, before its"),
        (
            {**GOOD, "words": [{"text": w, "start": s, "end": 9} for w, s in (("a", 1), ("b", 0))]},
            "word 2 (b) begins at 0.0 s, before the word before it",
        ),
        ({**GOOD, "turns": [{"start": 0, "end": 2}, {"start": 1, "end": 3}]}, "turn 2 begins"),
        ({**GOOD, "id": ""}, '"id" must be a name'),
    ],
)
def test_a_bad_row_is_told_of_and_keeps_no_other_away(
    manifest: Make, row: object, told: str
) -> None:
    path = manifest({**GOOD, "id": "first"}, row, {**GOOD, "id": "last"})
    found = read_manifests([path])
    assert [one.id for one in found.utterances] == ["first", "last"]
    (problem,) = found.problems
    assert problem.where == "dev.jsonl, line 2"
    assert told in problem.message


def test_what_stands_twice_is_taken_once(manifest: Make) -> None:
    assert problems(manifest(GOOD, GOOD)) == [
        "occurs twice: leave one out, or give each an id of its own"
    ]


def test_parts_that_lie_beside_each_other_have_names_of_their_own(manifest: Make) -> None:
    starts = [12345.6, 12345.64, 12346, 1_000_000, 1_000_001]
    rows = [{**GOOD, "start": start, "end": start + 3} for start in starts]
    found = read_manifests([manifest(*rows)])
    assert found.problems == ()
    assert found.utterances[0].id == "good.wav 12345.6-12348.6"
    assert found.utterances[-1].id == "good.wav 1000001-1000004"


def test_only_rows_with_a_value_are_taken(manifest: Make) -> None:
    path = manifest({**GOOD, "split": "dev", "id": "a"}, {**GOOD, "split": "train", "id": "b"})
    assert [one.id for one in read_manifests([path], only={"split": "dev"}).utterances] == ["a"]
    with pytest.raises(InputError, match=r"none of 2 rows has the values that were asked for$"):
        read_manifests([path], only={"split": "test"})
    path = manifest({**GOOD, "split": "dev"}, {"text": "one"})
    told = "none of 1 rows has the values.*; none of 1 other rows can be evaluated; .*has no path"
    with pytest.raises(InputError, match=told):
        read_manifests([path], only={"split": "test"})


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "there are no rows"), (b"\xff\xfe", "is not text"), (b"{\n", "none of 1 rows can be")],
)
def test_a_manifest_without_a_row_that_can_be_used(
    tmp_path: Path, content: bytes, told: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_manifests([path])


def test_no_manifest_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such manifest"):
        read_manifests([tmp_path / "none.jsonl"])
    with pytest.raises(InputError, match="no manifest was named"):
        read_manifests([])


def test_a_folder_is_a_manifest_of_its_recordings(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "inner").mkdir(parents=True)
    for name in ("a.wav", "inner/b.MP3", "c.wav"):
        (folder / name).touch()
    (folder / "a.txt").write_text("ONE\n two\n")
    (folder / "inner" / "b.txt").write_text("")
    found = read_manifests([folder])
    assert [(one.id, one.path, one.text, dict(one.fields)) for one in found.utterances] == [
        ("a.wav", folder / "a.wav", "ONE two", {}),
        ("inner/b.MP3", folder / "inner/b.MP3", "", {}),
    ]
    (problem,) = found.problems
    assert (problem.where, problem.message.partition(":")[0]) == ("c.wav", "has no text")


seconds = st.floats(0, 1e6).map(lambda value: round(value, 3))


@st.composite
def rows(draw: st.DrawFn) -> dict[str, object]:
    times = sorted(draw(st.lists(seconds, min_size=2, max_size=8)))
    words = [
        {"text": draw(st.text("abc", min_size=1, max_size=4)), "start": start, "end": end}
        for start, end in pairwise(times)
    ]
    row: dict[str, object] = {
        "path": "good.wav",
        "text": draw(st.text(max_size=30)),
        "words": words,
        "speaker": draw(st.text(max_size=5)),
    }
    start = draw(seconds)
    return row | draw(st.sampled_from([{}, {"start": start}, {"start": start, "end": start + 1}]))


def read_rows(text: str) -> Manifest:
    with TemporaryDirectory() as folder:
        (Path(folder) / "good.wav").touch()
        path = Path(folder) / "m.jsonl"
        path.write_text(text, encoding="utf-8")
        return read_manifests([path])


@settings(max_examples=50)
@given(st.lists(rows(), min_size=1, max_size=5))
def test_every_good_row_is_read_as_it_was_written(given_rows: list[dict[str, object]]) -> None:
    found = read_rows("\n".join(json.dumps({**row, "id": i}) for i, row in enumerate(given_rows)))
    assert not found.problems
    for one, row in zip(found.utterances, given_rows, strict=True):
        assert one.text == str(row["text"]).strip()
        assert [{"text": w.text, "start": w.start, "end": w.end} for w in one.words] == row["words"]
        assert one.fields == {"speaker": row["speaker"]}
        assert one.start_s == row.get("start", 0.0)
        assert one.end_s == row.get("end")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
_KEYS = st.sampled_from(["path", "text", "words", "turns", "start", "end", "id", "language"])


@given(st.dictionaries(_KEYS, _JSON), st.text(max_size=40))
def test_whatever_stands_in_a_row_is_used_or_told_of(values: dict[str, object], raw: str) -> None:
    line = json.dumps({**values, "path": "good.wav"})
    found = read_rows("\n".join([json.dumps(GOOD | {"id": "good"}), line, raw]))
    other_lines = sum(bool(part.strip()) for part in raw.split("\n"))
    assert len(found.utterances) + len(found.problems) == 2 + other_lines
    for one in found.utterances:
        assert math.isfinite(one.start_s)
        assert one.end_s is None or one.end_s > one.start_s
        starts = [word.start for word in one.words]
        assert starts == sorted(starts)


def test_words_as_kiku_train_writes_them(manifest: Make) -> None:
    (one,) = read_manifests([manifest({**GOOD, "words": [["one", 0.1, 0.5]]})]).utterances
    assert one.words == (SpokenWord("one", 0.1, 0.5),)


def test_an_empty_name_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    assert read_manifests(["."]).utterances
    with pytest.raises(InputError, match="the name of the manifest is empty"):
        read_manifests([""])
