"""The numbers and weights of a tiny checkpoint, and sound and columns to feed it with."""

import numpy as np
import torch

PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    "<pad>",
    *(f"▁w{i}" for i in range(20)),
    *(f"x{i}" for i in range(15)),
]
VOCAB_SIZE = len(PIECES) + 1
FRAME = 64
RATE = 1600

CODEC = dict(
    model_type="mimi", sampling_rate=RATE, num_quantizers=8, hidden_size=16, num_filters=8,
    upsampling_ratios=[8, 4], codebook_size=16, vector_quantization_hidden_dimension=8,
    codebook_dim=8, upsample_groups=16, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, intermediate_size=32, sliding_window=8,
)  # fmt: skip
CONFIG = dict(
    codebook_vocab_size=17, vocab_size=VOCAB_SIZE, hidden_size=32, num_hidden_layers=2,
    num_attention_heads=4, max_position_embeddings=512, sliding_window=12, ffn_dim=38,
    num_codebooks=8, audio_bos_token_id=16, audio_pad_token_id=VOCAB_SIZE + 8 * 17, pad_token_id=3,
    bos_token_id=VOCAB_SIZE - 1, rope_parameters={"rope_type": "default", "rope_theta": 1e5},
    codec_config=CODEC,
)  # fmt: skip


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Codes that depend on all that was heard, tokens that vary, a filler row of zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if "layer_scale" in name:
                weight.fill_(0.5)
            elif "cluster_usage" in name:
                weight.uniform_(0.5, 2.0, generator=generator)
            elif "embed_sum" in name:
                weight.normal_(0, 1.0, generator=generator)
            elif "codec" in name and weight.dim() > 1:
                weight.normal_(0, (1.6 / weight[0].numel()) ** 0.5, generator=generator)
            elif name.endswith("norm.weight") or "layernorm.weight" in name:
                weight.uniform_(0.8, 1.2, generator=generator)
            elif weight.dim() > 1:
                weight.normal_(0, 0.3, generator=generator)
        embeddings = model.get_parameter("model.embed_tokens.embed_tokens.weight")
        embeddings[-1] = 0
        model.get_parameter("lm_head.weight")[-1] = 0


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    """Loud noise: codes vary."""
    return (np.random.default_rng(seed).standard_normal(num_samples) * 0.3).astype(np.float32)


def columns(batch: int, positions: int, seed: int = 0) -> torch.Tensor:
    """[B, T, 1 + K] random ids."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(0, VOCAB_SIZE, (batch, positions, 1), generator=generator)
    codes = torch.randint(0, 17, (batch, positions, 8), generator=generator)
    return torch.cat([text, codes], -1)
