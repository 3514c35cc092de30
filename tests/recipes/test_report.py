"""Counting for the model card, and the picture beside it."""

import numpy as np
import pytest

from recipes.demo.bank import WORD_INDEX, BankWriter, WordSpan
from recipes.demo.corpus import Recording
from recipes.demo.curve import draw_curve
from recipes.demo.make import Budgets
from recipes.demo.report import as_rows, clip_strings, count_errors, in_one_go
from tests.evaluate.conftest import scored


def spans(text: str) -> list[WordSpan]:
    return [WordSpan(WORD_INDEX[word], 0.0, 0.0) for word in text.split()]


def test_errors_are_counted_over_all_strings() -> None:
    minute = np.zeros(60 * 24_000, np.float32)
    tests = [(minute, spans("one two three")), (minute, spans("go"))]
    figure = count_errors("people", tests, ["One, three", "go go"])
    assert (figure.words, figure.wrong, figure.minutes) == (4, 2, 2.0)
    assert figure.rate == 0.5
    assert "50.0 %" in figure.line()


def test_errors_of_the_card_are_those_that_kiku_evaluate_counts() -> None:
    texts = [("one two three go", "One, two too go stop"), ("up", ""), ("no", "on no on")]
    sound = np.zeros(24_000, np.float32)
    figure = count_errors("x", [(sound, spans(said)) for said, _ in texts], [t for _, t in texts])
    assert figure.wrong == 5 == sum(scored(said, heard).errors for said, heard in texts)


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


def test_a_run_too_short_to_log_a_loss_is_drawn_too(tmp_path) -> None:
    draw_curve([{"stage": "tuned", "step": 3, "trained_s": 0.5, "dev": 0.9}], tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 5_000


def test_budgets_scale_together() -> None:
    half = Budgets().scaled(0.5)
    assert half.trunk == Budgets().trunk / 2
    assert half.features_h == Budgets().features_h / 2


RATE = 24_000


class FakeCorpus:
    """Two speakers' words, every recording a constant of its own, one sentence, one other word."""

    def __init__(self) -> None:
        said = [
            ("ann", "go"), ("ann", "stop"), ("bob", "one"), ("ann", "go on"), ("bob", "house"),
        ]  # fmt: skip
        self.recordings = [
            Recording(str(i), tuple(text.split()), who, "en-words", "en", "dev", i, i + 1)
            for i, (who, text) in enumerate(said)
        ]

    def select(self, split: str) -> list[Recording]:
        assert split == "dev"
        return self.recordings

    def audio(self, recording: Recording) -> np.ndarray:
        return np.full(RATE, 0.1 * (1 + recording.begin), np.float32)


def test_clips_are_whole_with_zeros_between_them() -> None:
    tests = clip_strings(FakeCorpus(), count=6, seed=3)  # pyright: ignore[reportArgumentType]
    assert len(tests) == 6
    level = {WORD_INDEX["go"]: 0.1, WORD_INDEX["stop"]: 0.2, WORD_INDEX["one"]: 0.3}
    for number, (sound, words) in enumerate(tests):
        assert 3 <= len(words) <= 6
        assert {span.word for span in words} <= (
            {WORD_INDEX["one"]} if number % 2 else {WORD_INDEX["go"], WORD_INDEX["stop"]}
        )
        edges = np.flatnonzero(np.diff(sound)) + 1
        starts, ends = edges[::2], edges[1::2]
        assert np.all(ends - starts == RATE)  # as they were recorded, the level too
        assert sound[starts] == pytest.approx([level[span.word] for span in words])
        gaps = (starts - np.concatenate([[0], ends[:-1]])) / RATE
        assert gaps.min() > 0.29
        assert gaps.max() < 0.71
        assert len(sound) - ends[-1] == RATE
        assert not sound[ends[-1] :].any()


def test_the_same_seed_gives_the_same_clips() -> None:
    first, again, other = (
        clip_strings(FakeCorpus(), count=3, seed=seed)  # pyright: ignore[reportArgumentType]
        for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert any(len(a[0]) != len(b[0]) for a, b in zip(first, other, strict=True))


def test_strings_said_in_one_go_stay_whole() -> None:
    writer = BankWriter()
    sound = np.sin(np.arange(RATE) / 5).astype(np.float32)
    writer.add("voice", "v", sound, [WordSpan(1, 0.0, 0.5)])
    writer.add("said", "v", sound, [WordSpan(1, 0.0, 0.4), WordSpan(2, 0.5, 0.9)])
    ((string, words),) = in_one_go(writer.finish())
    assert [span.word for span in words] == [1, 2]
    assert len(string) == 2.5 * RATE
    assert not string[: RATE // 2].any()
    assert not string[-RATE:].any()
    assert np.corrcoef(string[RATE // 2 : -RATE], sound)[0, 1] > 0.999
