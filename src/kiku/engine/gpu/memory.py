"""How much of a device's memory a slot takes, and how many fit."""

import torch

from kiku.config import CodecConfig, LMConfig
from kiku.engine.gpu.attention import ROWS_AT_ONCE
from kiku.engine.gpu.launches import MAX_FRAMES
from kiku.engine.gpu.rings import ring_bytes
from kiku.errors import ConfigError

_GRAPHS = 1_000_000_000
"""What recorded graphs and the libraries keep, roughly."""

_BETWEEN_LAYERS = 6
"""Outputs of the codec's first layer that are there at once, roughly."""

_CODEC_FRAMES = 256


def slot_bytes(codec: CodecConfig, lm: LMConfig, kv: torch.dtype, pasts: int, width: int) -> int:
    """Bytes of one slot; `pasts` numbers are what the convolutions remember of it, and `width`
    frames go in one call at most."""
    latents = width * codec.transformer.positions_per_frame
    return (
        ring_bytes(codec.transformer, latents, torch.float32)
        + ring_bytes(lm.transformer, width, kv)
        + 4 * pasts
    )


def workspace_bytes(codec: CodecConfig, lm: LMConfig, num_slots: int, width: int) -> int:
    """Bytes that computing takes beside weights and slots, roughly."""
    frames = min(MAX_FRAMES, num_slots * width)
    convolutions = min(frames, _CODEC_FRAMES) * codec.frame_size * codec.num_filters
    logits = frames * lm.text_vocab_size
    inside = frames * lm.transformer.ffn_dim * 2
    embedded = 3 * frames * (1 + lm.num_codebooks) * lm.transformer.dim
    numbers = convolutions * _BETWEEN_LAYERS + 3 * logits + 3 * inside + embedded
    # Attention copies some rings of a layer to float32, and masks the copies.
    rings = ring_bytes(lm.transformer, width, torch.float32) // lm.transformer.num_layers
    return 4 * numbers + 3 * min(num_slots, ROWS_AT_ONCE) * rings + _GRAPHS


def check_room(slots: int, each: int, workspace: int, free: int) -> None:
    """Raise unless so many slots of `each` bytes fit into `free` ones beside the workspace.

    Raises:
        ConfigError: they do not; it says how many would.
    """
    fit = max(0, (free - workspace) // each - 1)  # one is the spare slot's
    if slots > fit:
        raise no_room(slots, each, fit, free)


def no_room(slots: int, each: int, fit: int, free: int) -> ConfigError:
    """What is said where slots do not fit."""
    return ConfigError(
        f"{slots} slots of {each / 1e6:.0f} MB do not fit into the {free / 1e9:.1f} GB that are "
        f"free on the device beside the weights: {fit} do; ask for no more, or keep keys and "
        "values in float8"
    )
