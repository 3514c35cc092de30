"""Low-rank adapters on the frozen weights of a decoder.

A weight W becomes W + (alpha / rank) B A. kiku's attention has one matrix for query, key and value;
each gets an adapter of its own, as in transformers.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from kiku.errors import TrainingError
from kiku.lm import LM
from kiku.train.new_pieces import train_rows, with_rows
from kiku.train.settings import LoRASettings

PLACES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "attention.in_proj": (
        ("q_proj", "k_proj", "v_proj"),
        ("self_attn.q_proj.linear", "self_attn.k_proj.linear", "self_attn.v_proj.linear"),
    ),
    "attention.out_proj": (("o_proj",), ("self_attn.o_proj.linear",)),
    "feed_forward.linear_in": (("fc1",), ("mlp.fc1",)),
    "feed_forward.linear_out": (("fc2",), ("mlp.fc2",)),
}
"""kiku's linear map in a layer -> the targets inside it, and their names in transformers."""


class Adapted(nn.Module):
    """A frozen linear map of equal parts, some of which have adapters."""

    def __init__(self, base: nn.Linear, parts: tuple[str, ...], settings: LoRASettings) -> None:
        """Add adapters for the parts that `settings.targets` names; they change nothing yet.

        `parts` are all targets inside the map, in the order of their rows.
        """
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
        """[..., D] -> [..., D'], the adapters' output added."""
        y = self.base(x)
        held = self.dropout(x).to(next(iter(self.down.values())).dtype)
        rows = self.base.out_features // len(self.parts)
        deltas = [
            nn.functional.linear(nn.functional.linear(held, self.down[part]), self.up[part])
            if part in self.down
            else held.new_zeros(*held.shape[:-1], rows)
            for part in self.parts
        ]
        # Added in the wider dtype of the two: the base may be bfloat16.
        return (y + self.scale * torch.cat(deltas, dim=-1)).to(y.dtype)

    def merged(self, adapters: Mapping[str, Tensor]) -> Tensor:
        """The weight with the adapters merged into it, in the dtype of the weight.

        Args:
            adapters: their weights by name, as in `named_parameters`: "down.q_proj", ...
        """
        weight = self.base.weight.detach().float().clone()
        for part, rows in zip(self.parts, weight.chunk(len(self.parts)), strict=True):
            if f"down.{part}" in adapters:
                down, up = adapters[f"down.{part}"].float(), adapters[f"up.{part}"].float()
                rows += self.scale * (up @ down).to(rows.device)
        return weight.to(self.base.weight.dtype)


def adapt(lm: LM, settings: LoRASettings, new: range = range(0)) -> None:
    """Freeze a decoder, in place, and put adapters on it.

    Args:
        lm: the decoder.
        settings: rank, targets, other parts to train.
        new: ids of pieces whose rows in the embedding and in the head are trained, too.

    Raises:
        TrainingError: `also` names a part that does not exist.
    """
    lm.requires_grad_(False)
    for layer in lm.transformer.layers:
        for place, (parts, _) in PLACES.items():
            if any(part in settings.targets for part in parts):
                room, name = place.split(".")
                inside = getattr(layer, room)
                setattr(inside, name, Adapted(getattr(inside, name), parts, settings))
    parts = dict(lm.named_children())
    for name in settings.also:
        if name not in parts:
            raise TrainingError(
                f"lora.also names {name!r}, but the decoder has no such part; it has "
                f"{', '.join(parts)}"
            )
        parts[name].requires_grad_(True)
    train_rows(lm, new, settings.also)


def adapted(lm: LM) -> Iterator[tuple[int, str, Adapted]]:
    """Layer, place and module of every linear map that has adapters."""
    for i, layer in enumerate(lm.transformer.layers):
        for place in PLACES:
            module = layer.get_submodule(place)
            if isinstance(module, Adapted):
                yield i, place, module


def merged_state(lm: LM, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A decoder's `state_dict` under its plain names, with the trained weights in it.

    Args:
        lm: a decoder, with or without adapters.
        trained: values of trained weights, by their names in `lm`; adapters are merged.
    """
    state: dict[str, Tensor] = {}
    for name, value in lm.state_dict().items():
        if ".down." not in name and ".up." not in name and not name.endswith(".rows"):
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
    for name, table in with_rows(lm).items():
        state[f"{name}.weight"] = table.merged(trained.get(f"{name}.rows", table.rows.detach()))
    return state
