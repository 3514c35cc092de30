"""Choose the device on which a network is trained."""

import torch

from kiku.errors import InputError


def choose_device(name: str) -> str:
    """`name` itself, or for "auto" the GPU if there is one.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"the device {name!r} cannot be used: {str(error).splitlines()[0]}"
        ) from error
    return name
