"""The wrapping of a saved slot: safetensors, signed by the model and the kind of engine."""

import json
from collections.abc import Generator
from contextlib import contextmanager

from safetensors import SafetensorError, deserialize

from kiku.errors import StreamError

KEY = "kiku"
"""Under this key of the metadata stands the signature."""


def check_saved(saved: bytes, signature: str) -> None:
    """Refuse bytes that `Engine.save` of such an engine did not give.

    Raises:
        StreamError: they are damaged, or belong to another model or kind of engine.
    """
    try:
        deserialize(saved)
        header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
        theirs = header.get("__metadata__", {}).get(KEY)
    except (SafetensorError, ValueError) as error:
        raise StreamError(f"the saved state is damaged ({error}); open a fresh stream") from error
    if theirs != signature:
        raise StreamError(
            f"the saved state belongs to another model or engine ({theirs}, this is {signature}); "
            "load the same model with the same dtype"
        )


@contextmanager
def damage_is_told() -> Generator[None]:
    """What goes wrong inside, while saved tensors are put in their places, is a StreamError."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise StreamError(f"the saved state is damaged ({error!r}); open a fresh stream") from error
