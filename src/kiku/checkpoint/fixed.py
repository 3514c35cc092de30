"""Values that a config must have, because another one would be another network."""

from collections.abc import Mapping
from typing import Any

from kiku.errors import UnsupportedConfig

Fixed = Mapping[str, tuple[Any, ...]]
"""Key -> the values that kiku builds, the usual one first."""


def check_fixed(values: Mapping[str, Any], fixed: Fixed, section: str = "") -> None:
    """Compare what `values` says with `fixed`; keys that are absent are left alone.

    `section` names the part of the file in the message.

    Raises:
        UnsupportedConfig: a value that kiku does not build.
    """
    for key, allowed in fixed.items():
        if key in values and values[key] not in allowed:
            raise UnsupportedConfig(
                f"{section and section + ': '}{key} = {values[key]!r} is not built; kiku builds "
                f"{key} = {allowed[0]!r}"
            )
