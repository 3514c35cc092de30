"""Files that players and spreadsheets read, with every word once."""

import csv
import html
import json
import math
import re
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.errors import ConfigError
from kiku.text.captions import EMPTY_SRT, FORMATS, CaptionOptions, timestamp
from kiku.text.segments import segments
from kiku.text.words import Word

WORDS = [
    Word("Mr.", 0.58, 0.74, 0.9),
    Word("Quilter", 0.98, 1.22, 0.123456),
    Word("<&>", 1.22, 1.4, 1.0),
    Word("left.", 1.4, 2.0, 0.5),
    Word("Good.", 3.0, 3.5, 0.5),
]


def write(name: str, words: list[Word], **options: object) -> str:
    return FORMATS[name](words, CaptionOptions(**options))  # pyright: ignore[reportArgumentType]


def test_txt() -> None:
    assert write("txt", WORDS) == "Mr. Quilter <&> left.\nGood.\n"


def test_tsv() -> None:
    assert write("tsv", WORDS) == (
        "start\tend\ttext\n580\t2000\tMr. Quilter <&> left.\n3000\t3500\tGood.\n"
    )


def test_json_has_these_keys_and_no_others() -> None:
    content = json.loads(write("json", WORDS, model="demo", duration=4.0004))
    assert list(content) == ["model", "duration", "text", "words", "segments"]
    assert content["model"] == "demo"
    assert content["duration"] == 4.0
    assert content["text"] == "Mr. Quilter <&> left. Good."
    assert content["words"][1] == {
        "text": "Quilter",
        "start": 0.98,
        "end": 1.22,
        "probability": 0.1235,
    }
    assert len(content["words"]) == 5
    assert json.loads(write("json", WORDS))["duration"] == 3.5
    assert json.loads(write("json", [])) == {
        "model": "", "duration": 0.0, "text": "", "words": [], "segments": [],
    }  # fmt: skip
    assert "é" in write("json", [Word("é", 0, 1, 1)])


def test_json_has_null_for_a_probability_that_nobody_knows() -> None:
    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    written = write("json", [*WORDS, Word("new", 4, 5, math.nan)])
    words = json.loads(written, parse_constant=refuse)["words"]
    assert words[-1]["probability"] is None
    assert words[0]["probability"] == 0.9


def test_json_has_the_segments_that_readers_of_whisper_want() -> None:
    spoken = [*WORDS, Word("New", 9.0, 9.5, math.nan, 1)]
    content = json.loads(write("json", spoken))
    assert [segment["id"] for segment in content["segments"]] == [0, 1, 2]
    first = content["segments"][0]
    assert list(first) == ["id", "start", "end", "text", "words"]
    assert (first["start"], first["end"]) == (0.58, 2.0)
    assert first["text"] == " Mr. Quilter <&> left."
    assert first["words"][1] == {
        "word": " Quilter", "start": 0.98, "end": 1.22, "probability": 0.1235,
    }  # fmt: skip
    # What reads whisper's files joins words without a space of its own.
    for segment in content["segments"]:
        assert "".join(word["word"] for word in segment["words"]) == segment["text"]
    assert content["segments"][2]["channel"] == 1
    assert content["segments"][2]["words"][0]["probability"] is None


def test_json_says_if_it_is_not_whole() -> None:
    assert json.loads(write("json", WORDS, partial=True))["partial"] is True
    assert "partial" not in json.loads(write("json", WORDS))


def test_srt() -> None:
    assert write("srt", WORDS) == (
        "1\n00:00:00,580 --> 00:00:02,000\nMr. Quilter <&> left.\n\n"
        "2\n00:00:03,000 --> 00:00:03,834\nGood.\n\n"
    )


def test_vtt_escapes() -> None:
    assert write("vtt", WORDS) == (
        "WEBVTT\n\n00:00:00.580 --> 00:00:02.000\nMr. Quilter &lt;&amp;&gt; left.\n\n"
        "00:00:03.000 --> 00:00:03.834\nGood.\n\n"
    )


def test_each_word_is_underlined_while_it_is_spoken() -> None:
    assert write("srt", WORDS[3:], highlight_words=True, min_duration_s=0) == (
        "1\n00:00:01,400 --> 00:00:02,000\n<u>left.</u>\n\n"
        "2\n00:00:03,000 --> 00:00:03,500\n<u>Good.</u>\n\n"
    )
    assert write("vtt", WORDS[:3], highlight_words=True, max_line_width=12) == (
        "WEBVTT\n\n"
        "00:00:00.580 --> 00:00:00.740\n<u>Mr.</u> Quilter\n&lt;&amp;&gt;\n\n"
        "00:00:00.740 --> 00:00:00.980\nMr. Quilter\n&lt;&amp;&gt;\n\n"
        "00:00:00.980 --> 00:00:01.220\nMr. <u>Quilter</u>\n&lt;&amp;&gt;\n\n"
        "00:00:01.220 --> 00:00:01.400\nMr. Quilter\n<u>&lt;&amp;&gt;</u>\n\n"
        "00:00:01.400 --> 00:00:01.414\nMr. Quilter\n&lt;&amp;&gt;\n\n"
    )


def test_silence_is_a_file_that_players_and_editors_open(tmp_path: Path) -> None:
    written = write("srt", [])
    (tmp_path / "silence.srt").write_text(written)
    with av.open(str(tmp_path / "silence.srt")) as file:  # refuses one of no bytes
        assert file.format.name == "srt"
    # pysubs2 takes for srt what has a line of two times.
    assert any(line.count(",") == 2 and " --> " in line for line in written.splitlines())
    assert [line for _, _, lines in cues(written, ",") for line in lines if line] == []


def test_lines_and_cues_have_the_times_of_their_words() -> None:
    free = {"min_duration_s": 0.0, "max_chars_per_s": 1000.0}
    assert write("srt", WORDS, max_line_width=11, **free) == (
        "1\n00:00:00,580 --> 00:00:02,000\nMr. Quilter\n<&> left.\n\n"
        "2\n00:00:03,000 --> 00:00:03,500\nGood.\n\n"
    )
    assert write("srt", WORDS, max_line_width=11, max_line_count=1, **free) == (
        "1\n00:00:00,580 --> 00:00:01,220\nMr. Quilter\n\n"
        "2\n00:00:01,220 --> 00:00:02,000\n<&> left.\n\n"
        "3\n00:00:03,000 --> 00:00:03,500\nGood.\n\n"
    )
    assert "\nMr.\nQuilter\n<&>\nleft.\n" in write(
        "srt", WORDS, max_line_width=1, max_line_count=None
    )


TWO = [
    Word("How", 0.0, 0.4, 1.0, 0),
    Word("are", 0.5, 0.9, 1.0, 0),
    Word("Well,", 0.6, 1.0, 1.0, 1),
    Word("you?", 1.0, 1.4, 1.0, 0),
    Word("<I>", 1.2, 1.6, 1.0, 1),
]
"""Two channels that speak at once."""


def test_channels_are_told_apart() -> None:
    assert write("txt", TWO) == "[0] How are you?\n[1] Well, <I>\n"
    assert write("srt", TWO) == (
        "1\n00:00:00,000 --> 00:00:01,400\n[0] How are you?\n\n"
        "2\n00:00:00,600 --> 00:00:01,600\n[1] Well, <I>\n\n"
    )
    assert write("vtt", TWO) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.400\n<v Channel 0>How are you?\n\n"
        "00:00:00.600 --> 00:00:01.600\n<v Channel 1>Well, &lt;I&gt;\n\n"
    )
    assert write("tsv", TWO).count("\n") == 3


def test_json_has_the_channel_of_words_that_have_one() -> None:
    content = json.loads(write("json", [*TWO, Word("mixed", 1.0, 1.1, 1.0)]))
    assert [word.get("channel", "none") for word in content["words"]] == [0, 0, 1, 0, 1, "none"]
    assert [word["text"] for word in content["words"][:4]] == ["How", "are", "Well,", "you?"]
    assert content["duration"] == 1.6


def test_lines_have_room_for_the_channel_and_cues_come_in_order() -> None:
    free = {"min_duration_s": 0.0, "max_chars_per_s": 1000.0, "min_gap_s": 0.0}
    assert write("srt", TWO, max_line_width=11, max_line_count=1, **free) == (
        "1\n00:00:00,000 --> 00:00:00,900\n[0] How are\n\n"
        "2\n00:00:00,600 --> 00:00:01,000\n[1] Well,\n\n"
        "3\n00:00:01,000 --> 00:00:01,400\n[0] you?\n\n"
        "4\n00:00:01,200 --> 00:00:01,600\n[1] <I>\n\n"
    )
    assert "How are you?\n" not in write("vtt", TWO, max_line_width=11)
    assert "<v Channel 0>How are\nyou?\n" in write("vtt", TWO, max_line_width=7)
    assert "[0] How\nare\nyou?\n" in write("srt", TWO, max_line_width=2, max_line_count=3)


def test_segments_are_kept_as_given() -> None:
    given_ = segments(WORDS, max_gap_s=0.2)
    assert FORMATS["txt"](given_, CaptionOptions()) == "Mr.\nQuilter <&> left.\nGood.\n"
    assert json.loads(FORMATS["json"](given_, CaptionOptions()))["words"][4]["text"] == "Good."


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_nothing_spoken(name: str) -> None:
    written = write(name, [])
    silent = "", "WEBVTT\n\n", "start\tend\ttext\n", EMPTY_SRT
    assert written in silent or json.loads(written)


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (0, "00:00:00.000"),
        (3_599_999, "00:59:59.999"),
        (360_000_000, "100:00:00.000"),
        (4_445_999_001, "1234:59:59.001"),
    ],
)
def test_timestamps(ms: int, expected: str) -> None:
    assert timestamp(ms) == expected
    assert timestamp(ms, mark=",") == expected.replace(".", ",")


def test_days_of_sound_are_exact_to_the_millisecond() -> None:
    hours = 3600.0 * 123
    late = Word("late", hours + 0.001, hours + 0.08, 1.0)
    written = write("srt", [late], min_duration_s=0, max_chars_per_s=1000)
    assert "123:00:00,001 --> 123:00:00,080" in written


def test_options_refuse_lines_without_room() -> None:
    for name in ("max_line_width", "max_line_count"):
        with pytest.raises(ConfigError, match=f"{name} must be at least 1, not 0"):
            write("srt", [], **{name: 0})
    for name, value in (
        ("min_duration_s", -1), ("max_duration_s", 0), ("max_chars_per_s", 0),
        ("min_gap_s", math.nan),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"{name} must be a number above 0"):
            write("srt", [], **{name: value})


TEXT = st.text(st.sampled_from("ab&<>é-.\n\t\u2028,聞1"), min_size=1, max_size=6)
SPOKEN = st.lists(st.tuples(TEXT, st.floats(-1, 1e6), st.floats(-1, 1e6)), max_size=20)
ROOM = st.none() | st.integers(1, 20)


def cues(written: str, mark: str) -> list[tuple[int, int, list[str]]]:
    """(start, end, lines) of each cue, read as a player does."""
    stamp = rf"(\d{{2,}}):([0-5]\d):([0-5]\d){re.escape(mark)}(\d{{3}})"
    found: list[tuple[int, int, list[str]]] = []
    for block in written.split("\n\n"):
        lines = block.split("\n")
        timing = [i for i, line in enumerate(lines) if re.fullmatch(f"{stamp} --> {stamp}", line)]
        if timing:
            h, m, s, ms, *end = map(int, re.findall(r"\d+", lines[timing[0]]))
            start_ms = ((h * 60 + m) * 60 + s) * 1000 + ms
            end_ms = ((end[0] * 60 + end[1]) * 60 + end[2]) * 1000 + end[3]
            found.append((start_ms, end_ms, lines[timing[0] + 1 :]))
    return found


@settings(deadline=None, max_examples=200)
@given(SPOKEN, ROOM, ROOM)
def test_cues_hold_every_word_once_and_never_overlap(
    spoken: list[tuple[str, float, float]], width: int | None, count: int | None
) -> None:
    # Times in any order: words made elsewhere may overlap or run backwards.
    words = [Word(text, start, end, 0.5) for text, start, end in spoken]
    expected = " ".join(word.text for word in words).split()
    options = CaptionOptions(max_line_width=width, max_line_count=count)
    for name, mark in (("srt", ","), ("vtt", ".")):
        found = cues(FORMATS[name](words, options), mark)
        lines = [line for _, _, block in found for line in block]
        if not expected:
            assert lines in ([], [""])  # see `EMPTY_SRT`
            continue
        if name == "vtt":
            assert not any(re.search("[<>]|&(?!amp;|lt;|gt;)", line) for line in lines)
            lines = [html.unescape(line) for line in lines]
        assert " ".join(lines).split() == expected
        last_ms = 0
        for start_ms, end_ms, block in found:
            assert last_ms <= start_ms < end_ms
            last_ms = end_ms
            assert 1 <= len(block) <= (count or len(block))
        plain = {" ".join(word.text.split()) for word in words}
        assert all(line in plain or len(line) <= (width or len(line)) for line in lines)


@settings(deadline=None, max_examples=100)
@given(SPOKEN)
def test_txt_and_tsv_hold_every_word_once(spoken: list[tuple[str, float, float]]) -> None:
    words = [Word(text, start, end, 0.5) for text, start, end in spoken]
    expected = " ".join(word.text for word in words).split()
    assert write("txt", words).split() == expected
    rows = list(csv.reader(write("tsv", words).splitlines(), "excel-tab", quoting=csv.QUOTE_NONE))
    assert all(len(row) == 3 for row in rows)
    assert " ".join(row[2] for row in rows[1:]).split() == expected
    assert all(int(row[0]) <= int(row[1]) for row in rows[1:])
