"""Store the weights of a trunk in a quarter of their size, to start later runs from: in 8 bits,
with a scale for each row."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kiku.errors import ConfigError

_SCALE = "scale/"


def write_small(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors with rows in 8 bits, all others in 16."""
    made: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.dim() < 2:
            made[name] = value.half()
            continue
        rows = value.flatten(1)
        scale = (rows.abs().amax(1, keepdim=True) / 127).half()
        steps = rows / scale.float().clamp(min=1e-7)
        made[name] = steps.round().clamp(-127, 127).to(torch.int8).view(value.shape)
        made[_SCALE + name] = scale
    save_file(made, path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read what `write_small` wrote, or a `trunk.pt`, in float32.

    Raises:
        ConfigError: it is neither, or damaged.
    """
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    try:
        made = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} holds no weights of a trunk ({error})") from error
    found = {name: value.float() for name, value in made.items() if not name.startswith(_SCALE)}
    for name, value in found.items():
        scale = made.get(_SCALE + name)
        if scale is not None:
            value.flatten(1).mul_(scale.float())
    return found
