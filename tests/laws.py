"""The seven laws of streaming, one helper each, for any module that remembers.

A `Remembering` wraps a module so that the laws need not know it: how to make a state, how to run it
on a time slice of its input, and what time step its input must be cut at.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kiku.nn.state import copy_slot, leaves

GARBAGE = 1e3
"""What unwritten memory holds in these tests: a value that nobody reads by accident without being
seen."""


@dataclass(frozen=True)
class Remembering:
    """A module under test; the time axis of input and output is the last one."""

    init: Callable[[int], Any]
    run: Callable[[Tensor, Any, Tensor], Tensor]
    unit: int = 1
    """Inputs are cut at multiples of this many steps."""
    tolerance: float = 1e-5

    def alone(self, x: Tensor) -> Tensor:
        """All of `x` in one call from a fresh state."""
        return self.run(x, self.init(x.shape[0]), torch.ones(x.shape[0], dtype=torch.bool))

    def cut(self, x: Tensor, lengths: list[int]) -> Tensor:
        """`x` in pieces of `lengths` units."""
        state, active, at, out = (
            self.init(x.shape[0]),
            torch.ones(x.shape[0], dtype=torch.bool),
            0,
            [],
        )
        for length in lengths:
            out.append(self.run(x[..., at : at + length * self.unit], state, active))
            at += length * self.unit
        assert at == x.shape[-1], "the lengths do not add up to the input"
        return torch.cat(out, dim=-1)

    def same(self, a: Tensor, b: Tensor) -> None:
        """Equal for integers, close for floats."""
        if a.is_floating_point():
            torch.testing.assert_close(a, b, atol=self.tolerance, rtol=self.tolerance)
        else:
            assert torch.equal(a, b)


def _units(x: Tensor, module: Remembering) -> int:
    return x.shape[-1] // module.unit


def check_chunking(module: Remembering, x: Tensor) -> None:
    """1. Any cutting of the input gives the same output."""
    whole, n = module.alone(x), _units(x, module)
    module.same(module.cut(x, [1] * n), whole)
    module.same(module.cut(x, [n // 3, 1, n - n // 3 - 1]), whole)
    module.same(module.cut(x, [2] * (n // 2) + [1] * (n % 2)), whole)


def check_causality(module: Remembering, x: Tensor) -> None:
    """2. Changing the future does not change the past."""
    n = _units(x, module)
    other = x.clone()
    now = (n // 2) * module.unit
    other[..., now:] = x[..., now:].flip(-1) if not x.is_floating_point() else -2 * x[..., now:]
    a, b = module.alone(x), module.alone(other)
    split = a.shape[-1] * (n // 2) // n
    module.same(a[..., :split], b[..., :split])
    assert not torch.equal(a[..., split:], b[..., split:]), (
        "the future was not changed: the check proves nothing"
    )


def check_rows(module: Remembering, x: Tensor) -> None:
    """3. A slot alone equals the same slot in a batch; NaN in the other rows does not leak."""
    alone = module.alone(x[:1])
    module.same(module.alone(x)[:1], alone)
    if x.is_floating_point():
        poisoned = x.clone()
        poisoned[1:] = torch.nan
        module.same(module.alone(poisoned)[:1], alone)


def check_stillness(module: Remembering, x: Tensor) -> None:
    """4. An inactive slot is unmoved by a step, even by one that is full of NaN."""
    n = _units(x, module)
    first = (n // 2) * module.unit
    state = module.init(x.shape[0])
    active = torch.ones(x.shape[0], dtype=torch.bool)
    module.run(x[..., :first], state, active)
    before = [leaf[0].clone() for leaf in leaves(state)]
    sleeping = active.clone()
    sleeping[0] = False
    noise = x[..., first:].clone()
    if x.is_floating_point():
        noise[0] = torch.nan
    module.run(noise, state, sleeping)
    for leaf, kept in zip(leaves(state), before, strict=True):
        assert torch.equal(leaf[0], kept)
    out = module.run(x[..., first:], state, ~sleeping)
    module.same(out[:1], module.alone(x)[:1, ..., -out.shape[-1] :])


def check_freshness(module: Remembering, x: Tensor) -> None:
    """5. After a copy of a fresh state a slot behaves as new, whatever it did before."""
    state = module.init(x.shape[0])
    module.run(
        GARBAGE * x if x.is_floating_point() else x.flip(-1),
        state,
        torch.ones(x.shape[0], dtype=torch.bool),
    )
    fresh = module.init(1)
    for slot in range(x.shape[0]):
        copy_slot(state, slot, fresh)
    module.same(module.run(x, state, torch.ones(x.shape[0], dtype=torch.bool)), module.alone(x))


def check_nothing_hidden(module: Remembering, x: Tensor, network: torch.nn.Module) -> None:
    """6. Two streams interleaved through one module equal two apart; its attributes do not
    change."""
    before = {name: copy.copy(vars(part)) for name, part in network.named_modules()}
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    a, b, n = x[:1], x[1:2], _units(x, module)
    states, out, one = (module.init(1), module.init(1)), ([], []), torch.ones(1, dtype=torch.bool)
    for i in range(n):
        for stream, state, collected in zip((a, b), states, out, strict=True):
            collected.append(
                module.run(stream[..., i * module.unit : (i + 1) * module.unit], state, one)
            )
    module.same(torch.cat(out[0], -1), module.alone(a))
    module.same(torch.cat(out[1], -1), module.alone(b))
    for name, part in network.named_modules():
        assert vars(part).keys() == before[name].keys(), name
        for key, value in vars(part).items():
            assert value is before[name][key] or value == before[name][key], f"{name}.{key} changed"
    for name, buffer in network.named_buffers():  # these change inside an attribute that stays
        assert torch.equal(buffer, buffers[name]), f"{name} changed"


def check_addresses(module: Remembering, x: Tensor) -> None:
    """7. No leaf moves in memory over a step."""
    state = module.init(x.shape[0])
    before = [leaf.data_ptr() for leaf in leaves(state)]
    for i in range(_units(x, module)):
        module.run(
            x[..., i * module.unit : (i + 1) * module.unit],
            state,
            torch.ones(x.shape[0], dtype=torch.bool),
        )
    assert [leaf.data_ptr() for leaf in leaves(state)] == before


def check_all(module: Remembering, x: Tensor, network: torch.nn.Module) -> None:
    """All seven on one module."""
    with torch.inference_mode():
        check_chunking(module, x)
        check_causality(module, x)
        check_rows(module, x)
        check_stillness(module, x)
        check_freshness(module, x)
        check_nothing_hidden(module, x, network)
        check_addresses(module, x)
