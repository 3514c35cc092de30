"""The settings of a training run, from TOML: unknown keys are errors, defaults are a fair start.

model = "demo"
pack = "pack"

[train]
steps = 2000
"""

import os
import tomllib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from kiku.errors import ConfigError, TrainingError
from kiku.serial import from_plain, to_plain
from kiku.writing import reason_of

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")
"""The parts of a layer that can have adapters, by their names in transformers."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Settings of the training loop."""

    steps: int = 2000
    batch: int = 8
    """Examples that go through the model at once, in each process."""
    accumulate: int = 1
    """Batches per step."""
    lr: float = 3e-4
    """The highest learning rate: it is reached after the warm-up, then falls as a cosine."""
    final_lr: float = 0.01
    """Share of the highest learning rate that is left at the end."""
    warmup: int = 100
    """Steps of the warm-up."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    """Highest norm of the gradient; 0 does not clip."""
    ema: float = 0.999
    """Decay of the averaged weights, which are exported; 0 keeps none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Dtype in which products are computed."""
    checkpointing: bool = False
    """Recompute layers for the gradients instead of keeping them: slower, with far less memory."""
    shard: bool = False
    """Under torchrun: keep weights, gradients, moments and means in parts on the processes, instead
    of whole on each. It changes nothing for a single process."""
    seed: int = 0
    save_every: int = 200
    """Steps between checkpoints."""
    log_every: int = 10
    dev_every: int = 0
    """Steps between evaluations on the split dev; 0 never evaluates."""


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Weights of the losses, and how the input is corrupted."""

    pad_weight: float = 0.5
    """Weight of PAD among text tokens: most frames are PAD."""
    pauses: float = 0.1
    """Weight of the pause heads' loss, relative to that of the text."""
    hidden_codes: float = 0.0
    """Share of codes that are hidden from the decoder."""
    wrong_text: float = 0.0
    """Share of text tokens that are replaced in the input, as after a mistake of the decoder."""
    keep: float = 0.0
    """Weight of a frame of examples marked "keep", relative to the text of other frames. In these
    examples the decoder learns only to keep its earlier output: the loss is the divergence from it.
    0 learns from all examples alike."""


@dataclass(frozen=True, slots=True)
class LoRASettings:
    """Settings of adapters on frozen weights."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = TARGETS
    dropout: float = 0.0
    also: tuple[str, ...] = ()
    """Parts that are trained whole as well: text_embedding, text_head, pause_heads, ..."""
    new_pieces: int = -1
    """How many of the vocabulary's last pieces have their rows in the embedding and the head
    trained as well; -1 are those that `kiku train vocab` added."""
    start: str = ""
    """A folder with an adapter (PEFT's files) to start from."""


PARTS = ("seanet", "transformer", "downsample", "quantizer")
"""The parts of a codec, in the order in which sound passes through them."""


@dataclass(frozen=True, slots=True)
class CodecSettings:
    """Settings of the codec, if it is trained as well."""

    lr: float = 3e-5
    """Its highest learning rate; it rises and falls with the decoder's."""
    parts: tuple[str, ...] = PARTS
    """The parts that are trained. The codebooks never are: of the quantizer only the layers before
    them."""
    temperature: float = 1.0
    """How far from the chosen entry other entries count for the gradient: the temperature of a
    softmax, in squared distances between neighbours in a codebook."""
    alone: bool = False
    """Do not train the decoder."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """All settings of a run."""

    pack: str
    """A folder that `kiku train pack` made."""
    model: str = "demo"
    """The model that the run begins with."""
    run: str = "run"
    """A folder for checkpoints and curves."""
    device: str = "auto"
    pause_heads: int = -1
    """How many pause heads the trained model has: 0 to 4; -1 keeps the number."""
    train: TrainSettings = field(default_factory=TrainSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    lora: LoRASettings | None = None
    """None trains every weight of the decoder."""
    codec: CodecSettings | None = None
    """None leaves the codec as it is."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a number is out of its range; the error names it.
        """
        t, loss, lora = self.train, self.loss, self.lora
        limits: dict[str, tuple[float, float, float]] = {
            "train.steps": (t.steps, 1, 1e9), "train.batch": (t.batch, 1, 1e5),
            "train.accumulate": (t.accumulate, 1, 1e5), "train.lr": (t.lr, 0, 10),
            "train.final_lr": (t.final_lr, 0, 1), "train.warmup": (t.warmup, 0, 1e9),
            "train.weight_decay": (t.weight_decay, 0, 10), "train.clip": (t.clip, 0, 1e9),
            "train.ema": (t.ema, 0, 0.999999), "train.save_every": (t.save_every, 1, 1e9),
            "train.log_every": (t.log_every, 1, 1e9), "train.dev_every": (t.dev_every, 0, 1e9),
            "train.seed": (t.seed, 0, 2**31), "loss.pad_weight": (loss.pad_weight, 0, 100),
            "train.betas[0]": (t.betas[0], 0, 0.999999),
            "train.betas[1]": (t.betas[1], 0, 0.999999), "loss.pauses": (loss.pauses, 0, 100),
            "loss.hidden_codes": (loss.hidden_codes, 0, 1), "loss.keep": (loss.keep, 0, 1000),
            "pause_heads": (self.pause_heads, -1, 4), "loss.wrong_text": (loss.wrong_text, 0, 1),
        }  # fmt: skip
        if lora is not None:
            limits["lora.rank"] = (lora.rank, 1, 4096)
            limits["lora.alpha"] = (lora.alpha, 1e-6, 1e6)
            limits["lora.new_pieces"] = (lora.new_pieces, -1, 1e7)
            limits["lora.dropout"] = (lora.dropout, 0, 0.99)
            wrong = [one for one in lora.targets if one not in TARGETS]
            if wrong or not lora.targets:
                raise ValueError(
                    f"lora.targets must be some of {', '.join(TARGETS)}, not {', '.join(wrong)!r}"
                )
        if self.codec is not None:
            limits["codec.lr"] = (self.codec.lr, 0, 10)
            limits["codec.temperature"] = (self.codec.temperature, 1e-3, 1e3)
            _refuse_parts(self.codec, lora)
        for name, (value, least, most) in limits.items():
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least:g} to {most:g}, not {value:g}")


def _refuse_parts(codec: CodecSettings, lora: LoRASettings | None) -> None:
    wrong = [one for one in codec.parts if one not in PARTS]
    if wrong or not codec.parts:
        raise ValueError(
            f"codec.parts must be some of {', '.join(PARTS)}, not {', '.join(wrong)!r}"
        )
    if codec.alone and lora is not None:
        raise ValueError("codec.alone does not train the decoder: leave the table lora out")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        TrainingError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({reason_of(error)})") from error
    except ValueError as error:
        raise TrainingError(f"{path} is not TOML: {error}") from error


def read_settings(path: Path) -> FitSettings:
    """Read a TOML file; its folders are relative to the file's folder, and ~ is the home folder.

    Raises:
        ConfigError: a key is unknown or missing, or a number is invalid; the error names it.
        TrainingError: the file cannot be read.
    """
    from dataclasses import replace

    found = from_plain(FitSettings, read_toml(path), what=str(path), defaults=True, lenient=True)
    for key in ("pack", "model", "run"):
        if not getattr(found, key):  # "" would mean the file's own folder
            raise ConfigError(f"{path}: {key} is empty: give a value")
    beside = partial(beside_file, path)
    model = beside(found.model) if Path(beside(found.model)).is_dir() else found.model
    lora = found.lora
    if lora is not None and lora.start:
        lora = replace(lora, start=beside(lora.start))
    return replace(found, pack=beside(found.pack), run=beside(found.run), model=model, lora=lora)


def beside_file(file: Path, name: str) -> str:
    """A path stated in `file`, relative to the file's folder; ~ is the home folder."""
    return str(file.parent / os.path.expanduser(name))


_FREE = (
    "run", "device", "train.save_every", "train.log_every", "train.dev_every", "train.shard",
    "pack", "model",
)  # fmt: skip
"""Keys that may change when a run is resumed: the curve does not depend on them. The pack and the
model are compared by their contents, not by their paths."""


def curve_settings(settings: FitSettings) -> dict[str, Any]:
    """The settings that the curve depends on, by dotted key."""
    return {key: value for key, value in _flat(to_plain(settings)) if key not in _FREE}


def _flat(values: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{before}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            found.append((before + key, value))
    return found


def first_change(begun: dict[str, Any], asked: dict[str, Any]) -> str | None:
    """The first key in which two runs differ, with both values; None if there is none."""
    # A run that was begun by an older version lacks new keys: their defaults apply.
    begun = {**curve_settings(FitSettings("")), **begun}
    for key in [*asked, *(key for key in begun if key not in asked)]:
        if begun.get(key) != asked.get(key):
            return f"{key} (it was {begun.get(key)}, and is now {asked.get(key)})"
    return None
