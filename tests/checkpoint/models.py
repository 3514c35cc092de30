"""Configs of the published shapes, and tiny checkpoints in folders."""

from pathlib import Path

from kiku.checkpoint import save_native, save_transformers
from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig
from tests import tiny


def one_b(*, num_pause_heads: int = 0) -> ModelConfig:
    """stt-1b-en_fr."""
    return _published(16, 16, 750, 8000, num_pause_heads, 0.5, 0.0)


def two_b() -> ModelConfig:
    """stt-2.6b-en."""
    return _published(48, 32, 375, 4000, 0, 2.5, 1.0)


def _published(
    layers: int, heads: int, window: int, card: int, pause_heads: int, delay: float, prefix: float
) -> ModelConfig:
    backbone = TransformerConfig(
        dim=2048, num_layers=layers, num_heads=heads, ffn_dim=5632, window=window,
        rope_theta=100_000.0, norm="rms", norm_eps=1e-8, gated=True, layer_scale=False,
    )  # fmt: skip
    lm = LMConfig(transformer=backbone, text_vocab_size=card, num_pause_heads=pause_heads)
    return ModelConfig(CodecConfig(), lm, text_delay_s=delay, silence_prefix_s=prefix)


def write_native_folder(folder: Path) -> Path:
    """A tiny checkpoint in Kyutai's layout, with pause heads."""
    save_native(
        folder,
        tiny.model_config(),
        lm=tiny.lm().state_dict(),
        codec=tiny.codec().state_dict(),
        vocabulary=_vocabulary(folder),
    )
    return folder


def write_transformers_folder(folder: Path) -> Path:
    """A tiny checkpoint in transformers' layout."""
    save_transformers(
        folder,
        tiny.model_config(),
        lm=tiny.lm().state_dict(),
        codec=tiny.codec().state_dict(),
        vocabulary=_vocabulary(folder),
    )
    return folder


def _vocabulary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(tiny.vocabulary().to_tokenizer_json())
    return path
