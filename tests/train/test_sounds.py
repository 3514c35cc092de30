"""Recordings become pieces between words, and no word is lost or moved."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiku.train.manifest import TimedWord, TrainingRow
from kiku.train.sounds import SpokenPiece, UnusableRow, join_pieces, pieces_of
from tests.train.recordings import RATE, write_wav


def a_row(
    folder: Path, words: list[tuple[str, float, float]], seconds: float, **more
) -> TrainingRow:
    path = folder / "a.wav"
    if not path.exists():
        ramp = np.linspace(0, 0.9, int(seconds * RATE), dtype=np.float32)
        write_wav(path, ramp)
    return TrainingRow(path, words=tuple(TimedWord(*word) for word in words), **more)


def test_a_short_one_stays_whole(tmp_path: Path) -> None:
    (piece,) = pieces_of(a_row(tmp_path, [("a", 0.5, 0.9)], 3.0), RATE, 5.0)
    assert len(piece.samples) == 3 * RATE
    assert piece.words == (TimedWord("a", 0.5, 0.9),)


def test_a_long_one_is_cut_in_its_widest_late_pause(tmp_path: Path) -> None:
    words = [("a", 0.2, 1.0), ("b", 2.6, 2.9), ("c", 3.0, 3.4), ("d", 3.9, 4.4), ("e", 4.5, 5.2)]
    first, second = pieces_of(a_row(tmp_path, words, 6.0), RATE, 4.5)
    # 3.4 to 3.9 is the widest pause whose middle lies in the second half
    assert len(first.samples) == pytest.approx(3650, abs=1)
    assert [word.text for word in first.words] == ["a", "b", "c"]
    assert [word.text for word in second.words] == ["d", "e"]
    assert second.words[0].start == pytest.approx(0.25, abs=2e-3)
    whole = np.concatenate([first.samples, second.samples])
    assert len(whole) == 6 * RATE
    assert np.abs(whole - np.linspace(0, 0.9, 6 * RATE)).max() < 1e-3


def test_silence_is_cut_anywhere(tmp_path: Path) -> None:
    pieces = list(pieces_of(a_row(tmp_path, [], 5.0), RATE, 2.0))
    assert [len(piece.samples) for piece in pieces] == [2000, 2000, 1000]


def test_a_part(tmp_path: Path) -> None:
    row = a_row(tmp_path, [("a", 2.5, 2.9)], 6.0, start=2.0, end=4.0)
    (piece,) = pieces_of(row, RATE, 5.0)
    assert len(piece.samples) == 2 * RATE
    assert piece.words[0].start == pytest.approx(0.5)
    assert piece.samples[0] == pytest.approx(0.9 / 3, abs=1e-3)


def test_a_word_behind_the_end(tmp_path: Path) -> None:
    row = a_row(tmp_path, [("a", 3.5, 3.9)], 3.0)
    with pytest.raises(UnusableRow, match=r"'a' begins 0\.50 s after the end"):
        list(pieces_of(row, RATE, 5.0))
    near = a_row(tmp_path, [("a", 3.1, 3.4)], 3.0)
    (piece,) = pieces_of(near, RATE, 5.0)
    assert piece.words == (TimedWord("a", 3.0, 3.0),)


def test_a_word_that_lasts_too_long(tmp_path: Path) -> None:
    row = a_row(tmp_path, [("a", 0.0, 5.0)], 6.0)
    with pytest.raises(UnusableRow, match="a word is that long"):
        list(pieces_of(row, RATE, 2.0))


@pytest.mark.parametrize("start", [0.0, 0.3, 1.0, 1.9])
@pytest.mark.parametrize("more", [[], [("b", 2.0, 2.5)]])
def test_it_is_told_wherever_the_word_begins(tmp_path: Path, start: float, more) -> None:
    row = a_row(tmp_path, [("a", start, 5.0), *more], 6.0)
    with pytest.raises(UnusableRow, match=r"no pause between words for 2 s: a word is that long"):
        list(islice(pieces_of(row, RATE, 2.0), 3))


def test_the_only_pause_is_before_the_first_word(tmp_path: Path) -> None:
    words = [("a", 0.8, 1.9), ("b", 1.8, 2.7)]
    first, second = pieces_of(a_row(tmp_path, words, 2.75), RATE, 2.0)
    assert (len(first.samples), first.words) == (800, ())
    assert [word.text for word in second.words] == ["a", "b"]
    assert second.words[0].start == pytest.approx(0.0, abs=2e-3)


def test_where_no_times_are_known_the_softest_place_is_cut(tmp_path: Path) -> None:
    sound = np.full(5000, 0.5, np.float32)
    sound[1400:1600] = 0.001  # not where 2 s end
    row = TrainingRow(write_wav(tmp_path / "b.wav", sound), keep=True)
    pieces = list(pieces_of(row, RATE, 2.0))
    assert 1400 <= len(pieces[0].samples) <= 1600
    assert max(len(one.samples) for one in pieces) <= 2000
    assert sum(len(one.samples) for one in pieces) == 5000
    silent = TrainingRow(write_wav(tmp_path / "c.wav", np.zeros(5000, np.float32)), text="")
    assert [len(one.samples) for one in pieces_of(silent, RATE, 2.0)] == [1950, 1950, 1100]


def test_a_piece_knows_where_it_begins(tmp_path: Path) -> None:
    row = a_row(tmp_path, [], 6.0, start=0.5, end=5.5)
    begins = [piece.from_s for piece in pieces_of(row, RATE, 2.0)]
    assert begins == pytest.approx([0.5, 2.5, 4.5])
    assert join_pieces([SpokenPiece(np.ones(3, np.float32), (), 7.0)], [1, 1], RATE).from_s == 7.0


@given(st.lists(st.tuples(st.floats(0.01, 1.5), st.floats(0.05, 0.6)), max_size=12))
def test_every_word_is_in_one_piece_at_its_time(tmp_path_factory, gaps) -> None:
    at, words = 0.0, []
    for pause, length in gaps:
        words.append((f"w{len(words)}", at + pause, at + pause + length))
        at += pause + length
    folder = tmp_path_factory.mktemp("row")
    begun, found = 0.0, []
    for piece in pieces_of(a_row(folder, words, at + 0.1), RATE, 3.0):
        assert len(piece.samples) <= 3 * RATE
        assert all(0 <= w.start <= w.end <= len(piece.samples) / RATE for w in piece.words)
        found += [(w.text, w.start + begun, w.end + begun) for w in piece.words]
        begun += len(piece.samples) / RATE
    assert [word for word, _, _ in found] == [word for word, _, _ in words]
    for (_, start, end), (_, wanted, last) in zip(found, words, strict=True):
        assert abs(start - wanted) < 0.02
        assert abs(end - last) < 0.02


def test_joined() -> None:
    a = SpokenPiece(np.ones(100, np.float32), (TimedWord("a", 0.02, 0.05),))
    b = SpokenPiece(np.full(50, 2, np.float32), (TimedWord("b", 0.01, 0.04),))
    whole = join_pieces([a, b], [10, 20, 30], RATE)
    assert whole.samples.tolist() == [0] * 10 + [1] * 100 + [0] * 20 + [2] * 50 + [0] * 30
    assert [w.text for w in whole.words] == ["a", "b"]
    assert whole.words[0].start == pytest.approx(0.03)
    assert whole.words[1].end == pytest.approx(0.17)
