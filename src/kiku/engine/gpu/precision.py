"""Whether products of float32 on a GPU may be rounded to TF32. PyTorch has one setting of it for
the whole process, in an old and a new form."""

import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch

_cudnn: Any = torch.backends.cudnn
_matmul: Any = torch.backends.cuda.matmul


@dataclass(frozen=True)
class _Setting:
    """A setting of the process: how to read it, how to change it, and its two values."""

    now: Callable[[], Any]
    put: Callable[[Any], Any]
    exact: Any
    quick: Any


def _settings() -> list[_Setting]:
    """The settings to change. From PyTorch 2.9 on these products have new settings of their own.
    Once a process has set the new ones, reading the old ones fails; but setting the old ones
    changes the new ones too."""

    def of(owner: Any, name: str, exact: Any, quick: Any) -> _Setting:
        return _Setting(
            lambda: getattr(owner, name), lambda value: setattr(owner, name, value), exact, quick
        )

    # cuDNN's search for the quickest kernels would find others in every process.
    search = of(_cudnn, "benchmark", False, False)
    if hasattr(_cudnn, "conv"):
        products = (of(one, "fp32_precision", "ieee", "tf32") for one in (_matmul, _cudnn.conv))
        return [*products, search]
    put = cast("Callable[[str], None]", torch.set_float32_matmul_precision)
    return [
        _Setting(torch.get_float32_matmul_precision, put, "highest", "high"),
        of(_cudnn, "allow_tf32", False, True),
        search,
    ]


class _Products:
    """Who is inside `products`, and what the settings were before the first caller came in. All
    threads of the process share the settings."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside: list[bool] = []  # for each caller, whether products may round
        self.before: list[tuple[_Setting, Any]] = []

    def enter(self, tf32: bool) -> None:
        with self.lock:
            if not self.inside:
                self.before = [(one, one.now()) for one in _settings()]
            self.inside.append(tf32)
            self._put()

    def leave(self, tf32: bool) -> None:
        with self.lock:
            self.inside.remove(tf32)
            self._put()

    def _put(self) -> None:
        for one, before in self.before:
            wanted = one.quick if all(self.inside) else one.exact
            wanted = wanted if self.inside else before
            if one.now() != wanted:
                one.put(wanted)


_PRODUCTS = _Products()

if hasattr(os, "register_at_fork"):  # threads that are inside stay in the parent
    os.register_at_fork(after_in_child=_PRODUCTS.__init__)


@contextmanager
def products(*, tf32: bool = False) -> Generator[None]:
    """Make products and convolutions of float32 exact while the block runs, and put the settings
    back afterwards. With `tf32` they may be rounded, unless another caller needs them exact. By
    itself cuDNN would round to TF32, and then codes differ from those of every other device."""
    _PRODUCTS.enter(tf32)
    try:
        yield
    finally:
        _PRODUCTS.leave(tf32)
