"""Dataclasses as plain values and back, for options that arrive as JSON and for saved states.

The types of the fields decide: a value has exactly the type of its field, or it is refused. (With
`lenient`, numbers that people write are converted to that type.) No number among the values
decides how much is built, counted or allocated. One function writes all states of the package and
one reads them, so that all of them fail in one way.

Fields may be bool, int, float, str, bytes, numpy arrays (by their dtype), Literal, None, unions,
`tuple[T, ...]`, `tuple[T, U]`, `list[T]`, `Sequence[T]`, `dict[str, T]`, dataclasses of these, and
`Any`, whose value is passed on unread.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from kiku.errors import ConfigError

MAX_INT = 2**62
"""Largest whole number of a saved state; the smallest is minus this. Both fit 64 bits with room to
add."""

_MAX_ITEMS = 2**20
"""Largest number of items of one list."""

T = TypeVar("T")

How = tuple[bool, bool]
"""How to read: whether fields with a default may be missing, and whether to be lenient with numbers
(see `from_plain`)."""

Reader = Callable[[Any, str], Any]
"""Takes a plain value and the path to it; returns the value of the field, or raises ValueError."""


def number_in(text: str) -> int | None:
    """The whole number that a text spells; None for any other text, and for numbers of 10 digits or
    more, which nothing here needs. (Python itself refuses to read more than some thousands.)"""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def plain_number(value: Any) -> Any:
    """A numpy number as a Python number; anything else unchanged."""
    return cast("Any", value).item() if isinstance(value, np.generic) else value


def whole_number(value: Any) -> Any:
    """As `plain_number`, and a float without a fraction becomes a whole number: sound cards and
    JSON of other languages write 44100.0."""
    value = plain_number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def plain_numbers(options: Any) -> None:
    """Convert numbers among the fields of a dataclass, before it checks itself: numpy numbers
    become Python numbers, and floats without a fraction become whole numbers if the field is
    one."""
    for one in dataclasses.fields(options):
        value = getattr(options, one.name)
        kinds = get_args(one.type) or (one.type,)
        if isinstance(value, float | np.generic):
            plain = whole_number(value) if int in kinds else plain_number(value)
            object.__setattr__(options, one.name, plain)


def to_plain(value: Any) -> Any:
    """A copy of `value` as dicts, lists, numbers, strings, bytes and arrays; dataclasses become
    dicts by the names of their fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, np.ndarray):
        return cast("Any", value).copy()
    if isinstance(value, Sequence):
        return [to_plain(item) for item in cast("Sequence[Any]", value)]
    return value


def from_plain(
    cls: type[T],
    values: Any,
    *,
    what: str,
    error: type[Exception] = ConfigError,
    defaults: bool = False,
    lenient: bool = False,
) -> T:
    """Build the dataclass from which `to_plain` made these values.

    Args:
        cls: the dataclass.
        values: a mapping, from JSON or a saved state.
        what: what the values are, for the message: "the saved stream".
        error: the class of the error that is raised if anything is wrong.
        defaults: whether fields that have a default may be missing.
        lenient: whether to accept numbers as people write them: numpy numbers, and floats without a
            fraction for whole numbers.

    Raises:
        Exception: an `error` that names the field and the value found there.
    """
    try:
        return _dataclass_of(cls, values, "", (defaults, lenient))
    except RecursionError:
        raise error(f"{what} is nested too deeply") from None
    except (ValueError, TypeError, OverflowError, ArithmeticError) as problem:
        raise error(f"{what} cannot be read: {problem}") from problem


def _dataclass_of(cls: type[T], values: Any, path: str, how: How) -> T:
    if not isinstance(values, Mapping):
        what = path.removesuffix(".") or cls.__name__
        raise ValueError(f"{what} must be an object, not {shown(values)}")
    given = cast("Mapping[Any, Any]", values)
    readers = _readers(cls, how)
    for name in given:
        if name not in readers:
            near = difflib.get_close_matches(str(name), readers, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(readers)}"
            raise ValueError(f"there is no {shown(f'{path}{name}')}; {hint}")
    found: dict[str, Any] = {}
    for name, (read, optional) in readers.items():
        if name in given:
            found[name] = read(given[name], f"{path}{name}")
        elif not (how[0] and optional):
            raise ValueError(f"{path}{name} is missing")
    return cls(**found)


@cache
def _readers(cls: type[Any], how: How) -> dict[str, tuple[Reader, bool]]:
    """For each field: the function that reads it, and whether it has a default."""
    hints = get_type_hints(cls)
    missing = dataclasses.MISSING
    return {
        f.name: (
            _reader(hints[f.name], how),
            f.default is not missing or f.default_factory is not missing,
        )
        for f in dataclasses.fields(cls)
        if f.init
    }


def _reader(hint: Any, how: How) -> Reader:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:  # the owner of that field reads it
        return lambda value, path: value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return lambda value, path: _dataclass_of(hint, value, f"{path}.", how)
    if origin is Literal:
        return lambda value, path: _one_of(value, parts, path)
    if origin in (Union, types.UnionType):
        objects = [part for part in parts if dataclasses.is_dataclass(part)]
        of_object = _reader(objects[0], how) if objects else None
        wanted = " or ".join(_wanted(part) for part in parts if part is not type(None))
        return _union_reader([_reader(part, how) for part in parts], of_object, wanted)
    if origin is np.ndarray:
        dtype = np.dtype(get_args(parts[1])[0])
        return lambda value, path: _array(value, dtype, path)
    if origin is dict:
        item = _reader(parts[1], how)
        return lambda value, path: _dict(value, item, path)
    if origin is tuple and not (len(parts) == 2 and parts[1] is Ellipsis):
        items = [_reader(part, how) for part in parts]
        return lambda value, path: _fixed(value, items, path)
    if origin in (tuple, list, Sequence):
        item = _reader(parts[0], how)
        kind = list if origin is list else tuple
        return lambda value, path: cast("Any", kind)(_items(value, item, path))
    if hint in _SIMPLE:
        return (_LENIENT if how[1] else _SIMPLE)[hint]
    return lambda value, path: _refuse(hint, path)


def _refuse(hint: Any, path: str) -> Any:
    raise ValueError(f"{path} ({hint}) cannot be given as plain values: leave it out")


_WANTED: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    bytes: "bytes",
}


def _wanted(hint: Any) -> str:
    """What a field of this type must be, for a message."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return "an object"
    return _WANTED.get(hint, "a list")


def _union_reader(readers: Sequence[Reader], of_object: Reader | None, wanted: str) -> Reader:
    def read(value: Any, path: str) -> Any:
        if of_object is not None and isinstance(value, Mapping):
            return of_object(value, path)  # report the mistakes within the object
        problems: list[str] = []
        for one in readers:
            try:
                return one(value, path)
            except (ValueError, TypeError) as error:
                problems.append(str(error))
        for problem in problems:
            if not problem.startswith(f"{path} must be "):  # the mistake is deeper in the value
                raise ValueError(problem)
        raise _must(path, wanted, value)

    return read


def shown(value: Any) -> str:
    """A value for a message, shortened if it is long."""
    if isinstance(value, int) and abs(value) > MAX_INT:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _must(path: str, wanted: str, value: Any) -> ValueError:
    return ValueError(f"{path} must be {wanted}, not {shown(value)}")


def _bool(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise _must(path, "true or false", value)
    return value


def _int(value: Any, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _must(path, "a whole number", value)
    if abs(value) > MAX_INT:
        raise _must(path, "a whole number below 2^62", value)
    return value


def _float(value: Any, path: str) -> float:
    number = isinstance(value, float | int) and not isinstance(value, bool)
    # Checked before the conversion: a whole number may be too large for a float.
    if not number or abs(value) > 1e300 or not math.isfinite(value):
        raise _must(path, "a finite number", value)
    return float(value)


def _str(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _must(path, "text", value)
    return value


def _bytes(value: Any, path: str) -> bytes:
    if not isinstance(value, bytes):
        raise _must(path, "bytes", value)
    return value


def _none(value: Any, path: str) -> None:
    if value is not None:
        raise _must(path, "nothing", value)


_SIMPLE: Mapping[Any, Reader] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    bytes: _bytes,
    type(None): _none,
}

# Readers of values that people wrote; `_SIMPLE` reads those that kiku wrote.
_LENIENT: Mapping[Any, Reader] = {
    **_SIMPLE,
    int: lambda value, path: _int(whole_number(value), path),
    float: lambda value, path: _float(plain_number(value), path),
}


def _one_of(value: Any, parts: Sequence[Any], path: str) -> Any:
    if not any(value == part and type(value) is type(part) for part in parts):
        raise _must(path, f"one of {', '.join(map(str, parts))}", value)
    return value


def _array(value: Any, dtype: np.dtype[Any], path: str) -> NDArray[Any]:
    if not isinstance(value, np.ndarray):
        raise _must(path, f"an array of {dtype}", value)
    array = cast("NDArray[Any]", value)
    if array.dtype != dtype:
        raise ValueError(f"{path} must be an array of {dtype}, not of {array.dtype}")
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{path} contains numbers that are not finite")
    return array


def _sequence(value: Any, path: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise _must(path, "a list", value)
    items = cast("Sequence[Any]", value)
    if len(items) > _MAX_ITEMS:
        raise ValueError(f"{path} has {len(items)} items; at most {_MAX_ITEMS} are allowed")
    return items


def _items(value: Any, read: Reader, path: str) -> list[Any]:
    return [read(item, f"{path}[{i}]") for i, item in enumerate(_sequence(value, path))]


def _fixed(value: Any, readers: Sequence[Reader], path: str) -> tuple[Any, ...]:
    items = _sequence(value, path)
    if len(items) != len(readers):
        raise ValueError(f"{path} must have {len(readers)} items, not {len(items)}")
    pairs = enumerate(zip(readers, items, strict=True))
    return tuple(read(item, f"{path}[{i}]") for i, (read, item) in pairs)


def _dict(value: Any, read: Reader, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _must(path, "an object", value)
    given = cast("Mapping[Any, Any]", value)
    return {_str(key, path): read(item, f"{path}.{key}") for key, item in given.items()}
