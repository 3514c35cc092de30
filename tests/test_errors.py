"""Errors come back whole from another process."""

import copy
import multiprocessing
import pickle

import pytest

from kiku import errors
from kiku.errors import KikuError, MissingExtra
from kiku.serve.admission import Busy

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, KikuError)
]
WHOLE = [MissingExtra("the engine", "torch"), Busy("it is full", 3)]
"""Those that are made of more than a message."""


@pytest.mark.parametrize(
    "error",
    [*WHOLE, *(kind("3 samples") for kind in KINDS if kind is not MissingExtra)],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickle_and_copy(error: KikuError) -> None:
    error.add_note("while reading a.wav")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)


def _fails(_: int) -> None:
    raise MissingExtra("the engine", "torch")


def test_a_missing_extra_is_told_by_a_pool() -> None:
    """An error that cannot be read back ends the pool's thread, and `get` waits for ever."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with pytest.raises(MissingExtra, match=r"'\.\[torch\]") as caught:
            pool.map_async(_fails, [0]).get(60)
        assert caught.value.extra == "torch"
