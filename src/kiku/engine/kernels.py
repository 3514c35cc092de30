"""Whether the operators of `kiku-kernels` are used: decided once, after running one of them."""

import functools
import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from kiku.engine.quiet import onnxruntime
from kiku.graph import Variant, product_model

_log = logging.getLogger(__name__)

_OPERATORS = 3
"""The version that `kiku_kernels.OPERATORS` must be: the graphs are written for it."""

_OFF = ("off", "0", "none")


@dataclass(frozen=True, slots=True)
class Kernels:
    """The operators that run matrix products, attention, and the codec's own parts."""

    library: str | None
    """The file with kiku's operators; None leaves all to ONNX Runtime."""
    processor: str
    """Which of kiku's kernels this machine uses, such as "avx2"; "" if none are used."""
    reason: str
    """Why kiku's operators are not used, in a few words; "" if they are."""

    @property
    def variant(self) -> Variant:
        """Which of a model's two graphs to load."""
        return Variant.PLAIN if self.library is None else Variant.OWN

    def register(self, options: Any) -> None:
        """Make the operators known to a session that is made with these options."""
        if self.library is not None:
            options.register_custom_ops_library(self.library)


ONNX_RUNTIME = Kernels(None, "", "ONNX Runtime's own kernels were asked for")
"""Leaves all to ONNX Runtime."""


def _none(reason: str) -> Kernels:
    return Kernels(None, "", reason)


@functools.cache
def kernels() -> Kernels:
    """The operators that this process uses. With `KIKU_KERNELS=off` in the environment all is left
    to ONNX Runtime."""
    if os.environ.get("KIKU_KERNELS", "").strip().lower() in _OFF:
        return _none("KIKU_KERNELS is off")
    try:
        found = _installed()
    except Exception as error:  # a damaged package may raise anything
        return _refused(f"it is damaged ({type(error).__name__}: {error}): install it again")
    if found.library is not None and (problem := _problem(found)):
        return _refused(problem)
    return found


def _refused(problem: str) -> Kernels:
    """No operators, although the package is installed. The warning says why all is slower."""
    _log.warning("kiku-kernels is not used: %s", problem)
    return _none(problem)


def _installed() -> Kernels:
    """The operators that the package offers, or the reason why there are none."""
    try:
        import kiku_kernels
    except ModuleNotFoundError as error:
        if error.name != "kiku_kernels":
            raise
        return _none("kiku-kernels is not installed")
    if getattr(kiku_kernels, "__file__", None) is None:  # Python takes any folder for a package
        folders = ", ".join(kiku_kernels.__path__)
        return _none(
            f"kiku-kernels is not installed: {folders} has the name, but contains no package"
        )
    if getattr(kiku_kernels, "OPERATORS", 0) != _OPERATORS:
        version = getattr(kiku_kernels, "__version__", "of an unknown version")
        return _none(f"kiku-kernels {version} has other operators: install kiku again")
    try:
        return Kernels(str(kiku_kernels.library()), kiku_kernels.processor(), "")
    except kiku_kernels.NoKernels as error:
        return _refused(str(error))


def _problem(found: Kernels) -> str:
    """What is wrong with the operators, or "": one is run on numbers whose product is known."""
    generator = np.random.default_rng(0)
    x = generator.integers(-126, 127, (3, 128))
    x[:, 0] = 127  # so a row's scale is 1, and nothing is rounded
    matrix = generator.integers(-126, 127, (70, 128))
    matrix[:, 0] = 127
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        found.register(options)
        model = product_model(matrix.astype(np.float32))
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {"x": x.astype(np.float32)})
    except Exception as error:  # ONNX Runtime's errors have no common base but this
        return f"onnxruntime {onnxruntime.__version__} does not accept it ({str(error)[:200]})"
    return "" if np.array_equal(y, x @ matrix.T) else "it computed a wrong product"
