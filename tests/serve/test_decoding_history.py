"""Decoding options and their places in the sound of a session."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiku.errors import ConfigError
from kiku.options import AudioFormat, DecodingOptions
from kiku.serve.decoding_history import (
    MAX_EARLIER,
    DecodingHistory,
    EarlierDecoding,
    PlannedChanges,
)
from kiku.serve.session_sound import StoredFormat

RATE = 24_000
OPTIONS = [DecodingOptions(temperature=i / 100) for i in range(5)]


@given(
    changes=st.lists(st.tuples(st.integers(0, 20), st.sampled_from(OPTIONS)), max_size=MAX_EARLIER),
    keeps_from=st.integers(0, 20),
)
def test_at_every_place_the_last_change_before_it_holds(
    changes: list[tuple[int, DecodingOptions]], keeps_from: int
):
    changes.sort(key=lambda change: change[0])
    history = DecodingHistory(OPTIONS[0])
    for time, options in changes:
        history.change(float(time), options)
    history.forget(float(keeps_from))
    stored = DecodingHistory(history.latest, history.earlier())
    for time in range(keeps_from, 21):
        wanted = ([OPTIONS[0]] + [options for at, options in changes if at <= time])[-1]
        assert stored.at(float(time)) == wanted
        later = dict(stored.after(float(time)))
        for place in range(time + 1, 21):
            wanted = later.get(float(place), wanted)
            assert stored.at(float(place)) == wanted


def test_a_change_before_the_last_ones_takes_their_place():
    history = DecodingHistory(OPTIONS[0])
    for time in (1, 2, 3):
        history.change(float(time), OPTIONS[time])
    copy = history.copy()
    history.change(2.0, OPTIONS[4])
    assert history.after(0.0) == [(1.0, OPTIONS[1]), (2.0, OPTIONS[4])]
    assert copy.after(0.0) == [(float(i), OPTIONS[i]) for i in (1, 2, 3)]


def test_more_changes_than_are_kept_are_forgotten_from_the_beginning():
    history = DecodingHistory(OPTIONS[0])
    for time in range(1, 3 * MAX_EARLIER):
        history.change(float(time), OPTIONS[time % 5])
    kept = history.earlier()
    assert len(kept) == MAX_EARLIER
    assert kept[-1].until_s == 3 * MAX_EARLIER - 1


@pytest.mark.parametrize(
    ("times", "values"), [((2.0, 1.0), {}), ((-1.0,), {}), ((float("nan"),), {}),
                          ((float("inf"),), {}), ((1.0,), {"odd": 1})],
)  # fmt: skip
def test_what_cannot_be(times: tuple[float, ...], values: dict[str, Any]):
    with pytest.raises((ValueError, ConfigError)):
        DecodingHistory(OPTIONS[0], [EarlierDecoding(time, values) for time in times])


@given(
    places=st.lists(st.integers(1, 3_000), min_size=1, max_size=5, unique=True).map(sorted),
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=8),
    is_float=st.booleans(),
)
def test_planned_changes_are_made_between_the_samples_where_they_were(
    places: list[int], sizes: list[int], is_float: bool
):
    format = StoredFormat(AudioFormat(encoding=None if is_float else "s16le"), RATE)
    planned = PlannedChanges([(at / RATE, OPTIONS[i]) for i, at in enumerate(places)], format)
    made: list[tuple[int, DecodingOptions]] = []
    num_samples, pushed = 0, list[int]()
    for i, size in enumerate(sizes):
        samples = np.full(size, i, np.float32 if is_float else np.int16)
        rest: Any = samples if is_float else samples.tobytes()
        while len(rest):
            part, rest = planned.cut(rest, num_samples / RATE)
            pushed += np.frombuffer(part, samples.dtype).tolist()
            num_samples += len(part) // (1 if is_float else 2)
            made += [(num_samples, options) for options in planned.due(num_samples / RATE)]
    assert pushed == [i for i, size in enumerate(sizes) for _ in range(size)]
    assert made == [(at, OPTIONS[i]) for i, at in enumerate(places) if at <= sum(sizes)]
    assert bool(planned) == (places[-1] > sum(sizes))
