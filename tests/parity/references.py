"""The two reference implementations, built around kiku's weights, and how each is run."""

import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kiku.checkpoint import save_transformers, to_native
from kiku.checkpoint.config_native import write_native, write_native_codec
from kiku.codec import MimiEncoder
from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig
from kiku.lm import LM
from kiku.nn.state import all_active

os.environ["NO_TORCH_COMPILE"] = "1"  # moshi reads it when imported
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers
    from moshi.models import LMGen
    from moshi.models.loaders import get_mimi, get_moshi_lm

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@dataclass
class Network:
    """kiku's own modules, and what they are."""

    config: ModelConfig
    codec: MimiEncoder
    lm: LM


@dataclass
class Said:
    """What a decoder said, frame by frame."""

    tokens: list[int]
    logits: Tensor  # [T, V]
    pauses: Tensor | None  # [T, E]


def random_network(config: ModelConfig, seed: int = 0) -> Network:
    """Weights with which codes and tokens vary and depend on all that the windows reach."""
    torch.manual_seed(seed)
    codec, lm = MimiEncoder(config.codec), LM(config.lm)
    with torch.no_grad():
        for name, weight in codec.named_parameters():
            if "scale" in name:
                weight.fill_(0.3)
            elif weight.dim() > 1:
                weight.normal_(0, (1.6 / weight[0].numel()) ** 0.5)
        for chain in (codec.quantizer.semantic, codec.quantizer.acoustic):
            chain.codebooks.normal_(0, 0.5)
            chain.refresh()
        for weight in lm.parameters():
            if weight.dim() > 1:
                weight.normal_(0, weight.shape[1] ** -0.5)
    return Network(config, codec.eval().requires_grad_(False), lm.eval().requires_grad_(False))


def tiny_config(*, num_pause_heads: int = 0) -> ModelConfig:
    """Small in width only; 25 s cross its windows many times."""
    inner = TransformerConfig(
        dim=32, num_layers=2, num_heads=2, ffn_dim=40, window=10, rope_theta=100_000.0, norm="rms",
        norm_eps=1e-8, gated=True, layer_scale=False,
    )  # fmt: skip
    codec = CodecConfig(
        transformer=replace(
            inner, norm="layer", norm_eps=1e-5, gated=False, layer_scale=True,
            positions_per_frame=2, window=26, rope_theta=10_000.0,
        ),
        sample_rate=800, num_filters=4, strides=(4, 8), num_codebooks=6, codebook_size=16,
        codebook_dim=8,
    )  # fmt: skip
    lm = LMConfig(
        transformer=inner, text_vocab_size=40, num_codebooks=6, codebook_size=16,
        num_pause_heads=num_pause_heads,
    )  # fmt: skip
    return ModelConfig(codec=codec, lm=lm, text_delay_s=0.5)


def one_b_config(*, window: int = 750, num_pause_heads: int = 0) -> ModelConfig:
    """The real 1B; its window can be made smaller so that it is crossed."""
    backbone = TransformerConfig(
        dim=2048, num_layers=16, num_heads=16, ffn_dim=5632, window=window, rope_theta=100_000.0,
        norm="rms", norm_eps=1e-8, gated=True, layer_scale=False,
    )  # fmt: skip
    lm = LMConfig(transformer=backbone, text_vocab_size=8000, num_pause_heads=num_pause_heads)
    return ModelConfig(codec=CodecConfig(), lm=lm, text_delay_s=0.5)


def moshi_codec(network: Network) -> Any:
    """moshi's Mimi with our weights (its decoder at random)."""
    _, tensors = to_native(network.lm.state_dict(), network.codec.state_dict(), network.config)
    codec = network.config.codec
    mimi = get_mimi(None, mimi_config=write_native_codec(codec), num_codebooks=codec.num_codebooks)
    missing, unexpected = mimi.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all(
        name.startswith(("decoder", "upsample")) or "output_proj" in name for name in missing
    )
    return mimi


def moshi_lm(network: Network) -> Any:
    """moshi's decoder with our weights, strictly."""
    tensors, _ = to_native(network.lm.state_dict(), network.codec.state_dict(), network.config)
    kwargs = write_native(network.config, mimi_name="", tokenizer_name="")
    for key in (
        "model_type", "mimi_name", "tokenizer_name", "lm_gen_config", "stt_config",
        "mimi_config_name", "conditioners",
    ):  # fmt: skip
        kwargs.pop(key, None)
    lm = get_moshi_lm(None, lm_kwargs=kwargs, device="meta", dtype=torch.float32)
    lm.load_state_dict(tensors, strict=True, assign=True)
    return lm.eval()


def transformers_model(network: Network, folder: Path) -> Any:
    """transformers' model, read from a checkpoint that kiku wrote."""
    save_transformers(
        folder, network.config, lm=network.lm.state_dict(), codec=network.codec.state_dict()
    )
    model = transformers.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32
    )
    return model.eval()


@torch.no_grad()
def kiku_codes(network: Network, pcm: Tensor, *, frames_per_call: int) -> Tensor:
    """[1, 1, S] -> [1, K, T], that many frames a call."""
    codec = network.codec
    state = codec.init_state(1, "cpu", torch.float32)
    pieces = pcm.split(frames_per_call * network.config.frame_size, dim=-1)
    return torch.cat([codec(piece, state, all_active(1)) for piece in pieces], dim=-1)


@torch.no_grad()
def kiku_tokens(network: Network, codes: Tensor) -> Said:
    """Greedy: [1, K, T] codes -> T tokens."""
    lm = network.lm
    state, active = lm.init_state(1, "cpu", torch.float32), all_active(1)
    column = lm.initial_column(1, "cpu")
    tokens: list[int] = []
    logits, pauses = [], []
    for t in range(codes.shape[-1]):
        out = lm(column, state, active)
        tokens.append(int(out.logits[0, -1].argmax()))
        logits.append(out.logits[0, -1])
        if out.pauses is not None:
            pauses.append(out.pauses[0, -1])
        column = torch.cat([torch.tensor([[tokens[-1]]]), codes[:, :, t]], dim=1)[:, None]
    return Said(tokens, torch.stack(logits), torch.stack(pauses) if pauses else None)


@torch.no_grad()
def moshi_tokens(lm: Any, codes: Tensor) -> tuple[list[int], Tensor | None]:
    """Greedy: [1, K, T] codes -> T tokens, pause probabilities [T, E].

    The first frame goes in twice: moshi drops what it gets in its first step.
    """
    generator = LMGen(lm, temp=0.0, temp_text=0.0)
    tokens: list[int] = []
    pauses = []
    with generator.streaming(1):
        for t in [0, *range(codes.shape[-1] - 1)]:
            out, heads = generator.step_with_extra_heads(codes[:, :, t : t + 1])
            tokens.append(int(out[0, 0, 0]))
            if heads:
                pauses.append(torch.stack([head[0, 0, 0] for head in heads]))
    return tokens, torch.stack(pauses) if pauses else None


def columns(network: Network, codes: Tensor, tokens: list[int]) -> Tensor:
    """What the decoder reads while it says `tokens`: [1, T, 1 + K]."""
    first = network.lm.initial_column(1, "cpu")
    said = torch.tensor(tokens[:-1])[None, :, None]
    return torch.cat([first, torch.cat([said, codes[:, :, :-1].transpose(1, 2)], dim=-1)], dim=1)


@torch.no_grad()
def moshi_logits(lm: Any, read: Tensor) -> Tensor:
    """[1, T, 1 + K] columns -> [T, V]."""
    return lm.forward_text(read.transpose(1, 2))[1][0, 0]


@torch.no_grad()
def transformers_logits(model: Any, read: Tensor) -> Tensor:
    """[1, T, 1 + K] columns -> [T, V], step by step: only its cache knows the window."""
    past, rows = None, []
    for t in range(read.shape[1]):
        out = model(input_ids=read[:, t : t + 1], past_key_values=past, use_cache=True)
        past = out.past_key_values
        rows.append(out.logits[0, -1])
    return torch.stack(rows)


@torch.no_grad()
def transformers_tokens(model: Any, pcm: Tensor, num_tokens: int) -> list[int]:
    """[1, 1, S] -> its first tokens, greedy, without the start id."""
    out = model.generate(input_values=pcm, max_new_tokens=num_tokens)
    return out[0, 1:].tolist()


def noise(network: Network, seconds: float, seed: int = 1) -> Tensor:
    """[1, 1, S] a whole number of frames of noise whose loudness wanders."""
    generator = torch.Generator().manual_seed(seed)
    config = network.config
    num = round(seconds * config.frame_rate)
    loudness = torch.rand(num, 1, generator=generator) * 0.4
    frames = torch.randn(num, config.frame_size, generator=generator) * loudness
    return frames.view(1, 1, -1)
