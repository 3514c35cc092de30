# pyright: basic
# What torch gives is only partly typed.
"""Write and read PEFT's files of adapters on transformers' model.

transformers orders the rows of query and key differently, and so the rows of their B. Tables of
which all or some rows were trained with the adapters are written whole, as `modules_to_save`:
PEFT's trainable token rows do not work with transformers' class, which reads an attribute of the
embedding that PEFT's wrapper hides. PEFT has no place for the text delay, which is in a file of
kiku's own beside its files.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kiku.checkpoint.headers import read_header
from kiku.checkpoint.names import transformers_lm
from kiku.checkpoint.tensor_shapes import lm_shapes
from kiku.checkpoint.transforms import SplitHalves
from kiku.errors import CheckpointError, TrainingError
from kiku.lm import LM
from kiku.train.atomic_files import durable
from kiku.train.lora import PLACES, adapted, merged_state
from kiku.train.new_pieces import NewRows
from kiku.train.settings import TARGETS, LoRASettings

FILE, _CONFIG, DELAY = "adapter_model.safetensors", "adapter_config.json", "kiku_adapter.json"
_PREFIX = "base_model.model."
_UNREAD = (
    "use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "trainable_token_indices",
)  # fmt: skip

_TWICE = r"\.(modules_to_save|original_module)\."
"""Names of tensors that PEFT writes for an embedding in addition to the trained table."""

_TABLES: Mapping[str, tuple[str, ...]] = {
    "model.embed_tokens.embed_tokens": ("text_embedding", "code_embeddings"),
    "lm_head": ("text_head",),
}
"""Tables of transformers' model -> the parts of kiku's decoder that are inside them."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One matrix of an adapter of one layer: its names in kiku and in PEFT."""

    ours: str
    theirs: str
    turned: bool
    """Whether transformers has its rows in another order."""


def _sides(lm: LM) -> Iterator[tuple[_Side, _Side]]:
    """The two matrices, A and B, of every adapter."""
    for i, place, module in adapted(lm):
        parts, places = PLACES[place]
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
    folder: Path,
    lm: LM,
    trained: Mapping[str, Tensor],
    settings: LoRASettings,
    base: str,
    delay_s: float,
) -> list[str]:
    """Write the adapters, and tables trained with them, as PEFT would on transformers' model.

    Args:
        folder: made if needed.
        lm: a decoder with adapters.
        trained: values of trained weights, by their names in `lm`.
        settings: rank, alpha, targets.
        base: the model that the adapters belong to, for PEFT to load.
        delay_s: by how many seconds text lags sound, as it was trained.

    Returns:
        Names of other trained weights, for which these files have no place.

    Raises:
        TrainingError: the folder cannot be written.
    """
    heads = lm.config.transformer.num_heads
    tables = _trained_tables(trained)
    tensors: dict[str, Tensor] = {}
    for side in (one for pair in _sides(lm) for one in pair):
        value = trained[side.ours].detach().float().cpu()
        tensors[side.theirs] = (_turned(value, heads) if side.turned else value).contiguous()
    if tables:
        theirs = transformers_lm(lm.config).to_theirs(merged_state(lm, trained))
        for place in tables:
            weight = theirs[f"{place}.weight"].detach().cpu()
            tensors[f"{_PREFIX}{place}.weight"] = weight.contiguous()
    config = _peft_config(settings, base)
    if tables:
        config["modules_to_save"] = [".".join(place.split(".")[-2:]) for place in tables]
    folder.mkdir(parents=True, exist_ok=True)
    with durable(folder / FILE) as beside:
        save_file(tensors, beside, metadata={"format": "pt"})
    with durable(folder / DELAY) as beside:
        beside.write_text(json.dumps({"text_delay_s": delay_s}) + "\n")
    with durable(folder / _CONFIG) as beside:
        beside.write_text(json.dumps(config, indent=2) + "\n")
    held = {part for place in tables for part in _TABLES[place]}
    return [
        name
        for name in trained
        if ".down." not in name and ".up." not in name and name.split(".")[0] not in held
    ]


def _trained_tables(trained: Mapping[str, Tensor]) -> list[str]:
    """transformers' tables of which any part was trained."""
    parts = {name.split(".")[0] for name in trained}
    return [place for place, ours in _TABLES.items() if not parts.isdisjoint(ours)]


def _peft_config(settings: LoRASettings, base: str) -> dict[str, Any]:
    places = dict(pair for parts in PLACES.values() for pair in zip(*parts, strict=True))
    wanted = [re.escape(places[target]) for target in TARGETS if target in settings.targets]
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        # A pattern, because the codec has parts of the same names.
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
    """Rank, alpha, targets and whole tables of PEFT's files.

    Raises:
        TrainingError: they cannot be read, or are of a kind that kiku does not support.
    """
    try:
        values = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        rank, alpha = int(values["r"]), float(values["lora_alpha"])
        names = [name for name in read_header(folder / FILE) if not re.search(_TWICE, name)]
    except (OSError, ValueError, KeyError, TypeError, CheckpointError) as error:
        raise TrainingError(f"{folder} contains no adapter in PEFT's format: {error}") from error
    odd = [key for key in _UNREAD if values.get(key)]
    if odd or values.get("peft_type") != "LORA" or values.get("bias", "none") != "none":
        raise TrainingError(
            f"{folder / _CONFIG} has {', '.join(odd) or 'a bias or another method'}: kiku only "
            "reads plain LoRA"
        )
    targets = tuple(t for t in TARGETS if any(t in name.split(".") for name in names))
    if not targets:
        raise TrainingError(f"{folder / FILE} has no adapters for any of {', '.join(TARGETS)}")
    tables = [place for place in _TABLES if f"{_PREFIX}{place}.weight" in names]
    saved: list[str] = values.get("modules_to_save") or []
    if len(saved) != len(tables) or not all(
        any(f".{place}".endswith(f".{name}") for place in tables) for name in saved
    ):
        raise TrainingError(
            f"{folder / _CONFIG} has other modules_to_save than {' and '.join(_TABLES)}, which "
            "kiku cannot store"
        )
    also = tuple(part for place in tables for part in _TABLES[place])
    return LoRASettings(rank=rank, alpha=alpha, targets=targets, also=also, new_pieces=0)


def read_adapter_delay(folder: Path) -> float | None:
    """Seconds by which text lags sound with an adapter; None if only PEFT's files are there.

    Raises:
        TrainingError: the file cannot be read.
    """
    path = folder / DELAY
    if not path.exists():
        return None
    try:
        delay_s = float(json.loads(path.read_text(encoding="utf-8"))["text_delay_s"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} is damaged ({error}): export the adapter again") from error
    if not 0 <= delay_s < math.inf:
        raise TrainingError(f"{path} has a text_delay_s of {delay_s:g}: export the adapter again")
    return delay_s


@torch.no_grad()
def load_adapter(folder: Path, lm: LM) -> None:
    """Fill the adapters of a decoder from PEFT's files.

    Raises:
        TrainingError: the files are missing or damaged, or hold other adapters.
    """
    path = folder / FILE
    try:
        held = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error
    tensors = {name: value for name, value in held.items() if not re.search(_TWICE, name)}
    sides = [side for pair in _sides(lm) for side in pair]
    weights = dict(lm.named_parameters())
    places = {f"{_PREFIX}{place}.weight": place for place in _TABLES}
    missing = {side.theirs for side in sides} ^ (tensors.keys() - places.keys())
    if missing:
        raise TrainingError(
            f"{path} does not contain the adapters that were asked for: {sorted(missing)[0]} (and "
            f"{len(missing) - 1} more) differ; use its rank and targets"
        )
    heads = lm.config.transformer.num_heads
    for side in sides:
        value, weight = tensors[side.theirs], weights[side.ours]
        if value.shape != weight.shape:
            raise TrainingError(
                f"{path}: {side.theirs} is {list(value.shape)}, not {list(weight.shape)}"
            )
        weight.copy_(_turned_back(value, heads) if side.turned else value)
    for name in places.keys() & tensors.keys():
        _fill_table(path, lm, places[name], tensors[name])


def _fill_table(path: Path, lm: LM, place: str, table: Tensor) -> None:
    """Fill the parts of a decoder that are inside one of transformers' tables.

    Raises:
        TrainingError: the table is of another model, or differs in rows that are not trained here.
    """
    theirs, names = f"{place}.weight", transformers_lm(lm.config)
    # Checked before it is cut: a table of another vocabulary would be cut at the wrong rows.
    wanted = names.expected(lm_shapes(lm.config))[theirs]
    if table.shape != wanted:
        raise TrainingError(
            f"{path}: {theirs} is {list(table.shape)}, not {list(wanted)}: it belongs to a model "
            "with another vocabulary"
        )
    for pair in names.pairs():
        if pair.theirs != (theirs,):
            continue
        for ours, value in zip(pair.ours, pair.how.read([table]), strict=True):  # pyright: ignore
            part = ours.removesuffix(".weight")
            module = lm.get_submodule(part)
            if isinstance(module, NewRows):
                module.rows.copy_(value[module.ids.start : module.ids.stop])
                value, held = module.merged(module.rows), value
                same = torch.equal(value, held.to(value))
            else:
                weight = lm.get_parameter(ours)
                same = weight.requires_grad or torch.equal(weight, value.to(weight))
                if weight.requires_grad:
                    weight.copy_(value)
            if not same:
                raise TrainingError(
                    f"{path} has trained rows of {part}, which this run does not train: name it "
                    "in lora.also"
                )
