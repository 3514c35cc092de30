"""Which form is used where a Triton kernel works, fails, or stops the device."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from kiku.engine.gpu.kernel_choice import KernelChoice
from kiku.errors import ConfigError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def choice(compare: Callable[[], Any]) -> KernelChoice[str]:
    return KernelChoice(lambda: "kernel", "plain form", compare, "attention", "plain", "it is slow")


def fails(error: Exception) -> Callable[[], Any]:
    def compare() -> None:
        raise error

    return compare


def test_a_kernel_that_agrees_is_used() -> None:
    assert choice(lambda: None).pick(CUDA) == "kernel"


@pytest.mark.parametrize(
    ("compare", "why"),
    [
        (lambda: "it is off by 3", "it is off by 3"),
        (fails(ImportError("no triton")), r"cannot be imported \(no triton\)"),
        (fails(KeyError("x")), r"the kernel fails \(KeyError: 'x'\)"),
    ],
)
def test_a_kernel_that_fails_is_not(
    compare: Any, why: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    with caplog.at_level(logging.WARNING):
        assert choice(compare).pick(CUDA) == "plain form"
    (told,) = caplog.messages
    assert told.startswith("it is slow: ")
    with pytest.raises(ConfigError, match=f"attention='triton' does not .*{why}; 'plain' does"):
        choice(compare).pick(CUDA, required=True)


def test_on_a_processor_it_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert choice(fails(AssertionError())).pick(CPU) == "plain form"


def test_memory_that_does_not_suffice_says_nothing_of_the_kernel() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        choice(fails(torch.OutOfMemoryError("CUDA out of memory"))).pick(CUDA)


def test_a_device_that_a_kernel_stopped_is_not_used_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every later call of CUDA in the process fails, also those of the plain form."""

    def stopped(_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", stopped)
    advice = r"a kernel stopped 'cuda' \(RuntimeError: illegal\).*GpuOptions\(attention='plain'\)"
    with pytest.raises(ConfigError, match=advice):
        choice(fails(RuntimeError("illegal"))).pick(CUDA)
