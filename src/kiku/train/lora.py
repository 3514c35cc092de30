# pyright: basic
# What torch gives is only partly typed.
"""Low-rank adapters beside the frozen weights of a decoder, and PEFT's files of them.

A weight W becomes W + (alpha / rank) B A. kiku's attention has one matrix for query, key and value;
each gets an adapter of its own, as in transformers, whose names PEFT's files use. transformers
orders the rows of query and key otherwise, and so are those of their B.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kiku.checkpoint.headers import read_header
from kiku.checkpoint.transforms import SplitHalves
from kiku.errors import CheckpointError, TrainingError
from kiku.lm import LM
from kiku.train.durable import durable
from kiku.train.settings import TARGETS, LoRASettings

_FILE, _CONFIG = "adapter_model.safetensors", "adapter_config.json"

_PLACES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "attention.in_proj": (
        ("q_proj", "k_proj", "v_proj"),
        ("self_attn.q_proj.linear", "self_attn.k_proj.linear", "self_attn.v_proj.linear"),
    ),
    "attention.out_proj": (("o_proj",), ("self_attn.o_proj.linear",)),
    "feed_forward.linear_in": (("fc1",), ("mlp.fc1",)),
    "feed_forward.linear_out": (("fc2",), ("mlp.fc2",)),
}
"""kiku's linear map in a layer -> the targets that lie in it, and their places in transformers."""


class Adapted(nn.Module):
    """A frozen linear map with adapters for some of its equal parts."""

    def __init__(self, base: nn.Linear, parts: tuple[str, ...], settings: LoRASettings) -> None:
        """`parts` are the targets that lie in it, one below the other; those asked for get an
        adapter, which changes nothing yet."""
        super().__init__()
        self.base, self.parts = base, parts
        self.scale = settings.alpha / settings.rank
        self.dropout = nn.Dropout(settings.dropout)
        rows = base.out_features // len(parts)
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for part in parts:
            if part in settings.targets:
                down = torch.empty(settings.rank, base.in_features, device=base.weight.device)
                nn.init.kaiming_uniform_(down, a=5**0.5)
                up = torch.zeros(rows, settings.rank, device=base.weight.device)
                self.down[part], self.up[part] = nn.Parameter(down), nn.Parameter(up)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D']"""
        y = self.base(x)
        held = self.dropout(x).to(next(iter(self.down.values())).dtype)
        rows = self.base.out_features // len(self.parts)
        deltas = [
            nn.functional.linear(nn.functional.linear(held, self.down[part]), self.up[part])
            if part in self.down
            else held.new_zeros(*held.shape[:-1], rows)
            for part in self.parts
        ]
        # Added in the wider of the two: the base may be bfloat16.
        return (y + self.scale * torch.cat(deltas, dim=-1)).to(y.dtype)

    def merged(self, adapters: Mapping[str, Tensor]) -> Tensor:
        """The weight with the adapters in it, in the dtype of the weight.

        Args:
            adapters: by name, as in `named_parameters`: "down.q_proj", "up.q_proj", ...
        """
        weight = self.base.weight.detach().float().clone()
        for part, rows in zip(self.parts, weight.chunk(len(self.parts)), strict=True):
            if f"down.{part}" in adapters:
                down, up = adapters[f"down.{part}"].float(), adapters[f"up.{part}"].float()
                rows += self.scale * (up @ down).to(rows.device)
        return weight.to(self.base.weight.dtype)


def adapt(lm: LM, settings: LoRASettings) -> None:
    """Freeze a decoder, in place, and put adapters on it.

    Raises:
        TrainingError: `also` names a part that there is not.
    """
    lm.requires_grad_(False)
    for layer in lm.transformer.layers:
        for place, (parts, _) in _PLACES.items():
            if any(part in settings.targets for part in parts):
                room, name = place.split(".")
                inside = getattr(layer, room)
                setattr(inside, name, Adapted(getattr(inside, name), parts, settings))
    parts = dict(lm.named_children())
    for name in settings.also:
        if name not in parts:
            raise TrainingError(
                f"lora.also names {name!r}, which a decoder has not; it has {', '.join(parts)}"
            )
        parts[name].requires_grad_(True)


def adapted(lm: LM) -> Iterator[tuple[int, str, Adapted]]:
    """Layer, place and module of every linear map that has adapters."""
    for i, layer in enumerate(lm.transformer.layers):
        for place in _PLACES:
            module = layer.get_submodule(place)
            if isinstance(module, Adapted):
                yield i, place, module


def merged_state(lm: LM, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A decoder's `state_dict` under its plain names, with what was trained in it.

    Args:
        lm: with or without adapters.
        trained: values of trained weights, by their names in `lm`; adapters are merged.
    """
    state: dict[str, Tensor] = {}
    for name, value in lm.state_dict().items():
        if ".down." not in name and ".up." not in name:
            plain = name.replace(".base.", ".")
            state[plain] = trained.get(name, value).detach().to(value.dtype)
    for i, place, module in adapted(lm):
        prefix = f"transformer.layers.{i}.{place}."
        mine = {
            name.removeprefix(prefix): value
            for name, value in trained.items()
            if name.startswith(prefix)
        }
        state[f"{prefix}weight"] = module.merged(mine)
    return state


@dataclass(frozen=True, slots=True)
class _Side:
    """One adapter of one layer, in kiku's names and in PEFT's."""

    ours: str
    theirs: str
    turned: bool
    """Whether transformers has the rows of its B in another order."""


def _sides(lm: LM) -> Iterator[tuple[_Side, _Side]]:
    """The two matrices, A and B, of every adapter."""
    for i, place, module in adapted(lm):
        parts, places = _PLACES[place]
        for part, there in zip(parts, places, strict=True):
            if part in module.down:
                ours = f"transformer.layers.{i}.{place}."
                theirs = f"base_model.model.model.layers.{i}.{there}."
                turned = part in ("q_proj", "k_proj")
                yield (
                    _Side(f"{ours}down.{part}", f"{theirs}lora_A.weight", False),
                    _Side(f"{ours}up.{part}", f"{theirs}lora_B.weight", turned),
                )


def save_adapter(
    folder: Path, lm: LM, trained: Mapping[str, Tensor], settings: LoRASettings, base: str
) -> list[str]:
    """Write the adapters as PEFT would on transformers' model.

    Args:
        folder: made if need be.
        lm: with adapters.
        trained: their values, by their names in `lm`.
        settings: rank, alpha, targets.
        base: what they belong to, for PEFT to load.

    Returns:
        Names of what was trained besides adapters, which has no place in these files.

    Raises:
        TrainingError: the folder cannot be written.
    """
    heads = lm.config.transformer.num_heads
    tensors: dict[str, Tensor] = {}
    for side in (one for pair in _sides(lm) for one in pair):
        value = trained[side.ours].detach().float().cpu()
        tensors[side.theirs] = (_turned(value, heads) if side.turned else value).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    with durable(folder / _FILE) as beside:
        save_file(tensors, beside, metadata={"format": "pt"})
    with durable(folder / _CONFIG) as beside:
        beside.write_text(json.dumps(_peft_config(settings, base), indent=2) + "\n")
    return [name for name in trained if ".down." not in name and ".up." not in name]


def _peft_config(settings: LoRASettings, base: str) -> dict[str, Any]:
    places = dict(pair for parts in _PLACES.values() for pair in zip(*parts, strict=True))
    wanted = [re.escape(places[target]) for target in TARGETS if target in settings.targets]
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        # A pattern, for the codec has parts of the same names.
        "target_modules": rf"model\.layers\.\d+\.({'|'.join(wanted)})",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "task_type": None,
    }


def _turned(rows: Tensor, num_heads: int) -> Tensor:
    """Rows of a query's or key's B in transformers' order."""
    transform = SplitHalves(num_heads)
    return transform.write([torch.cat([rows, rows, rows])])[0]


def _turned_back(rows: Tensor, num_heads: int) -> Tensor:
    transform = SplitHalves(num_heads)
    return transform.read([rows, rows, rows])[0][: len(rows)]


def read_adapter_settings(folder: Path) -> LoRASettings:
    """Rank, alpha and targets of PEFT's files.

    Raises:
        TrainingError: they cannot be read, or are of a kind that kiku does not have.
    """
    try:
        values = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        rank, alpha = int(values["r"]), float(values["lora_alpha"])
        names = read_header(folder / _FILE)
    except (OSError, ValueError, KeyError, TypeError, CheckpointError) as error:
        raise TrainingError(f"{folder} holds no adapter of PEFT's: {error}") from error
    odd = [
        key
        for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save")
        if values.get(key)
    ]
    if odd or values.get("peft_type") != "LORA" or values.get("bias", "none") != "none":
        raise TrainingError(
            f"{folder / _CONFIG} has {', '.join(odd) or 'a bias or another method'}: kiku reads "
            "plain LoRA"
        )
    targets = tuple(t for t in TARGETS if any(t in name.split(".") for name in names))
    if not targets:
        raise TrainingError(f"{folder / _FILE} has no adapters for any of {', '.join(TARGETS)}")
    return LoRASettings(rank=rank, alpha=alpha, targets=targets)


@torch.no_grad()
def load_adapter(folder: Path, lm: LM) -> None:
    """Fill the adapters of a decoder from PEFT's files.

    Raises:
        TrainingError: the files are missing or damaged, or hold other adapters.
    """
    path = folder / _FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error
    sides = [side for pair in _sides(lm) for side in pair]
    weights = dict(lm.named_parameters())
    missing = {side.theirs for side in sides} ^ tensors.keys()
    if missing:
        raise TrainingError(
            f"{path} does not hold the adapters that are asked for: {sorted(missing)[0]} "
            f"(and {len(missing) - 1} more) differ; take its rank and targets"
        )
    heads = lm.config.transformer.num_heads
    for side in sides:
        value, weight = tensors[side.theirs], weights[side.ours]
        if value.shape != weight.shape:
            raise TrainingError(
                f"{path}: {side.theirs} is {list(value.shape)}, not {list(weight.shape)}"
            )
        weight.copy_(_turned_back(value, heads) if side.turned else value)
