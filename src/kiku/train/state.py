# pyright: basic
# What torch gives is only partly typed.
"""A run's checkpoint: one safetensors file that is always whole.

    weights/NAME, average/NAME      what is trained, and its running mean
    first/NAME, second/NAME         AdamW's two moments; its count of steps is the run's

Tensors may be in parts on several processes: in the file they are whole. So the file does not
depend on how many processes wrote it, and any number of processes can read it.

Knows tensors by their names; does not know what they do.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kiku.errors import TrainingError
from kiku.train.atomic_files import durable
from kiku.train.sharding import fill
from kiku.train.tensor_files import give_parts, write_tensors

FILE = "state.safetensors"
_FORMAT = "kiku run 1"


@dataclass(slots=True)
class RunState:
    """The state of a run after a step."""

    step: int
    about: dict[str, Any]
    """What the run is: settings, pack, model; plain values."""
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    moments: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    """Sums for the next line of the curve, added up since the last one."""


def save_state(folder: Path, state: RunState, *, writes: bool = True) -> None:
    """Replace the checkpoint.

    Args:
        folder: folder of the run.
        state: state of the run; if tensors are in parts, every process calls this.
        writes: whether this process writes the file; else it only gives its parts.

    Raises:
        TrainingError: it cannot be written; the one before is still there.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in state.weights.items():
        tensors[f"weights/{name}"] = value
    for name, value in state.average.items():
        tensors[f"average/{name}"] = value
    for name, (first, second) in state.moments.items():
        tensors[f"first/{name}"], tensors[f"second/{name}"] = first, second
    if not writes:
        give_parts(tensors)
        return
    said = {"format": _FORMAT, "step": state.step, "about": state.about, "sums": state.sums}
    with durable(folder / FILE) as beside:
        write_tensors(beside, tensors, {"kiku": json.dumps(said)})


def read_state(folder: Path, *, moments: bool = True) -> RunState | None:
    """The state that `save_state` wrote; None if there is none yet.

    Raises:
        TrainingError: the file is damaged, or another version wrote it.
    """
    path = folder / FILE
    if not path.exists():
        return None
    found: dict[str, dict[str, Tensor]] = {
        "weights": {}, "average": {}, "first": {}, "second": {},
    }  # fmt: skip
    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads(file.metadata()["kiku"])
            for key in file.keys():  # noqa: SIM118 - it is no dict
                kind, _, name = key.partition("/")
                if moments or kind in ("weights", "average"):
                    found[kind][name] = file.get_tensor(key)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is damaged, or not a checkpoint of a run: {error}") from error
    if said.get("format") != _FORMAT:
        raise TrainingError(f"{path} has the format {said.get('format')!r}, not {_FORMAT!r}")
    pairs = {name: (first, found["second"][name]) for name, first in found["first"].items()}
    return RunState(
        said["step"], said["about"], found["weights"], found["average"], pairs, said["sums"]
    )


def moments_of(
    optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """AdamW's two moments by name; empty before its first step."""
    return {
        name: (optimizer.state[weight]["exp_avg"], optimizer.state[weight]["exp_avg_sq"])
        for name, weight in named.items()
        if weight in optimizer.state
    }


def restore_moments(
    optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor], state: RunState
) -> None:
    """Give AdamW the moments of a saved state, in parts or whole as its weights are."""
    for name, (first, second) in state.moments.items():
        weight = named[name]
        moments = torch.zeros_like(weight), torch.zeros_like(weight)
        for moment, values in zip(moments, (first, second), strict=True):
            fill(moment, values)
        optimizer.state[weight] = {
            "step": torch.tensor(float(state.step)),
            "exp_avg": moments[0], "exp_avg_sq": moments[1],
        }  # fmt: skip
