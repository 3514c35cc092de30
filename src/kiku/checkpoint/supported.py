"""Supported values: what a config must have, because another value would be another network."""

from collections.abc import Mapping
from typing import Any

from kiku.errors import UnsupportedConfig

Supported = Mapping[str, tuple[Any, ...]]
"""Key -> the values that kiku builds, the usual one first."""


def check_supported(values: Mapping[str, Any], supported: Supported, section: str = "") -> None:
    """Compare what `values` says with `supported`; keys that are absent are left alone.

    `section` names the part of the file in the message.

    Raises:
        UnsupportedConfig: a value that kiku does not build.
    """
    for key, allowed in supported.items():
        if key in values and values[key] not in allowed:
            raise UnsupportedConfig(
                f"{section and section + ': '}{key} = {values[key]!r} is not built; kiku builds "
                f"{key} = {allowed[0]!r}"
            )
