"""Tiny models with fixed random weights, for whoever needs a network that is quick and not
trivial."""

import torch

from kiku.codec import MimiEncoder
from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig
from kiku.lm import LM
from kiku.text import Vocabulary

PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    "<pad>",
    *[
        "▁one",
        "▁two",
        "▁three",
        "▁",
        "s",
        "ed",
        "ing",
        "▁four",
        "ne",
        "ven",
        "ro",
        "▁go",
        ",",
        ".",
        "▁on",
    ],
]


def transformer(**changes: object) -> TransformerConfig:
    """Two layers of 32, a window of 10."""
    numbers = dict(
        dim=32,
        num_layers=2,
        num_heads=2,
        ffn_dim=40,
        window=10,
        rope_theta=100_000.0,
        norm="rms",
        norm_eps=1e-8,
        gated=True,
        layer_scale=False,
    )
    return TransformerConfig(**{**numbers, **changes})  # pyright: ignore[reportArgumentType]


def codec_config() -> CodecConfig:
    """Frames of 80 samples, four codebooks of 16 codes, a window of 6 latents."""
    inner = transformer(
        norm="layer",
        norm_eps=1e-5,
        gated=False,
        layer_scale=True,
        positions_per_frame=2,
        window=6,
        rope_theta=10_000.0,
    )
    return CodecConfig(
        transformer=inner,
        sample_rate=1000,
        num_filters=4,
        strides=(4, 10),
        kernel_size=7,
        num_codebooks=4,
        codebook_size=16,
        codebook_dim=8,
    )


def lm_config(num_pause_heads: int = 4) -> LMConfig:
    """Reads the codes of `codec_config`, writes tokens of `PIECES`."""
    return LMConfig(
        transformer=transformer(),
        text_vocab_size=len(PIECES),
        num_codebooks=4,
        codebook_size=16,
        num_pause_heads=num_pause_heads,
    )


def model_config() -> ModelConfig:
    """Text lags by half a second, as the 1B's."""
    return ModelConfig(codec=codec_config(), lm=lm_config(), text_delay_s=0.5)


def codec(seed: int = 0) -> MimiEncoder:
    """An encoder whose codes depend on all of the past that its windows reach."""
    torch.manual_seed(seed)
    model = MimiEncoder(codec_config()).eval().requires_grad_(False)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "scale" in name:
                weight.fill_(0.5)
            elif weight.dim() > 1:
                weight.normal_(0, (1.6 / weight[0].numel()) ** 0.5)
    return model


def lm(seed: int = 0, num_pause_heads: int = 4) -> LM:
    """A decoder whose tokens vary."""
    torch.manual_seed(seed)
    model = LM(lm_config(num_pause_heads)).eval().requires_grad_(False)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.3)
    return model


def vocabulary() -> Vocabulary:
    """Of `PIECES`."""
    return Vocabulary.from_pieces(PIECES)
