"""Counting for the model card, and the picture beside it."""

import numpy as np
import pytest

from kiku.train.bank import WORD_INDEX, Place
from kiku.train.curve import draw_curve
from kiku.train.demo import Budgets
from kiku.train.report import as_rows, count_errors


def places(text: str) -> list[Place]:
    return [Place(WORD_INDEX[word], 0.0, 0.0) for word in text.split()]


def test_errors_are_counted_over_all_strings() -> None:
    minute = np.zeros(60 * 24_000, np.float32)
    tests = [(minute, places("one two three")), (minute, places("go"))]
    figure = count_errors("people", tests, ["One, three", "go go"])
    assert (figure.words, figure.wrong, figure.minutes) == (4, 2, 2.0)
    assert figure.rate == 0.5
    assert "50.0 %" in figure.line()


def test_where_nothing_is_said_words_a_minute_count() -> None:
    minute = np.zeros(60 * 24_000, np.float32)
    figure = count_errors("noise", [(minute, [])] * 4, ["", "up", "", ""])
    assert figure.rate == pytest.approx(0.25)
    assert "0.25 words a minute" in figure.line()
    assert as_rows([figure])[0]["rate"] == 0.25


def test_the_curve_is_drawn(tmp_path) -> None:
    rows = [
        {"stage": "trunk", "step": 20, "trained_s": 30.0, "loss": 2.0},
        {"stage": "trunk", "step": 40, "trained_s": 60.0, "loss": 1.0},
        {"stage": "trunk", "step": 40, "trained_s": 60.0, "dev": 0.5, "syn": 0.4, "an4": 0.8},
        {"stage": "decoder", "step": 20, "trained_s": 9.0, "loss": 0.4},
    ]
    draw_curve(rows, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000


def test_budgets_scale_together() -> None:
    half = Budgets().scaled(0.5)
    assert half.trunk == Budgets().trunk / 2
    assert half.cache_h == Budgets().cache_h / 2
