"""What a row holds, with one channel and with several."""

import json
import math
from pathlib import Path

import pytest

from kiku.errors import AudioError, ConfigError
from kiku.fleet.rows import Key, captions_of, row_of_problem, rows_of
from kiku.fleet.settings import BatchRequest, ModelSettings
from kiku.options import Recovery, StreamOptions
from kiku.text import CaptionOptions, Word, write_srt
from kiku.transcription import Transcript

KEY = Key("/calls/a.wav", 100, "demo", "abc")
WORDS = (
    Word("Hello.", 0.1 + 0.2, 0.5, 0.98765),
    Word("There", 0.6, 0.9, math.nan),
)


def test_a_row() -> None:
    (row,) = rows_of(KEY, Transcript(WORDS, 1.0, model="demo"), "mix")
    assert row == {
        "path": "/calls/a.wav", "size": 100, "model": "demo", "options": "abc", "version": "0.1.0",
        "channel": None, "duration": 1.0, "problem": None, "text": "Hello. There",
        "words": [
            {"text": "Hello.", "start": 0.3, "end": 0.5, "probability": 0.9877},
            {"text": "There", "start": 0.6, "end": 0.9, "probability": None},
        ],
        "segments": [{"start": 0.3, "end": 0.5, "text": "Hello."},
                     {"start": 0.6, "end": 0.9, "text": "There"}],
        "captions": None,
    }  # fmt: skip
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert rows_of(KEY, Transcript((), 1.0), 1)[0]["channel"] == 1


def test_problems_are_told_in_the_row() -> None:
    (row,) = rows_of(KEY, Transcript(WORDS, 1.0, problem=AudioError("it breaks off")), "mix")
    assert (row["problem"], row["text"]) == ("it breaks off", "Hello. There")
    (row,) = rows_of(KEY, Transcript((), 0.0, problem=ZeroDivisionError("why")), "mix")
    assert row["problem"] == "unexpected ZeroDivisionError: why"
    assert row_of_problem(KEY, "died") == {**row, "problem": "died"}


def test_channels_have_rows_of_their_own() -> None:
    words = (Word("one", 0.0, 0.2, 1.0, 0), Word("two", 0.1, 0.3, 1.0, 2))
    rows = rows_of(KEY, Transcript(words, 1.0), "each", 4)
    assert [(row["channel"], row["text"]) for row in rows] == [
        (0, "one"), (1, ""), (2, "two"), (3, ""),
    ]  # fmt: skip
    assert [row["channel"] for row in rows_of(KEY, Transcript(words, 1.0), "each")] == [0, 1, 2]
    assert len(rows_of(KEY, Transcript((), 1.0), "each")) == 1
    assert captions_of(rows, "srt", each=True) == write_srt(words)


@pytest.mark.parametrize("channel", ["mix", 1])
def test_captions_are_those_of_the_transcript(channel: int) -> None:
    words = tuple(Word(f"word{i}", i * 0.5, i * 0.5 + 0.4, 0.5) for i in range(40))
    rows = rows_of(KEY, Transcript(words, 30.0), channel)
    assert captions_of(rows, "srt") == write_srt(words, CaptionOptions("demo", duration=30.0))


def test_the_digest_changes_with_whatever_changes_the_words() -> None:
    same = [
        BatchRequest(ModelSettings("demo")),
        BatchRequest(ModelSettings("demo", threads=3, slots=9)),
    ]
    others = [
        BatchRequest(ModelSettings("other")),
        BatchRequest(ModelSettings("demo", dtype="int4")),
        BatchRequest(ModelSettings("demo", engine="torch")),
        BatchRequest(ModelSettings("demo"), StreamOptions(channel="each")),
        BatchRequest(ModelSettings("demo"), StreamOptions(end_s=3.0)),
    ]
    assert same[0].digest == same[1].digest
    assert len({request.digest for request in [same[0], *others]}) == 6


def test_a_folder_of_a_model_has_one_name_in_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mine", "demo"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("mine", "./mine", "mine/", "~/mine", str(tmp_path / "mine")):
        request = BatchRequest(ModelSettings(name))
        assert request.settings.model == str(tmp_path / "mine")
        assert request.identity["model"] == str(tmp_path / "mine")
    for name in ("demo", "kyutai/stt-1b-en_fr", ""):
        assert ModelSettings(name).model == name


def test_options_that_cannot_be_written_down_are_refused() -> None:
    own = StreamOptions(recovery=Recovery(policies=[]))
    with pytest.raises(ConfigError, match="cannot be saved"):
        BatchRequest(ModelSettings(), own).check()
    with pytest.raises(ConfigError, match="slots must be at least 1"):
        ModelSettings(slots=0)
