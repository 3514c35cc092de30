"""Is what training needs installed?"""

from importlib.util import find_spec

from kiku.errors import MissingExtra


def need_torch(what: str) -> None:
    """Say politely that PyTorch is missing, before anything is read or written.

    Raises:
        MissingExtra: it is.
    """
    if find_spec("torch") is None:
        raise MissingExtra(what, "train")
