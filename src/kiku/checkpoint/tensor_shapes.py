"""Names and shapes of the tensors that a model of some config has, as kiku's modules name them.

Written down separately from the modules, so that it works without torch. Does not know the names in
files (`names`).
"""

import math

from kiku.config import CodecConfig, LMConfig, TransformerConfig

Shape = tuple[int, ...]

Shapes = dict[str, Shape]
"""Name in the torch module's `state_dict` -> shape."""

# Decoders with fewer weights than this run in float32 unless told otherwise: the memory that
# fewer bits would save is not worth their rounding.
_SMALL = 100_000_000


def is_small(config: LMConfig) -> bool:
    """Whether a decoder runs in float32 unless told otherwise."""
    return sum(map(math.prod, lm_shapes(config).values())) < _SMALL


def lm_shapes(config: LMConfig) -> Shapes:
    """The tensors of `kiku.lm.LM`."""
    dim = config.transformer.dim
    shapes: Shapes = {"text_embedding.weight": (config.text_rows, dim)}
    for k in range(config.num_codebooks):
        shapes[f"code_embeddings.{k}.weight"] = (config.codebook_size + 1, dim)
    shapes |= _transformer(config.transformer)
    shapes["out_norm.weight"] = (dim,)
    shapes["text_head.weight"] = (config.text_vocab_size, dim)
    for head in range(config.num_pause_heads):
        shapes[f"pause_heads.{head}.weight"] = (config.pause_classes, dim)
    return shapes


def codec_shapes(config: CodecConfig) -> Shapes:
    """The tensors of `kiku.codec.MimiEncoder`."""
    dim, step = config.latent_dim, config.downsample
    shapes = _seanet(config)
    shapes |= _transformer(config.transformer)
    shapes["downsample.conv.weight"] = (dim, dim, 2 * step)
    num_acoustic = config.num_codebooks - config.num_semantic
    for chain, num in (("semantic", config.num_semantic), ("acoustic", num_acoustic)):
        prefix = f"quantizer.{chain}."
        if config.project_latents:
            shapes[f"{prefix}input_proj.weight"] = (config.codebook_dim, dim, 1)
        shapes[f"{prefix}codebooks"] = (num, config.codebook_size, config.codebook_dim)
    return shapes


def _seanet(config: CodecConfig) -> Shapes:
    channels = config.num_filters
    shapes = _conv("seanet.first", channels, 1, config.kernel_size)
    for s, stride in enumerate(config.strides):
        hidden = channels // config.compress
        for r in range(config.num_residual_layers):
            residual = f"seanet.stages.{s}.residuals.{r}."
            shapes |= _conv(f"{residual}wide", hidden, channels, config.residual_kernel_size)
            shapes |= _conv(f"{residual}narrow", channels, hidden, 1)
        shapes |= _conv(f"seanet.stages.{s}.down", 2 * channels, channels, 2 * stride)
        channels *= 2
    return shapes | _conv("seanet.last", config.latent_dim, channels, config.last_kernel_size)


def _conv(name: str, channels_out: int, channels_in: int, kernel_size: int) -> Shapes:
    weight = (channels_out, channels_in, kernel_size)
    return {f"{name}.conv.weight": weight, f"{name}.conv.bias": (channels_out,)}


def _transformer(config: TransformerConfig) -> Shapes:
    dim, inner = config.dim, config.num_heads * config.head_dim
    wide = config.ffn_dim * (2 if config.gated else 1)
    shapes: Shapes = {}
    for i in range(config.num_layers):
        layer = f"transformer.layers.{i}."
        for half in (1, 2):
            shapes[f"{layer}norm{half}.weight"] = (dim,)
            if config.norm == "layer":
                shapes[f"{layer}norm{half}.bias"] = (dim,)
            if config.layer_scale:
                shapes[f"{layer}scale{half}"] = (dim,)
        shapes |= {
            f"{layer}attention.in_proj.weight": (3 * inner, dim),
            f"{layer}attention.out_proj.weight": (dim, inner),
            f"{layer}feed_forward.linear_in.weight": (wide, dim),
            f"{layer}feed_forward.linear_out.weight": (dim, config.ffn_dim),
        }
    return shapes
