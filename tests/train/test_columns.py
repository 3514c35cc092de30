"""Text columns and pauses by hand, and against the rule of Kyutai's own training code."""

import math
from collections import deque
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiku.train.columns import NOTHING, UNKNOWN, TextLayout, frames_for, pause_targets, text_column
from tests import tiny

PLAIN = TextLayout(12.5, 0.0)


def column(words, num_frames, layout=PLAIN):
    return text_column(words, num_frames, layout).tolist()


def test_the_lead_is_zero_embeddings_or_pad() -> None:
    words = [(0.0, [10, 11])]
    assert column(words, 10, TextLayout(12.5, 0.5)) == [-1] * 6 + [10, 11, 3, 3]
    assert column(words, 10, TextLayout(12.5, 0.5, "pad")) == [3] * 5 + [0, 10, 11, 3, 3]


def test_the_marker_stands_before_the_first_piece_if_there_is_room() -> None:
    assert column([(0.24, [10, 11])], 7) == [3, 3, 0, 10, 11, 3, 3]
    assert column([(0.16, [10, 11]), (0.32, [12])], 6) == [3, 0, 10, 11, 12, 3]


def test_ids_are_those_of_the_model() -> None:
    layout = TextLayout.of(tiny.model_config(), delay_s=1.0, lead="pad")
    assert layout == TextLayout(12.5, 1.0, "pad")
    assert TextLayout.of(tiny.model_config(), delay_s=None, lead="zero").delay_s == 0.5
    odd = TextLayout(12.5, 0.0, "pad", pad_id=7, word_start_id=9)
    assert column([(0.16, [10])], 4, odd) == [7, 9, 10, 7]


def theirs(words, num_frames, delay_s):
    """The rule of `build_token_stream` with keep_and_shift, in other words."""
    cells = [3] * num_frames
    waiting: deque[int] = deque()
    coming = deque((start + delay_s, pieces) for start, pieces in words)
    for t in range(num_frames):
        while coming and coming[0][0] * 12.5 < t + 1 - 1e-6:  # a sum of decimals is a hair less
            waiting.extend(coming.popleft()[1])
        if waiting:
            if t > 0 and cells[t - 1] == 3:
                cells[t - 1] = 0
            cells[t] = waiting.popleft()
    lead = int(12.5 * delay_s)
    return [-1] * lead + cells[lead:]


WORDS = st.lists(
    st.tuples(st.floats(0, 6), st.lists(st.integers(4, 20), min_size=1, max_size=4)), max_size=8
)


@given(WORDS, st.sampled_from([0.0, 0.5, 1.0, 2.5]))
def test_it_is_their_rule(words, delay_s: float) -> None:
    words = sorted(words, key=lambda pair: pair[0])
    assert column(words, 150, TextLayout(12.5, delay_s)) == theirs(words, 150, delay_s)


@pytest.mark.parametrize("delay_s", [0.32, 0.48, 0.5, 2.5])
def test_a_time_at_the_edge_of_a_frame_is_in_that_frame(delay_s: float) -> None:
    layout = TextLayout(12.5, delay_s)
    for millis in range(0, 20_000, 20):
        exact = Fraction(millis, 1000) + Fraction(str(delay_s))
        assert layout.frame_of(millis / 1000) == exact * Fraction(25, 2) // 1
    assert layout.lead_frames == Fraction(str(delay_s)) * Fraction(25, 2) // 1


@given(WORDS)
def test_frames_for_is_just_enough(words) -> None:
    words = sorted(words, key=lambda pair: pair[0])
    layout = TextLayout(12.5, 0.5)
    frames = frames_for(words, layout)
    wanted = [piece for _, pieces in words for piece in pieces]
    cells = column(words, frames, layout)
    assert [cell for cell in cells if cell not in (3, 0, NOTHING)] == wanted
    if words:
        assert cells[-1] == 3
        assert len(column(words, frames - 1, layout)) == frames - 1
        assert column(words, frames - 1, layout)[-1] == wanted[-1]


def test_pauses_at_another_frame_rate() -> None:
    targets = pause_targets([(1.0, 2.0)], 25, 5.0)
    assert targets[4].tolist() == [0, 0, 0, 0]
    assert targets[5].tolist() == [1, 1, 1, 1]
    assert targets[10].tolist() == [0, 0, 0, 0]  # 3 s of silence to the end
    cut = pause_targets([(1.0, 2.0)], 15, 5.0)
    assert cut[12].tolist() == [0, 0, UNKNOWN, UNKNOWN]
    assert np.all(targets != math.inf)
