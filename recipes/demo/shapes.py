"""The sizes of the demo model."""

from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig

DELAY_S = 0.5


def demo_codec() -> CodecConfig:
    """Mimi's encoder at a quarter of its width: about 4.5 million parameters."""
    return CodecConfig(
        transformer=TransformerConfig(
            dim=256,
            num_layers=4,
            num_heads=4,
            ffn_dim=1024,
            window=125,
            rope_theta=10_000.0,
            norm="layer",
            norm_eps=1e-5,
            gated=False,
            layer_scale=True,
            positions_per_frame=2,
        ),
        num_filters=16,
        num_codebooks=8,
        num_semantic=1,
        codebook_size=512,
        codebook_dim=128,
    )


def demo_model(text_vocab_size: int) -> ModelConfig:
    """The whole model, given how many text ids its vocabulary has."""
    codec = demo_codec()
    lm = LMConfig(
        transformer=TransformerConfig(
            dim=192,
            num_layers=4,
            num_heads=4,
            ffn_dim=528,
            window=125,
            rope_theta=100_000.0,
            norm="rms",
            norm_eps=1e-8,
            gated=True,
            layer_scale=False,
        ),
        text_vocab_size=text_vocab_size,
        num_codebooks=codec.num_codebooks,
        codebook_size=codec.codebook_size,
        num_pause_heads=4,
        pause_classes=6,
    )
    return ModelConfig(codec, lm, text_delay_s=DELAY_S)
