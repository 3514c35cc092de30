"""A transcript as people hold it who come from elsewhere."""

import copy
import json
import pickle
from pathlib import Path

import pytest

from kiku import StreamWarning, Word
from kiku.errors import AudioError, InputError, KikuError, TruncatedAudio
from kiku.transcription import Transcript

WORDS = tuple(Word(text, i * 1.0, i + 0.5, 0.9) for i, text in enumerate(["one", "two", "three"]))


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_pair_of_segments_and_info_is_answered_with_our_way(count: int) -> None:
    with pytest.raises(InputError, match=r"write transcript = .* transcript\.segments"):
        _segments, _info = Transcript(WORDS[:count], 5.0)


def test_a_transcript_is_still_its_words() -> None:
    transcript = Transcript(WORDS[:2], 5.0)
    assert list(transcript) == [*transcript] == [word for word in transcript] == [*WORDS[:2]]
    first, second = transcript.words
    assert (first, second) == tuple(transcript)
    first, *rest = transcript
    assert (first, rest) == (WORDS[0], [WORDS[1]])
    first, second = map(str.upper, (word.text for word in transcript))
    assert (first, second) == ("ONE", "TWO")


def test_a_name_in_brackets_is_answered_with_the_attribute() -> None:
    transcript = Transcript(WORDS, 5.0)
    for name in ("text", "segments", "words", "duration"):
        with pytest.raises(InputError, match=f"write transcript.{name}"):
            transcript[name]  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="to_dict"):
        transcript["language"]  # pyright: ignore[reportArgumentType]


def test_warnings_are_saved_as_json(tmp_path: Path) -> None:
    warnings = (StreamWarning("quiet", "it is quiet", 1.00004, 1),)
    one = Transcript(WORDS, 5.0, warnings, None, "demo")
    saved = {"kind": "quiet", "message": "it is quiet", "time": 1.0, "channel": 1}
    assert one.to_dict()["warnings"] == [saved | {"time": 1.00004}]
    one.save(tmp_path / "one.json")
    document = json.loads((tmp_path / "one.json").read_text())
    assert document["warnings"] == [saved]
    assert document["duration"] == 5.0


def test_transcripts_are_compared_by_what_they_say() -> None:
    warnings = (StreamWarning("quiet", "it is quiet", 1.0),)
    whole = Transcript(WORDS, 5.0, warnings, None, "demo")
    broken = Transcript(WORDS, 5.0, warnings, TruncatedAudio("it ends"), "demo")
    for one in (whole, broken):
        for other in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), copy.copy(one)):
            assert other == one
            assert hash(other) == hash(one)
    for problem in (None, TruncatedAudio("it ends there"), AudioError("it ends")):
        assert Transcript(WORDS, 5.0, warnings, problem, "demo") != broken
    for other in (Transcript(WORDS[:2], 5.0), Transcript(WORDS, 5.5), Transcript(WORDS, 5.0)):
        assert other != whole
    assert whole != WORDS
    assert isinstance(broken.problem, KikuError)
