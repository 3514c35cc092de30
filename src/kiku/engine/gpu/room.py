"""How much of a device's memory computing takes, and how many slots fit into the rest.

Arithmetic only, without PyTorch: `kiku plan` uses it where PyTorch is not installed.
"""

from kiku.config import REWIND_FRAMES, CodecConfig, LMConfig, TransformerConfig

SIZES = (1, 4, 16)
"""How many frames, or columns, of each row a call may take."""

MAX_FRAMES = 2048
"""The most that rows times frames of a call may be."""

ROWS_AT_ONCE = 32
"""How many rows' rings plain attention copies at once: a thousand would take tens of gigabytes."""

COPIES = 2
"""How many copies of slots may be on their way to the host at once, while slots are stepped."""

_COPIES_KEPT = COPIES + 1
"""For how many copies memory is kept free: one more for what goes the other way, or is copied while
the steps wait."""

_GRAPHS = 1_000_000_000
"""Bytes that recorded graphs and the libraries keep, roughly."""

_BETWEEN_LAYERS = 6
"""Size of what is in memory between the codec's layers at once, in outputs of its first layer,
roughly."""

_CODEC_FRAMES = 256
_FLOAT32 = 4  # bytes


def ring_capacity(config: TransformerConfig, max_new: int) -> int:
    """Places of a ring: the window, the new positions of a call, and room to go back. A call may
    write beyond a slot's count, within `max_new`; that is overwritten before it is seen."""
    return config.window - 1 + max_new + REWIND_FRAMES * config.positions_per_frame


def workspace_bytes(codec: CodecConfig, lm: LMConfig, num_slots: int, width: int) -> int:
    """Bytes that computing takes besides weights and slots, roughly; one call takes `width` frames
    of a slot at most."""
    frames = min(MAX_FRAMES, num_slots * width)
    convolutions = min(frames, _CODEC_FRAMES) * codec.frame_size * codec.num_filters
    logits = frames * lm.text_vocab_size
    inside = frames * lm.transformer.ffn_dim * 2
    embedded = 3 * frames * (1 + lm.num_codebooks) * lm.transformer.dim
    # Attention copies some rings of a layer to float32, and masks the copies.
    t = lm.transformer
    ring = 2 * t.num_heads * t.head_dim * ring_capacity(t, width)
    rings = 3 * min(num_slots, ROWS_AT_ONCE) * ring
    numbers = convolutions * _BETWEEN_LAYERS + 3 * logits + 3 * inside + embedded + rings
    return _FLOAT32 * numbers + _GRAPHS


def slots_in(free: float, each: float, workspace: float) -> int:
    """How many slots fit into what is free besides the weights, not counting the spare slot, and
    the copies of slots that are being saved or restored."""
    return max(0, int((free - workspace) // each) - 1 - _COPIES_KEPT)
