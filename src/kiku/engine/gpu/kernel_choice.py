"""The choice between a Triton kernel and what replaces it: the kernel is used where it compiles,
runs and agrees with plain PyTorch on this device."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from kiku.errors import ConfigError

_LOG = logging.getLogger(__name__)

Form = TypeVar("Form")


@dataclass(frozen=True)
class KernelChoice(Generic[Form]):
    """A kernel, the form that replaces it where it does not work, and how both are compared."""

    kernel: Callable[[], Form]
    """Returns the kernel's form. It may import Triton, which may be missing."""
    fallback: Form
    """The form that is used where the kernel does not work."""
    compare: Callable[[], str | None]
    """Runs the kernel next to plain PyTorch, and returns how they differ, or None. It may raise
    whatever a compiler raises."""
    option: str
    """The option of `GpuOptions` that asks for the kernel, or leaves it out."""
    without: str
    """The value of that option which leaves the kernel out."""
    warning: str
    """What using the fallback means, for the log."""

    def pick(self, device: torch.device, *, required: bool = False) -> Form:
        """The kernel if it works on `device`; else the fallback, with a warning that says why.

        Raises:
            ConfigError: the kernel is `required` and does not work, or it stopped the device.
            torch.OutOfMemoryError: there is no memory to try it.
        """
        fault = self.fault(device)
        if fault is None:
            return self.kernel()
        if required:
            raise ConfigError(
                f"{self.option}='triton' does not work here: {fault}; {self.without!r} does"
            )
        _LOG.warning("%s: %s", self.warning, fault)
        return self.fallback

    def fault(self, device: torch.device) -> str | None:
        """Why the kernel cannot be used on `device`; None if it can. It is run to find out: Triton
        compiles a kernel when it is first run, and needs a C compiler for that. Raises as `pick`.
        """
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return "Triton's kernels run on CUDA devices"
        try:
            self.kernel()
            return self.compare()
        except ImportError as error:
            return f"Triton, which comes with PyTorch for CUDA, cannot be imported ({error})"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler may raise
            failed = f"{type(error).__name__}: {str(error).strip()[-200:]}"
            self._check_alive(device, failed)
            return f"the kernel fails ({failed})"

    def _check_alive(self, device: torch.device, failed: str) -> None:
        """Raise ConfigError if the device computes nothing any more: after an invalid access to its
        memory every call of CUDA fails until the process ends, so that no fallback helps."""
        if device.type == "cuda":
            try:
                torch.cuda.synchronize(device)
            except RuntimeError as error:
                raise ConfigError(
                    f"a kernel stopped {str(device)!r} ({failed}), and this process can use it no "
                    f"more; start again with GpuOptions({self.option}={self.without!r})"
                ) from error
