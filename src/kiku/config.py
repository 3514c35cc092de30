"""The numbers of a model, each stated once; what follows from them is a property.

The names are kiku's own. `checkpoint` knows the names in the files of Kyutai and of transformers,
and converts those files to these classes and back.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast, get_type_hints

from kiku.errors import ConfigError, FrameError
from kiku.serial import from_plain, to_plain

REWIND_FRAMES = 64
"""Number of frames by which a slot can always be rewound exactly (see `nn.state.rewind`)."""

HISTORY_FRAMES = 128
"""Number of last frames that a slot's decoder can read again: 10 s."""

MAX_STREAM_FRAMES = 2**40
"""Largest number of frames of one stream: more than a thousand years. A saved state with more is
damaged."""

MAX_POSITION = 4 * MAX_STREAM_FRAMES
"""Largest position in a network's transformer; the codec's has two positions in a frame."""

TAIL_S = 1.0
"""Seconds of silence after the sound and the text delay: time for the last words. Both reference
implementations append as much."""

PAD_ID = 3
"""Text id of a frame without text, in every published model."""

WORD_START_ID = 0
"""Text id that stands before most words, in every published model (`<unk>` reused)."""


def exact_div(total: int, part: int, what: str) -> int:
    """`total / part`, which must be a whole number; `what` names it in the error."""
    if part <= 0 or total % part:
        raise ConfigError(f"{what}: {total} is not a whole multiple of {part}")
    return total // part


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    # No float is above 1.8e308, but whole numbers in JSON may be.
    return (isinstance(value, float) or _is_whole(value)) and abs(cast(float, value)) < 1e300


def _are_whole(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_whole, cast(tuple[object, ...], value)))


_KINDS: dict[Any, tuple[str, Callable[[object], bool]]] = {
    int: ("a whole number", _is_whole),
    float: ("a finite number", _is_finite),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    tuple[int, ...]: ("whole numbers", _are_whole),
}
"""The type of a field -> its name in messages, and a function that tells whether a value has it."""


def _short(value: object) -> str:
    digits = str(value)
    return digits if len(digits) <= 40 else f"{digits[:40]}... ({len(digits)} digits)"


# Limits that no model comes near. A larger number is a mistake, and would keep the machine busy or
# fill its memory before any other check could refuse it.
_MANY, _WIDTH, _IDS = 1_000, 1_000_000, 10_000_000
_WINDOW = 100_000  # over two hours
_SECONDS = 600
_REACH = 1_000_000  # samples that a convolution of the codec may see


class _Plain:
    """Strict conversion to plain values and back, which the config classes share."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `to_dict`'s output.

        Raises:
            ConfigError: a key is unknown (the nearest known one is named) or missing, or a value
                is impossible.
        """
        return from_plain(cls, values, what=cls.__name__, defaults=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, ready for JSON."""
        return to_plain(self)

    def _check(self, limits: Mapping[str, tuple[float, float]]) -> None:
        """Refuse values of the wrong type, and values below the least or above the greatest."""
        for name, wanted in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if wanted in _KINDS and not _KINDS[wanted][1](value):
                raise ConfigError(f"{name} must be {_KINDS[wanted][0]}, not {value!r}")
            is_part = isinstance(wanted, type) and issubclass(wanted, _Plain)
            if is_part and not isinstance(value, wanted):
                raise ConfigError(f"{name} must be a {wanted.__name__}, not {value!r}")
        for name, (least, greatest) in limits.items():
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, not {value}")
            if value > greatest:
                raise ConfigError(f"{name} must be at most {greatest:,}, not {_short(value)}")


@dataclass(frozen=True, slots=True)
class TransformerConfig(_Plain):
    """A causal transformer with rotary positions and a sliding window."""

    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    """Width inside the feed-forward part; of one half, if it is gated."""
    window: int
    """Number of positions that a query sees, its own included."""
    rope_theta: float
    norm: Literal["layer", "rms"]
    norm_eps: float
    gated: bool
    """`silu(gate) * value` when true, `gelu` when false."""
    layer_scale: bool
    positions_per_frame: int = 1
    head_dim: int = 0
    """Width of one head; 0 means `dim / num_heads`."""

    def __post_init__(self) -> None:
        self._check({
            "dim": (1, _WIDTH), "num_layers": (1, _MANY), "num_heads": (1, _WIDTH),
            "ffn_dim": (1, _WIDTH), "window": (1, _WINDOW), "positions_per_frame": (1, _MANY),
            "head_dim": (0, _WIDTH),
        })  # fmt: skip
        if self.head_dim == 0:
            object.__setattr__(self, "head_dim", exact_div(self.dim, self.num_heads, "head_dim"))
        if self.head_dim % 2:
            raise ConfigError(f"head_dim must be even for rotary positions, not {self.head_dim}")
        if self.norm not in ("layer", "rms"):
            raise ConfigError(f"norm must be 'layer' or 'rms', not {self.norm!r}")
        for name in ("rope_theta", "norm_eps"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be greater than 0, not {getattr(self, name)}")

    @property
    def span(self) -> int:
        """Number of positions that attention processes at once; a longer block is processed span by
        span."""
        return REWIND_FRAMES * self.positions_per_frame

    @property
    def capacity(self) -> int:
        """Number of places in the KV ring: the window, one span, and room to rewind."""
        return self.window - 1 + self.span + REWIND_FRAMES * self.positions_per_frame


@dataclass(frozen=True, slots=True)
class CodecConfig(_Plain):
    """Mimi's encoder: SEANet, transformer, downsampling, split RVQ. The defaults are those of the
    published codec."""

    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(
            dim=512,
            num_layers=8,
            num_heads=8,
            ffn_dim=2048,
            window=250,
            rope_theta=10_000.0,
            norm="layer",
            norm_eps=1e-5,
            gated=False,
            layer_scale=True,
            positions_per_frame=2,
        )
    )
    sample_rate: int = 24_000
    num_filters: int = 64
    strides: tuple[int, ...] = (4, 5, 6, 8)
    """Strides of SEANet's strided convolutions, in the order in which the sound passes them;
    upstream lists them in reverse."""
    kernel_size: int = 7
    last_kernel_size: int = 3
    residual_kernel_size: int = 3
    num_residual_layers: int = 1
    dilation_growth: int = 2
    compress: int = 2
    num_codebooks: int = 32
    num_semantic: int = 1
    codebook_size: int = 2048
    codebook_dim: int = 256
    project_latents: bool = True
    """Whether there is a projection to `codebook_dim` before each quantiser."""

    def __post_init__(self) -> None:
        self._check({
            "sample_rate": (1, _IDS), "num_filters": (1, _WIDTH), "kernel_size": (1, _MANY),
            "last_kernel_size": (1, _MANY), "residual_kernel_size": (1, _MANY),
            "num_residual_layers": (0, _MANY), "dilation_growth": (1, _MANY),
            "compress": (1, _WIDTH), "num_codebooks": (1, _MANY), "codebook_size": (1, _IDS),
            "codebook_dim": (1, _WIDTH),
        })  # fmt: skip
        if not 1 <= self.num_semantic < self.num_codebooks:
            raise ConfigError(
                f"num_semantic must be in 1..{self.num_codebooks - 1}, not {self.num_semantic}"
            )
        if not self.strides or min(self.strides) < 1:
            raise ConfigError(f"strides must be positive, not {self.strides}")
        # In this order, as computing the product of many large numbers would never end.
        if len(self.strides) > _MANY or max(self.strides) > _REACH or self.hop > _REACH:
            raise ConfigError(
                f"strides must give at most {_REACH:,} samples together; these give too many"
            )
        layers = range(self.num_residual_layers if self.dilation_growth > 1 else 0)
        if any(self.dilation_growth**layer > _REACH for layer in layers):
            raise ConfigError(
                f"dilation_growth {self.dilation_growth} in {self.num_residual_layers} residual "
                f"layers dilates beyond {_REACH:,} samples"
            )
        if not self.project_latents and self.codebook_dim != self.latent_dim:
            raise ConfigError(
                f"without a projection codebook_dim ({self.codebook_dim}) "
                f"must be the latents' width ({self.latent_dim})"
            )

    @property
    def latent_dim(self) -> int:
        """Width of the latents, and of the codec's transformer."""
        return self.transformer.dim

    @property
    def downsample(self) -> int:
        """Latents per frame before the last convolution (2: 25 Hz to 12.5 Hz)."""
        return self.transformer.positions_per_frame

    @property
    def hop(self) -> int:
        """Samples per latent before downsampling (960)."""
        return math.prod(self.strides)

    @property
    def frame_size(self) -> int:
        """Samples per frame (1,920)."""
        return self.hop * self.downsample

    @property
    def frame_rate(self) -> float:
        """Frames per second (12.5)."""
        return self.sample_rate / self.frame_size


@dataclass(frozen=True, slots=True)
class LMConfig(_Plain):
    """The decoder: it reads codes and the last text token, and gives the next text token."""

    transformer: TransformerConfig
    text_vocab_size: int
    """Number of text ids that can be emitted, which are 0 .. text_vocab_size - 1 (Kyutai's
    `text_card`)."""
    initial_text_id: int = -1
    """The text id of position 0; -1 means the id after the last one that can be emitted, as
    upstream."""
    num_codebooks: int = 32
    codebook_size: int = 2048
    num_pause_heads: int = 0
    pause_classes: int = 6

    def __post_init__(self) -> None:
        self._check({
            "text_vocab_size": (1, _IDS), "num_codebooks": (1, _MANY), "codebook_size": (1, _IDS),
            "pause_classes": (1, _MANY), "initial_text_id": (-1, _IDS),
            "num_pause_heads": (0, _MANY),
        })  # fmt: skip
        if self.initial_text_id == -1:
            object.__setattr__(self, "initial_text_id", self.text_vocab_size)

    @property
    def text_rows(self) -> int:
        """Number of rows of the text embedding: one for every id that can be emitted, and the
        initial one."""
        return max(self.text_vocab_size, self.initial_text_id + 1)

    @property
    def initial_code(self) -> int:
        """The audio code of position 0, on every codebook."""
        return self.codebook_size


@dataclass(frozen=True, slots=True)
class ModelConfig(_Plain):
    """A whole speech-to-text model."""

    codec: CodecConfig
    lm: LMConfig
    text_delay_s: float
    """Seconds by which text lags sound."""
    silence_prefix_s: float = 0.0
    """Seconds of silence that the model expects before the sound."""
    pad_id: int = PAD_ID
    """Text id of a frame without text."""
    word_start_id: int = WORD_START_ID
    """Text id that stands before most words (upstream: EPAD, `<unk>` reused)."""

    def __post_init__(self) -> None:
        self._check({"text_delay_s": (0, _SECONDS), "silence_prefix_s": (0, _SECONDS)})
        last = self.lm.text_rows - 1
        self._check({"pad_id": (0, last), "word_start_id": (0, last)})
        if (
            self.lm.num_codebooks > self.codec.num_codebooks
            or self.lm.codebook_size < self.codec.codebook_size
        ):
            raise ConfigError(
                f"the decoder reads {self.lm.num_codebooks} codebooks of {self.lm.codebook_size} "
                f"codes, but the codec gives {self.codec.num_codebooks} of "
                f"{self.codec.codebook_size}"
            )

    @property
    def sample_rate(self) -> int:
        """Samples per second (24,000)."""
        return self.codec.sample_rate

    @property
    def frame_size(self) -> int:
        """Samples per frame (1,920)."""
        return self.codec.frame_size

    @property
    def frame_rate(self) -> float:
        """Frames per second (12.5)."""
        return self.codec.frame_rate


def whole_frames(num_samples: int, frame_size: int) -> int:
    """How many frames `num_samples` samples are.

    Raises:
        FrameError: they are not a whole number of frames, or there are none.
    """
    if num_samples == 0 or num_samples % frame_size:
        raise FrameError(
            f"{num_samples} samples are not a whole number of frames (frame_size is {frame_size}); "
            "push chunks of any length through a Stream"
        )
    return num_samples // frame_size
