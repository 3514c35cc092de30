# pyright: basic
# transformers' modules are of any type.
"""Build kiku's networks around transformers' weights, for the time of one call.

Weights that have kiku's layout are shared; only the fused q, k and v (transformers orders their
rows differently) and the codebooks are computed for each call. Nothing is kept from one call to the
next, so the next call sees any change of the weights: a training step, `.to`, a merged adapter.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kiku.checkpoint.names import Table, transformers_codec, transformers_lm
from kiku.codec import MimiEncoder
from kiku.config import ModelConfig
from kiku.engine.gpu.precision import products
from kiku.errors import KikuError
from kiku.hf.configuration import KyutaiSpeechToTextConfig as PlainConfig
from kiku.lm import LM
from kiku.nn.state import all_active

M = TypeVar("M", bound=nn.Module)

_BLOCK = 64
"""Frames that the codec reads at once: 5 s of sound."""


def model_config_of(model: Any) -> ModelConfig | None:
    """kiku's config for one of transformers' models; None if kiku does not build this model."""
    try:
        return PlainConfig(**model.config.to_dict()).to_model_config()
    except KikuError:
        return None


def pad_hides_an_id(model: Any) -> bool:
    """Whether the pad of one of transformers' models is also a text id or a code.

    That id then looks up another row there than in kiku's networks.
    """
    return PlainConfig(**model.config.to_dict()).pad_hides_an_id


def codec_of(model: nn.Module, numbers: ModelConfig) -> MimiEncoder | None:
    """The codec's encoder; None if its parts are not those of transformers."""
    with torch.device("meta"):
        codec = MimiEncoder(numbers.codec)
    return _with_weights(codec, transformers_codec(numbers.codec), model, "codec_model.")


def decoder_of(model: nn.Module, numbers: ModelConfig) -> LM | None:
    """The decoder; None if its parts are not those of transformers.

    Causes are adapters that are not merged, weights in eight bits, and hooks.
    """
    with torch.device("meta"):
        lm = LM(numbers.lm)
    return _with_weights(lm, transformers_lm(numbers.lm), model, "")


def _with_weights(ours: M, table: Table, model: nn.Module, part: str) -> M | None:
    if _has_hooks(model.get_submodule(part.rstrip("."))):
        return None
    stored: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        canonical = table.canonical(name)
        if not table.skips(canonical):
            stored[canonical] = tensor.detach()
    state: dict[str, Tensor] = {}
    for pair in table.pairs():
        theirs = [stored.pop(name, None) for name in pair.theirs]
        if any(one is None or not one.is_floating_point() for one in theirs):
            return None
        state.update(zip(pair.ours, pair.how.read(theirs), strict=True))
    if stored:  # weights that kiku's networks have no place for
        return None
    device = next(iter(state.values())).device
    if device.type == "meta" or any(one.device != device for one in state.values()):
        return None
    ours.load_state_dict(state, assign=True)
    return ours.to(device).eval()  # moves tensors that are computed, not loaded


def _has_hooks(module: nn.Module) -> bool:
    """Whether a hook observes or replaces what a part of the module computes."""
    for one in module.modules():
        if hasattr(one, "_hf_hook"):  # accelerate's: weights that lie elsewhere
            return True
        hooks = [*one._forward_hooks.values(), *one._forward_pre_hooks.values()]
        # transformers' own hooks do not count: they record hidden states on request.
        if any(not getattr(h, "__module__", "").startswith("transformers.") for h in hooks):
            return True
    return False


@torch.no_grad()
def codes_of(codec: MimiEncoder, samples: Tensor) -> Tensor:
    """[B, 1, F * frame_size] samples -> [B, F, K] codes, a few seconds at a time."""
    B, device = len(samples), codec.downsample.conv.weight.device
    state = codec.init_state(B, device, torch.float32)
    active = all_active(B, device)
    blocks = samples.to(device, torch.float32).split(_BLOCK * codec.config.frame_size, dim=-1)
    with products():
        codes = [codec(block, state, active) for block in blocks]
    return torch.cat(codes, dim=-1).transpose(1, 2)
