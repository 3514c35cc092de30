"""`BatchFeature`: the dict of arrays that the processor gives and `generate` takes."""

from typing import Any, Self

import numpy as np
import torch

from kiku.errors import InputError


class BatchFeature(dict[str, Any]):
    """A dict whose entries are attributes too, with `to` and `convert_to_tensors`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the tensors to a device, and cast the floating ones, in place; returns itself.

        Args:
            *args: a device, a dtype, or both in this order, as `torch.Tensor.to` takes them.
            **kwargs: `device`, `dtype`, `non_blocking`.
        """
        device = kwargs.get("device")
        if device is None and args and not isinstance(args[0], torch.dtype):
            device = args[0]
            if not isinstance(device, str | int | torch.device):
                raise InputError(f"a batch goes to a device or a dtype, not to {device!r}")
        for key, value in self.items():
            if isinstance(value, torch.Tensor):
                if value.is_floating_point():
                    self[key] = value.to(*args, **kwargs)
                elif device is not None:
                    self[key] = value.to(
                        device=device, non_blocking=kwargs.get("non_blocking", False)
                    )
        return self

    def convert_to_tensors(self, tensor_type: str | None = None) -> Self:
        """Turn lists of arrays into one array or tensor each, in place.

        Args:
            tensor_type: "pt", "np", or None for no change.

        Raises:
            InputError: another type, or rows of different lengths.
        """
        kind = getattr(tensor_type, "value", tensor_type)
        if kind is None:
            return self
        if kind not in ("pt", "np"):
            raise InputError(f"return_tensors must be 'pt', 'np' or None, not {tensor_type!r}")
        for key, value in self.items():
            if isinstance(value, torch.Tensor):
                array = value.numpy(force=True)
            else:
                if len({np.shape(row) for row in value}) > 1:
                    raise InputError(
                        f"the rows of {key!r} have different lengths; pass padding=True"
                    )
                array = np.asarray(value)
            self[key] = _tensor(array) if kind == "pt" else array
        return self


def _tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
