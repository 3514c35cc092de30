"""Text columns and pause targets against columns written by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.text import Vocabulary
from kiku.text.words import Timing, WordBuilder
from recipes.demo.columns import PAD, UNKNOWN, WORD_START, pause_targets, text_column

FRAME_S = 0.08


def column(words, num_frames=12, delay_s=0.0):
    return text_column(words, num_frames, delay_s).tolist()


def test_the_marker_stands_before_the_first_piece() -> None:
    assert column([(0.24, [10, 11])], 7) == [3, 3, 0, 10, 11, 3, 3]


def test_a_word_at_the_very_beginning_has_no_room_for_a_marker() -> None:
    assert column([(0.0, [10, 11])], 4) == [10, 11, 3, 3]


def test_no_marker_where_the_cell_before_holds_a_piece() -> None:
    assert column([(0.16, [10, 11]), (0.32, [12])], 6) == [3, 0, 10, 11, 12, 3]


def test_a_hurried_word_waits_for_the_one_before_and_nothing_is_lost() -> None:
    assert column([(0.16, [10, 11, 12]), (0.24, [13, 14])], 8) == [3, 0, 10, 11, 12, 13, 14, 3]


def test_a_marker_where_exactly_one_cell_is_free() -> None:
    assert column([(0.16, [10]), (0.32, [12])], 6) == [3, 0, 10, 0, 12, 3]


def test_the_delay_moves_by_its_exact_seconds() -> None:
    # 0.30 s + 0.5 s = frame 10.0 exactly; 0.29 s falls into frame 9
    assert column([(0.30, [10])], 12, 0.5).index(10) == 10
    assert column([(0.29, [10])], 12, 0.5).index(10) == 9


def test_pieces_behind_the_end_are_lost() -> None:
    assert column([(0.16, [10, 11, 12])], 4) == [3, 0, 10, 11]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.floats(0, 6), st.lists(st.integers(4, 20), min_size=1, max_size=3)), max_size=8
    )
)
def test_every_piece_is_written_once_in_order(words) -> None:
    words = sorted(words, key=lambda pair: pair[0])
    given = text_column(words, 200, 0.5)
    written = [token for token in given.tolist() if token not in (PAD, WORD_START)]
    assert written == [piece for _, pieces in words for piece in pieces]


def test_the_words_come_back_at_their_times() -> None:
    vocabulary = Vocabulary.from_pieces(["<unk>", "<s>", "</s>", "<pad>", "▁one", "▁t", "wo"])
    words = [(0.40, [4]), (1.04, [5, 6]), (2.0, [4])]
    builder = WordBuilder(vocabulary, Timing(12.5, 0.5, 0.0))
    heard = []
    for token in text_column(words, 50, 0.5).tolist():
        heard += builder.push(token, 0.0)
    heard += builder.finish()
    assert [word.text for word in heard] == ["one", "two", "one"]
    for word, (start, _) in zip(heard, words, strict=True):
        assert abs(word.start - start) <= FRAME_S


def test_pauses_by_their_whole_length() -> None:
    # speech 0.8..1.6 s and 2.4..3.2 s: a pause of 0.8 s between them
    targets = pause_targets([(0.8, 1.6), (2.4, 3.2)], 80)
    assert targets.shape == (80, 4)
    assert targets[5].tolist() == [0, 0, 0, 0]  # before anybody spoke
    assert targets[12].tolist() == [1, 1, 1, 1]  # somebody speaks
    # 0.8 s: long enough for head 0; four fifths of 1 s, two fifths of 2 s, a quarter of 3 s
    assert targets[25].tolist() == [0, 5, 3, 3]
    assert targets[79].tolist() == [0, 0, 0, 0]  # 3.2 s to the end of the recording


def test_a_pause_cut_off_by_the_end_teaches_only_what_is_sure() -> None:
    targets = pause_targets([(0.0, 1.0)], 25)  # then 1 s of silence, and the end
    assert targets[20].tolist() == [0, 0, UNKNOWN, UNKNOWN]


def test_overlapping_voices_leave_no_pause() -> None:
    targets = pause_targets([(0.0, 3.0), (1.0, 1.5)], 25)
    assert np.all(targets == 1)


@pytest.mark.parametrize("head", range(4))
def test_lower_heads_are_the_more_eager(head) -> None:
    rng = np.random.default_rng(head)
    edges = np.sort(rng.uniform(0, 30, 12))
    targets = pause_targets([(a, b) for a, b in edges.reshape(-1, 2)], 400)
    known = (targets != UNKNOWN).all(1)
    assert np.all(
        (targets[known][:, head:] == 0).astype(int)[:, 1:] <= (targets[known][:, [head]] == 0)
    )
