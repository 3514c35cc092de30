"""What the published checkpoints' files lack or state wrongly: one table, and a warning for each
that is used.

A correction fires only under the condition that is known to be wrong; someone's own model with sane
values passes untouched and unwarned.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kiku.checkpoint.config_transformers import DECODER_THETA, rope_theta
from kiku.checkpoint.layout import Layout


class CorrectedValue(UserWarning):
    """A file states something that is known to be wrong, and another value is used."""


@dataclass(frozen=True, slots=True)
class Published:
    """Numbers by which a published model is recognised, and those that a file of it may lack."""

    dim: int
    num_layers: int
    num_heads: int
    text_card: int
    window: int
    delay_s: float
    prefix_s: float


PUBLISHED = (
    Published(2048, 16, 16, 8000, window=750, delay_s=0.5, prefix_s=0.0),
    Published(2048, 48, 32, 4000, window=375, delay_s=2.5, prefix_s=1.0),
)
"""The numbers of the 1B and of the 2.6B."""


@dataclass(slots=True)
class Seen:
    """What the files of one checkpoint say; corrections change it in place."""

    layout: Layout
    config: dict[str, Any]
    """config.json (transformers' with the class defaults filled in)."""
    timing: dict[str, Any]
    """Delay and silence prefix: native stt_config, transformers' preprocessor file."""
    last_head_row_is_zero: bool = False
    published: Published | None = field(init=False)

    def __post_init__(self) -> None:
        """Recognise a published model by its shape."""
        c = self.config
        if self.layout == "native":
            shape = (c.get("dim"), c.get("num_layers"), c.get("num_heads"), c.get("text_card"))
        else:
            layers, heads = c["num_hidden_layers"], c["num_attention_heads"]
            shape = (c["hidden_size"], layers, heads, c["vocab_size"] - 1)
        self.published = next(
            (p for p in PUBLISHED if (p.dim, p.num_layers, p.num_heads, p.text_card) == shape),
            None,
        )

    @property
    def table_rows(self) -> int:
        """Rows of transformers' embedding table before the padding row."""
        return (
            self.config["vocab_size"]
            + self.config["num_codebooks"] * self.config["codebook_vocab_size"]
        )


@dataclass(frozen=True, slots=True)
class Correction:
    """One known flaw: the condition under which it is there, the value to use instead, and why."""

    layout: Layout
    where: Literal["config", "timing"]
    key: str
    applies: Callable[[Seen], bool]
    value: Callable[[Seen], Any]
    why: str


def _of_published(attribute: str) -> Callable[[Seen], Any]:
    return lambda seen: getattr(seen.published, attribute)


def _lacks(where: Literal["config", "timing"], key: str) -> Callable[[Seen], bool]:
    return lambda seen: seen.published is not None and key not in getattr(seen, where)


def _is_1b(seen: Seen) -> bool:
    return seen.published is not None and seen.published.window == 750


def _timing(layout: Layout) -> tuple[Correction, ...]:
    why = "the published model's; the file is silent"
    return tuple(
        Correction(layout, "timing", key, _lacks("timing", key), _of_published(attribute), why)
        for key, attribute in (
            ("audio_delay_seconds", "delay_s"),
            ("audio_silence_prefix_seconds", "prefix_s"),
        )
    )


CORRECTIONS: tuple[Correction, ...] = (
    Correction(
        "transformers", "config", "sliding_window",
        lambda s: _is_1b(s) and s.config["sliding_window"] == 375,
        _of_published("window"),
        "the 1B was trained with 60 s of context; its conversion kept the 30 s of the 2.6B",
    ),
    Correction(
        "transformers", "config", "bos_token_id",
        lambda s: not 0 <= s.config["bos_token_id"] < s.config["vocab_size"],
        lambda s: s.config["vocab_size"] - 1,
        "the stated id lies among the audio rows; the start row is the last of the text rows",
    ),
    Correction(
        "transformers", "config", "rope_parameters",
        lambda s: rope_theta(s.config) is None,
        lambda s: {"rope_type": "default", "rope_theta": DECODER_THETA},
        "the file is silent; the models were trained with 100000 (transformers 5 would take 10000)",
    ),
    Correction(
        "transformers", "config", "audio_pad_token_id",
        lambda s: s.config["audio_pad_token_id"] != s.table_rows,
        lambda s: s.table_rows,
        "the padding row is the last row of the table; the stated one belongs to a code",
    ),
    Correction(
        "native", "config", "max_period",
        _lacks("config", "max_period"),
        lambda s: DECODER_THETA,
        "the published model's; the file is silent",
    ),
    Correction(
        "native", "config", "context",
        _lacks("config", "context"),
        _of_published("window"),
        "the published model's; the file is silent",
    ),
    *_timing("native"),
    *_timing("transformers"),
)  # fmt: skip


def correct(seen: Seen, *, config_file: Path, timing_file: Path | None) -> None:
    """Apply `CORRECTIONS` to `seen`; warn of each with the file, the key, the value seen and the
    value used.
    """
    for c in CORRECTIONS:
        if c.layout != seen.layout or not c.applies(seen):
            continue
        values: dict[str, Any] = seen.config if c.where == "config" else seen.timing
        file = config_file if c.where == "config" else timing_file or config_file
        before = repr(values[c.key]) if values.get(c.key) is not None else "missing"
        used = c.value(seen)
        values[c.key] = used
        message = f"{file}: {c.key} is {before}, {used!r} is used: {c.why}"
        if c.key == "bos_token_id" and seen.last_head_row_is_zero:
            message += "; the last row of lm_head, all zero, is dropped with it"
        warnings.warn(message, CorrectedValue, stacklevel=3)


def start_row_is_filler(config: Mapping[str, Any], *, last_head_row_is_zero: bool) -> bool:
    """Whether transformers' last text id is only the start id (a zero row in lm_head)."""
    return last_head_row_is_zero and config["bos_token_id"] == config["vocab_size"] - 1
