"""What all options share: conversion to plain values and back, and checks of single values."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from kiku.errors import ConfigError
from kiku.serial import MAX_INT, from_plain, shown, to_plain


class Options:
    """Conversion to plain values and back, for every class of options."""

    WHAT: ClassVar[str] = "the options"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `to_dict`'s values; missing names take their defaults.

        Raises:
            ConfigError: an unknown name (the nearest known one is named), or an impossible value.
        """
        return from_plain(cls, values, what=cls.WHAT, defaults=True, lenient=True)


def check_number(name: str, value: Any, wanted: str, least: float, most: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and least <= value <= most):
        raise ConfigError(f"{name} must be {wanted}, not {value!r}")


def check_whole(name: str, value: Any, least: int, most: int = MAX_INT) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return
    bounds = f"at least {least}" if most == MAX_INT else f"{least} to {most}"
    if isinstance(value, int) and value > MAX_INT:
        bounds = "below 2^62"  # saved states hold no larger ones
    raise ConfigError(f"{name} must be a whole number, {bounds}, not {shown(value)}")


def check_one_of(name: str, value: Any, known: Sequence[Any]) -> None:
    # Compared by type as well: True is not 1 here, and an array is equal to nothing.
    if not any(isinstance(value, type(one)) and value == one for one in known) or (
        isinstance(value, bool) and not any(value is one for one in known)
    ):
        raise ConfigError(f"{name} must be one of {', '.join(map(str, known))}, not {value!r}")


def check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, not {value!r}")


def check_kind(name: str, value: Any, kind: Any, wanted: str) -> None:
    if not isinstance(value, kind):
        raise ConfigError(f"{name} must be {wanted}, not {value!r}")
