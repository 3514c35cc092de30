"""Live captions on a terminal that is a string."""

import io
import math
import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from kiku.cli.captions_view import CaptionsView, meter, words_as_text
from kiku.stream import End, Event, StreamWarning
from kiku.text import Partial, TurnEnd, TurnEndEager, TurnResumed, TurnStart, Word

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """A view, and what it has drawn."""

    def __init__(self, width: int = 80, encoding: str = "utf-8") -> None:
        self.raw = io.BytesIO()
        self.file = io.TextIOWrapper(self.raw, encoding=encoding, write_through=True)
        self.console = Console(
            file=self.file, force_terminal=True, width=width, height=12, highlight=False,
            color_system="standard",
        )  # fmt: skip
        self.lag_s, self.now = 0.2, 0.0
        self.view = CaptionsView(
            "talk.wav",
            levels_db=lambda: (-30.0, -6.0),
            lag_s=lambda: self.lag_s,
            heard_s=lambda: 65.0,
            console=self.console,
            clock=lambda: self.now,
        )

    def drawn(self) -> str:
        """All since the last call, with its escape codes."""
        text = self.raw.getvalue().decode(self.file.encoding)
        self.raw.seek(0)
        self.raw.truncate()
        return text

    def bottom(self) -> list[str]:
        """The lines that stand there now."""
        self.now += 1.0
        self.drawn()
        self.view.tick()
        return [line.strip("\r") for line in ESCAPES.sub("", self.drawn()).strip("\r").split("\n")]

    def take(self, *events: Event) -> str:
        self.drawn()
        for event in events:
            self.view.take(event)
        return ESCAPES.sub("", self.drawn())


@pytest.fixture
def screen() -> Iterator[Screen]:
    screen = Screen()
    with screen.view:
        yield screen


SURE, UNSURE, WRONG = (Word(t, 1.0, 1.5, p) for t, p in (("a", 0.95), ("b", 0.7), ("c", 0.1)))


def test_words_have_the_colour_of_their_probability() -> None:
    text = words_as_text([SURE, UNSURE, WRONG, Word("d", 1, 1, math.nan)], Partial("ef", 1.0))
    assert text.plain == "a b c d ef"
    styles = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert styles == {"b": "yellow", "c": "red", "ef": "dim italic"}


def test_the_open_line_grows_at_the_bottom_and_then_scrolls_up(screen: Screen) -> None:
    assert len(screen.bottom()) == 1
    screen.take(TurnStart(1.0), Partial("b", 61.0))
    assert screen.bottom()[0].split() == ["1:01", "b"]
    screen.take(SURE, Partial("bo", 1.0))
    assert screen.bottom()[0].split() == ["0:01", "a", "bo"]
    above = screen.take(UNSURE, TurnEnd(3.0, 1.0))
    assert "   0:01 a b" in above
    assert len(screen.bottom()) == 1


def test_each_channel_has_an_open_line_of_its_own(screen: Screen) -> None:
    screen.take(Word("yes", 1.0, 1.5, 0.95, 0), Word("no", 2.0, 2.2, 0.95, 1))
    screen.take(Partial("si", 3.0, 0), Partial("ma", 4.0, 2))
    assert [line.split() for line in screen.bottom()[:-1]] == [
        ["0:01", "[0]", "yes", "si"],
        ["0:02", "[1]", "no"],
        ["0:04", "[2]", "ma"],
    ]
    assert "   0:01 [0] yes\n" in screen.take(TurnEnd(3.0, 1.0, 0)).replace(" \n", "\n")
    assert len(screen.bottom()) == 3


def test_the_status(screen: Screen) -> None:
    (line,) = screen.bottom()
    assert line.startswith("   1:05 \u2588\u2588\u2588\u2588\u2588\u2588\u2588\u2588 ")
    assert "peak  -6.0 dBFS  lag  0.2 s " in line
    assert "talk.wav" in line
    for event, state in (
        (TurnStart(1.0), "speech"),
        (TurnEndEager(1.0, 0.8), "pause"),
        (TurnResumed(1.0), "speech"),
        (TurnEnd(1.0, 0.8), "silence"),
    ):
        screen.take(event)
        assert f" {state} " in screen.bottom()[-1]


def test_a_lag_is_coloured(screen: Screen) -> None:
    for lag_s, colour in ((3.0, "33"), (12.0, "31")):
        screen.lag_s, screen.now = lag_s, screen.now + 1
        screen.view.tick()
        assert f"\x1b[{colour}m  lag" in screen.drawn()


def test_it_is_not_drawn_more_often_than_anybody_sees(screen: Screen) -> None:
    screen.bottom()
    screen.view.tick()
    assert screen.drawn() == ""


def test_warnings_and_notes_are_lines(screen: Screen) -> None:
    assert "    the sound is cut off" in screen.take(
        StreamWarning("clipped", "the sound is cut off", 1)
    )
    screen.view.note("[b]as it is[/b]")
    assert "[b]as it is[/b]" in ESCAPES.sub("", screen.drawn())


def test_what_is_open_in_the_end_stays() -> None:
    for last in ((End(2.0),), ()):
        screen = Screen()
        with screen.view:
            screen.take(SURE)
            if last:
                assert "0:01 a" in screen.take(*last)
        assert screen.view.close(whole=True)
        left = ESCAPES.sub("", screen.drawn())
        assert left.count("0:01 a") == (0 if last else 1)


@pytest.mark.parametrize("width", [1, 9, 20, 40, 80, 200])
def test_the_status_is_one_line_with_room_for_ctrl_c(width: int) -> None:
    screen = Screen(width)
    with screen.view:
        line = screen.bottom()[-1]
    assert len(line) <= max(1, width - 6)


def test_long_lines_are_folded_below_their_beginning() -> None:
    screen = Screen(30)
    with screen.view:
        screen.take(*(Word(f"word{i}", 0.5, 0.6, 1.0) for i in range(8)))
        lines = screen.bottom()
    assert lines[0].startswith("   0:00 word0 word1")
    assert all(line.startswith("        word") for line in lines[1:-1])
    assert len(lines) == 4


def test_a_new_width_begins_a_clean_screen(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(30):
        screen.take(Word(f"word{i}", i, i + 0.5, 1.0), TurnEnd(i + 0.5, 1.0))
    screen.console.width = 40
    screen.now += 1
    screen.view.tick()
    drawn = screen.drawn()
    assert "\x1b[2J" in drawn
    assert re.findall(r"word\d+", drawn) == [f"word{i}" for i in range(22, 30)]


def test_letters_that_every_terminal_has() -> None:
    assert meter(-30.0, -6.0, plain=True).plain == "########------|-"
    assert meter(-math.inf, -math.inf, plain=True).plain == "-" * 16
    assert meter(0.0, 0.0, plain=True).plain == "#" * 16
    screen = Screen(encoding="ascii")
    with screen.view:
        assert "########------|-" in screen.bottom()[-1]
    screen.drawn().encode("ascii")


def test_loud_is_yellow_and_too_loud_is_red() -> None:
    styles = [str(span.style) for span in meter(0.0, 0.0, plain=True).spans]
    assert styles == ["green"] * 13 + ["yellow"] * 2 + ["red"]
