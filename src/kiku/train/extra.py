"""Check that the packages that training needs are installed."""

from importlib.util import find_spec

from kiku.errors import MissingExtra


def need_torch(what: str) -> None:
    """Report that PyTorch is missing before anything is read or written.

    Raises:
        MissingExtra: PyTorch is not installed.
    """
    if find_spec("torch") is None:
        raise MissingExtra(what, "train")
