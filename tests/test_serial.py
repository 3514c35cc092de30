"""Dataclasses come back from plain values exactly, or are refused with the name of the field."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from kiku.errors import StreamError
from kiku.serial import from_plain, number_in, to_plain


@dataclass
class Inner:
    name: str
    at: float | None = None


@dataclass
class Outer:
    count: int
    kind: Literal["a", "b"]
    inner: Inner
    several: list[Inner]
    pair: tuple[str, float]
    texts: Sequence[str]
    by_name: dict[str, int]
    sound: NDArray[np.float32]
    raw: bytes
    flag: bool = False
    choice: int | str | None = None
    defaulted: list[int] = field(default_factory=list[int])


def _outer() -> Outer:
    sound = np.arange(3, dtype=np.float32)
    inner = Inner("x", 1.0)
    return Outer(3, "b", inner, [Inner("y")], ("z", 2.0), ("t",), {"k": 1}, sound, b"\0")


def _read(values: object, **how: bool) -> Outer:
    return from_plain(Outer, values, what="the state", error=StreamError, **how)


def test_the_place_of_what_is_no_object_is_named() -> None:
    values = to_plain(_outer())
    values["several"] = [3]
    with pytest.raises(StreamError, match=r"several\[0\] must be an object"):
        _read(values)


def test_values_come_back() -> None:
    again = _read(to_plain(_outer()))
    assert to_plain(again).keys() == to_plain(_outer()).keys()
    assert (again.count, again.inner, again.several, again.pair) == (
        3, Inner("x", 1.0), [Inner("y")], ("z", 2.0),
    )  # fmt: skip
    assert again.texts == ("t",)
    np.testing.assert_array_equal(again.sound, _outer().sound)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("count",), True),
        (("count",), 1.0),
        (("count",), 10**4000),
        (("count",), 2**63),
        (("kind",), "c"),
        (("inner", "at"), float("nan")),
        (("inner", "at"), 10**4000),
        (("inner", "name"), None),
        (("inner",), []),
        (("several",), {"0": {"name": "x"}}),
        (("pair",), ["z"]),
        (("by_name",), {"k": "1"}),
        (("sound",), [0.0]),
        (("sound",), np.zeros(3, np.float64)),
        (("sound",), np.array([np.nan], np.float32)),
        (("raw",), "text"),
        (("flag",), 1),
        (("choice",), 1.5),
    ],
)
def test_what_is_not_of_its_type_is_refused_by_name(path: tuple[str, ...], value: object) -> None:
    values = to_plain(_outer())
    at = values
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    with pytest.raises(StreamError, match=path[-1]):
        _read(values)


def test_missing_and_unknown_fields() -> None:
    values = to_plain(_outer())
    del values["flag"]
    with pytest.raises(StreamError, match="flag is missing"):
        _read(values)
    assert _read(values, defaults=True).flag is False
    with pytest.raises(StreamError, match=r"flaf.*'flag'"):
        _read({**values, "flaf": 1}, defaults=True)


def test_nesting_without_end_is_refused() -> None:
    deep: object = None
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(StreamError):
        _read({**to_plain(_outer()), "texts": deep})


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("007", 7), ("999999999", 999_999_999), ("", None), ("-1", None), ("1.0", None),
     ("٣", None), ("²", None), (" 1", None), ("1" * 10, None), ("1" * 5_000, None)],
)  # fmt: skip
def test_a_number_in_a_text_is_of_few_digits(text: str, number: int | None) -> None:
    assert number_in(text) == number
