"""Checks values of a config: whether kiku builds them, because others would mean another network;
and whether a layout can express them, because others would be lost when it is written.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

from kiku.config import CodecConfig, ModelConfig
from kiku.errors import ConfigError, UnsupportedConfig

Supported = Mapping[str, tuple[Any, ...]]
"""Key -> the values that kiku builds, the usual one first."""


def check_supported(values: Mapping[str, Any], supported: Supported, section: str = "") -> None:
    """Check that `values` are among those of `supported`; keys that are absent are left alone.

    `section` names the part of the file in the message.

    Raises:
        UnsupportedConfig: a value that kiku does not build.
    """
    for key, allowed in supported.items():
        if key in values and values[key] not in allowed:
            raise UnsupportedConfig(
                f"{section and section + ': '}{key} = {values[key]!r} is not supported; kiku "
                f"supports {key} = {allowed[0]!r}"
            )


def check_lossless(
    layout: str,
    config: ModelConfig | CodecConfig,
    read: Callable[[], ModelConfig | CodecConfig],
    *,
    left_out: Collection[str] = (),
) -> None:
    """Check that a config was written in a layout without loss, by reading it back.

    Args:
        layout: the layout in which it was written, for the message.
        config: the config that was written.
        read: reads back what was written.
        left_out: numbers that are known to be lost, such as "lm.num_pause_heads".

    Raises:
        UnsupportedConfig: a number is lost, or another one is read.
    """
    try:
        found = read().to_dict()
    except ConfigError as e:
        raise UnsupportedConfig(f"{layout} cannot store this model: read back, {e}") from e
    for name, wanted, other in _differences(config.to_dict(), found):
        if name not in left_out:
            raise UnsupportedConfig(
                f"{layout} cannot store {name} = {wanted!r}, which would be read back as {other!r}"
            )


def _differences(
    wanted: Mapping[str, Any], found: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Name, wanted value and found value, for each value that differs."""
    for name, value in wanted.items():
        if isinstance(value, Mapping):
            part = cast(Mapping[str, Any], value)
            yield from _differences(part, found[name], f"{prefix}{name}.")
        elif value != found[name]:
            yield prefix + name, value, found[name]
