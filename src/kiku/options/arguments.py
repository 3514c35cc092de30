"""Checks of arguments that many calls take. A wrong one is refused with what to write instead."""

import math
from collections.abc import Mapping
from typing import Any

from kiku.errors import InputError
from kiku.options.decoding import DecodingOptions
from kiku.options.stream import StreamOptions
from kiku.serial import plain_number, shown


def checked_stream_options(given: Any) -> StreamOptions:
    """A caller's `options` as StreamOptions; None is the default.

    Raises:
        InputError: `given` is something else.
    """
    if given is None or isinstance(given, StreamOptions):
        return given or StreamOptions()
    if isinstance(given, DecodingOptions):
        advice = "options=StreamOptions(decoding=DecodingOptions(...))"
    elif isinstance(given, Mapping):
        advice = "options=StreamOptions(...) with these names, or StreamOptions.from_dict(...)"
    else:
        advice = "options=StreamOptions(...), such as StreamOptions(end_s=10.0)"
    raise InputError(f"options must be StreamOptions, not {shown(given)}: write {advice}")


def checked_decoding_options(given: Any) -> DecodingOptions:
    """As `checked_stream_options`, for DecodingOptions."""
    if given is None or isinstance(given, DecodingOptions):
        return given or DecodingOptions()
    raise InputError(
        f"decoding options must be DecodingOptions, not {shown(given)}: write "
        "DecodingOptions(...), such as DecodingOptions(temperature=0.25)"
    )


_EVER_S = 1e9
"""Seconds; a longer timeout counts as no timeout, as clocks cannot wait for it."""


def timeout_s(given: Any) -> float | None:
    """A caller's `timeout` in seconds; None is no limit.

    Raises:
        InputError: `given` is something else.
    """
    value = plain_number(given)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise InputError(
            f"timeout must be a number of seconds, or None to wait without a limit, not "
            f"{shown(given)}: write timeout=1.5"
        )
    return None if value > _EVER_S else float(value)


def callback(given: Any, name: str) -> Any:
    """A caller's callback; None is no callback.

    Raises:
        InputError: `given` cannot be called.
    """
    if given is None or callable(given):
        return given
    raise InputError(f"{name} must be a function, or None for none, not {shown(given)}")
