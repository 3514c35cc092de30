"""Names and shapes of the tensors in the published files, as far as kiku reads them."""

Shapes = dict[str, tuple[int, ...]]

_CONVOLUTIONS = {0: (64, 1, 7), 3: (128, 64, 8), 6: (256, 128, 10), 9: (512, 256, 12),
                 12: (1024, 512, 16), 14: (512, 1024, 3)}  # fmt: skip
_RESIDUALS = {1: 64, 4: 128, 7: 256, 10: 512}


def native_lm(num_layers: int, text_card: int, num_heads: int = 0) -> Shapes:
    """model.safetensors of stt-1b-en_fr (16 layers, 8000) and stt-2.6b-en (48, 4000)."""
    shapes: Shapes = {"text_emb.weight": (text_card + 1, 2048)}
    shapes |= {f"emb.{k}.weight": (2049, 2048) for k in range(32)}
    for i in range(num_layers):
        layer = f"transformer.layers.{i}."
        shapes |= {
            layer + "norm1.alpha": (1, 1, 2048),
            layer + "self_attn.in_proj_weight": (6144, 2048),
            layer + "self_attn.out_proj.weight": (2048, 2048),
            layer + "norm2.alpha": (1, 1, 2048),
            layer + "gating.linear_in.weight": (11264, 2048),
            layer + "gating.linear_out.weight": (2048, 5632),
        }
    shapes |= {"out_norm.alpha": (1, 1, 2048), "text_linear.weight": (text_card, 2048)}
    return shapes | {f"extra_heads.{e}.weight": (6, 2048) for e in range(num_heads)}


def native_codec() -> Shapes:
    """The encoder's half of mimi-pytorch-e351c8d8@125.safetensors."""
    shapes: Shapes = {}
    for at, shape in _CONVOLUTIONS.items():
        _conv(shapes, f"encoder.model.{at}.conv.conv.", shape)
    for at, c in _RESIDUALS.items():
        _conv(shapes, f"encoder.model.{at}.block.1.conv.conv.", (c // 2, c, 3))
        _conv(shapes, f"encoder.model.{at}.block.3.conv.conv.", (c, c // 2, 1))
    for i in range(8):
        layer = f"encoder_transformer.transformer.layers.{i}."
        shapes |= {
            layer + "self_attn.in_proj_weight": (1536, 512),
            layer + "self_attn.out_proj.weight": (512, 512),
            layer + "linear1.weight": (2048, 512),
            layer + "linear2.weight": (512, 2048),
        }
        for name in (
            "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "layer_scale_1.scale",
            "layer_scale_2.scale",
        ):  # fmt: skip
            shapes[layer + name] = (512,)
    shapes["downsample.conv.conv.conv.weight"] = (512, 512, 4)
    for chain, num in (("first", 1), ("rest", 31)):
        shapes[f"quantizer.rvq_{chain}.input_proj.weight"] = (256, 512, 1)
        for i in range(num):
            book = f"quantizer.rvq_{chain}.vq.layers.{i}._codebook."
            shapes |= {
                book + "_initialized": (1,),
                book + "cluster_usage": (2048,),
                book + "embedding_sum": (2048, 256),
            }
    return shapes


def transformers_lm(num_layers: int, vocab_size: int) -> Shapes:
    """The decoder in stt-1b-en_fr-trfs (16, 8001) and stt-2.6b-en-trfs (48, 4001)."""
    shapes: Shapes = {
        "model.embed_tokens.embed_tokens.weight": (vocab_size + 32 * 2049 + 1, 2048),
        "model.norm.weight": (2048,),
        "lm_head.weight": (vocab_size, 2048),
    }
    for i in range(num_layers):
        layer = f"model.layers.{i}."
        shapes |= {f"{layer}self_attn.{p}_proj.linear.weight": (2048, 2048) for p in "qkvo"}
        shapes |= {
            layer + "mlp.fc1.weight": (11264, 2048),
            layer + "mlp.fc2.weight": (2048, 5632),
            layer + "input_layernorm.weight": (2048,),
            layer + "post_attention_layernorm.weight": (2048,),
        }
    return shapes


def transformers_codec() -> Shapes:
    """The codec's encoder half in the same files."""
    shapes: Shapes = {}
    prefix = "codec_model."
    for at, shape in _CONVOLUTIONS.items():
        _conv(shapes, f"{prefix}encoder.layers.{at}.conv.", shape)
    for at, c in _RESIDUALS.items():
        _conv(shapes, f"{prefix}encoder.layers.{at}.block.1.conv.", (c // 2, c, 3))
        _conv(shapes, f"{prefix}encoder.layers.{at}.block.3.conv.", (c, c // 2, 1))
    for i in range(8):
        layer = f"{prefix}encoder_transformer.layers.{i}."
        shapes |= {f"{layer}self_attn.{p}_proj.weight": (512, 512) for p in "qkvo"}
        shapes |= {layer + "mlp.fc1.weight": (2048, 512), layer + "mlp.fc2.weight": (512, 2048)}
        for name in (
            "input_layernorm.weight", "input_layernorm.bias", "post_attention_layernorm.weight",
            "post_attention_layernorm.bias", "self_attn_layer_scale.scale", "mlp_layer_scale.scale",
        ):  # fmt: skip
            shapes[layer + name] = (512,)
    shapes[prefix + "downsample.conv.weight"] = (512, 512, 4)
    for chain, num in (("semantic", 1), ("acoustic", 31)):
        rvq = f"{prefix}quantizer.{chain}_residual_vector_quantizer."
        shapes[rvq + "input_proj.weight"] = (256, 512, 1)
        for i in range(num):
            book = f"{rvq}layers.{i}.codebook."
            shapes |= {
                book + "initialized": (1,),
                book + "cluster_usage": (2048,),
                book + "embed_sum": (2048, 256),
            }
    return shapes


def _conv(shapes: Shapes, name: str, shape: tuple[int, ...]) -> None:
    shapes[name + "weight"] = shape
    shapes[name + "bias"] = shape[:1]
