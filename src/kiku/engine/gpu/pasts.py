"""The state of the codec's convolutions, for all slots in one tensor. A slot is one row of it, so
marking, forgetting and going back are one copy each."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kiku.codec import MimiEncoder
from kiku.codec.seanet import SEANetState
from kiku.nn.conv import ConvState

_State = TypeVar("_State")


class Pasts:
    """[B + 1, N] float32: for each slot the pasts of all convolutions, one after the other."""

    def __init__(self, codec: MimiEncoder, num_slots: int, device: torch.device) -> None:
        """All slots are new and empty."""
        # On the meta device, as only the shapes are needed.
        self._seanet = codec.seanet.init_state(1, "meta", torch.float32)
        self._downsample = codec.downsample.init_state(1, "meta", torch.float32)
        self._shapes: dict[str, tuple[int, int]] = {}

        def note(name: str, conv: ConvState) -> ConvState:
            self._shapes[name] = (conv.past.shape[1], conv.past.shape[2])
            return conv

        _rebuilt(self._seanet, note, "seanet")
        note("downsample", self._downsample)
        self.width = sum(channels * length for channels, length in self._shapes.values())
        self.rows = torch.zeros(num_slots + 1, self.width, device=device)

    def states(self, rows: Tensor, begun: Tensor) -> tuple[SEANetState, ConvState]:
        """The states for the codec's modules, as views of `rows` [R, N] that they advance in place.

        Args:
            rows: a copy of the rows of some slots.
            begun: [R] whether each slot has processed any sound.
        """
        parts = self._views(rows)

        def filled(name: str, _: ConvState) -> ConvState:
            return ConvState(parts[name], begun)

        seanet = _rebuilt(self._seanet, filled, "seanet")
        return seanet, filled("downsample", self._downsample)

    def _views(self, rows: Tensor) -> dict[str, Tensor]:
        """[..., N] -> [..., C, P] of each convolution, by name."""
        at, views = 0, dict[str, Tensor]()
        for name, (channels, length) in self._shapes.items():
            end = at + channels * length
            views[name] = rows[..., at:end].unflatten(-1, (channels, length))
            at = end
        return views

    def named(self, row: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """A slot's row [N] as saved: the pasts by the names of the convolutions."""
        parts = self._views(torch.from_numpy(row))  # pyright: ignore[reportUnknownMemberType]
        return {f"past.{name}": part.numpy() for name, part in parts.items()}

    def check(self, saved: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The row [N] that the saved arrays make together.

        Raises:
            ValueError: an array has another shape or dtype, or is not finite.
            LookupError: one of them is missing.
        """
        parts: list[NDArray[np.float32]] = []
        for name, shape in self._shapes.items():
            part = saved[f"past.{name}"]
            if part.shape != shape or part.dtype != np.float32:
                raise ValueError(
                    f"the past of {name} is {part.dtype} {list(part.shape)} where float32 "
                    f"{list(shape)} belongs"
                )
            if not np.isfinite(part).all():
                raise ValueError(f"a past of {name} that is not finite")
            parts.append(part.reshape(-1))
        return np.concatenate(parts)

    @property
    def num_saved(self) -> int:
        """How many arrays `named` gives."""
        return len(self._shapes)


def _rebuilt(state: _State, leaf: Callable[[str, ConvState], ConvState], name: str) -> _State:
    """The same tree of dataclasses and lists, each convolution's state passed through `leaf`."""
    if isinstance(state, ConvState):
        return cast(_State, leaf(name, state))
    if isinstance(state, list):
        parts = cast("list[Any]", state)
        built = [_rebuilt(part, leaf, f"{name}.{i}") for i, part in enumerate(parts)]
        return cast(_State, built)
    assert dataclasses.is_dataclass(state)
    assert not isinstance(state, type)
    fields = [f.name for f in dataclasses.fields(state)]
    return type(state)(**{f: _rebuilt(getattr(state, f), leaf, f"{name}.{f}") for f in fields})
