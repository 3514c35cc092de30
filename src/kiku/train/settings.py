"""The numbers of a training run, from TOML: strict, each with a default that is a fair beginning.

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
"""What adapters can be put on, in transformers' words."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The loop."""

    steps: int = 2000
    batch: int = 8
    """Examples that go through the model at once, in each process."""
    accumulate: int = 1
    """So many such batches make one step."""
    lr: float = 3e-4
    """The highest learning rate: after the warm-up, from where a cosine leads down."""
    final_lr: float = 0.01
    """What is left of it at the end, as a share."""
    warmup: int = 100
    """Steps."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    """The gradient's norm at most; 0 clips nothing."""
    ema: float = 0.999
    """Decay of the averaged weights, which are exported; 0 keeps none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What products are computed in."""
    checkpointing: bool = False
    """Compute layers a second time rather than remember them: slower, in far less memory."""
    shard: bool = False
    """Under torchrun: weights, gradients, moments and means in parts on the processes, rather than
    whole on each. Alone it changes nothing."""
    seed: int = 0
    save_every: int = 200
    """Steps between checkpoints."""
    log_every: int = 10
    dev_every: int = 0
    """Steps between looks at the split dev; 0 never looks."""


@dataclass(frozen=True, slots=True)
class LossSettings:
    """What counts how much."""

    pad_weight: float = 0.5
    """Of PAD among text tokens: there are many of it."""
    pauses: float = 0.1
    """Of the pause heads, beside the text."""
    hidden_codes: float = 0.0
    """Share of codes that the decoder does not see."""
    wrong_text: float = 0.0
    """Share of text tokens that it reads wrong, as it would after a mistake of its own."""
    keep: float = 0.0
    """In marked examples nothing is learned but to go on saying what was said before: so much does
    a frame's divergence from that count, beside the text of a frame of the others. 0 learns from
    all alike."""


@dataclass(frozen=True, slots=True)
class LoRASettings:
    """Adapters beside frozen weights."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = TARGETS
    dropout: float = 0.0
    also: tuple[str, ...] = ()
    """Whole parts that are trained with them: text_embedding, text_head, pause_heads, ..."""
    new_pieces: int = -1
    """How many of the vocabulary's last pieces have their rows trained with them, in the embedding
    and in the head; -1 are those that `kiku train vocab` added."""
    start: str = ""
    """A folder with an adapter (PEFT's files) to go on from."""


PARTS = ("seanet", "transformer", "downsample", "quantizer")
"""Of a codec, in the order in which sound passes through them."""


@dataclass(frozen=True, slots=True)
class CodecSettings:
    """The codec, where it learns, too."""

    lr: float = 3e-5
    """Its highest learning rate; it goes up and down with the decoder's."""
    parts: tuple[str, ...] = PARTS
    """Which of it learn. The codebooks never do: of the quantizer only what leads to them."""
    temperature: float = 1.0
    """How far from the entry that is chosen others are thought of, for the gradient alone: in
    squared distances between neighbours in a codebook."""
    alone: bool = False
    """Leave the decoder as it is."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """All of a run."""

    pack: str
    """A folder that `kiku train pack` made."""
    model: str = "demo"
    """What it begins with."""
    run: str = "run"
    """A folder for checkpoints and curves."""
    device: str = "auto"
    pause_heads: int = -1
    """How many the model is to have: 0 to 4; -1 as many as it has."""
    train: TrainSettings = field(default_factory=TrainSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    lora: LoRASettings | None = None
    """None trains every weight of the decoder."""
    codec: CodecSettings | None = None
    """None leaves the codec as it is."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: a number is out of its range; it is named.
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
                raise ValueError(f"{name} must lie within {least:g} to {most:g}, not {value:g}")


def _refuse_parts(codec: CodecSettings, lora: LoRASettings | None) -> None:
    wrong = [one for one in codec.parts if one not in PARTS]
    if wrong or not codec.parts:
        raise ValueError(
            f"codec.parts must be some of {', '.join(PARTS)}, not {', '.join(wrong)!r}"
        )
    if codec.alone and lora is not None:
        raise ValueError("codec.alone leaves the decoder as it is: then there is no table lora")


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
    """From a TOML file; the folders in it count from where it lies, and ~ is the home folder.

    Raises:
        ConfigError: a key is unknown or missing, or a number cannot be; it is named.
        TrainingError: the file cannot be read.
    """
    from dataclasses import replace

    found = from_plain(FitSettings, read_toml(path), what=str(path), defaults=True, lenient=True)
    for key in ("pack", "model", "run"):
        if not getattr(found, key):  # which would be the folder where it lies
            raise ConfigError(f"{path}: {key} is empty: say which")
    beside = partial(beside_file, path)
    model = beside(found.model) if Path(beside(found.model)).is_dir() else found.model
    lora = found.lora
    if lora is not None and lora.start:
        lora = replace(lora, start=beside(lora.start))
    return replace(found, pack=beside(found.pack), run=beside(found.run), model=model, lora=lora)


def beside_file(file: Path, name: str) -> str:
    """A path that stands in a file, from where that lies; ~ is the home folder."""
    return str(file.parent / os.path.expanduser(name))


_FREE = (
    "run", "device", "train.save_every", "train.log_every", "train.dev_every", "train.shard",
    "pack", "model",
)  # fmt: skip
"""Keys that may change while a run goes on: the curve does not depend on them. What is in the pack
and in the model is compared by what they hold, not by where they lie."""


def curve_settings(settings: FitSettings) -> dict[str, Any]:
    """By dotted key, what the curve depends on."""
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
    # A run that was begun before there was such a key is one with its default.
    begun = {**curve_settings(FitSettings("")), **begun}
    for key in [*asked, *(key for key in begun if key not in asked)]:
        if begun.get(key) != asked.get(key):
            return f"{key} (it was {begun.get(key)}, and now is {asked.get(key)})"
    return None
