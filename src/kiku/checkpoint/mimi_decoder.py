"""The weights of Mimi's decoder, which makes sound: never run here, but carried along so that
nothing is lost."""

from collections.abc import Mapping

from torch import Tensor

from kiku.checkpoint.headers import read_headers
from kiku.checkpoint.layout import Files
from kiku.checkpoint.mapped import MappedTensors
from kiku.checkpoint.names import TRANSFORMERS_CODEC, Row, Table
from kiku.checkpoint.reading import tables
from kiku.checkpoint.transforms import SplitHalves
from kiku.config import CodecConfig, ModelConfig


def read_mimi_decoder(files: Files, config: ModelConfig) -> dict[str, Tensor]:
    """The tensors of the codec that `load` skips, mapped, under Kyutai's names; empty if the files
    lack them.

    Raises:
        CheckpointError: a file is damaged.
    """
    tensors = MappedTensors(read_headers(files.codec))
    codec = tables(files.layout, config)[1]
    native = files.layout == "native"
    names: dict[str, str] = {}
    for name in tensors.stored:
        names[codec.canonical(name) if native else _as_stored(name)] = name
    if native:
        decoder = {ours for pair in _table(config.codec).pairs() for ours in pair.ours}
        return {
            canonical: tensors.mapped(name)
            for canonical, name in names.items()
            if canonical in decoder
        }
    found: dict[str, Tensor] = {}
    for pair in _table(config.codec).pairs():
        if all(name in names for name in pair.theirs):
            values = pair.how.read([tensors.mapped(names[name]) for name in pair.theirs])
            found.update(zip(pair.ours, values, strict=True))
    return found


def mimi_decoder_to_transformers(
    decoder: Mapping[str, Tensor], config: CodecConfig
) -> dict[str, Tensor]:
    """Kyutai's names -> transformers' flat names; tensors that are missing are left out."""
    theirs: dict[str, Tensor] = {}
    for pair in _table(config).pairs():
        if all(name in decoder for name in pair.ours):
            theirs.update(
                zip(pair.theirs, pair.how.write([decoder[name] for name in pair.ours]), strict=True)
            )
    return theirs


def _as_stored(name: str) -> str:
    """The flat name for one that transformers 5 has in memory."""
    for old, new in (
        ("decoder.decoder_seanet.layers.", "decoder.layers."),
        ("decoder.decoder.layers.", "decoder.layers."),
        ("decoder.decoder_transformer.", "decoder_transformer."),
        ("decoder.upsample.", "upsample."),
    ):
        if name.startswith(TRANSFORMERS_CODEC + old):
            return TRANSFORMERS_CODEC + new + name.removeprefix(TRANSFORMERS_CODEC + old)
    return name


def _table(config: CodecConfig) -> Table:
    """The name table of Mimi's decoder; `ours` are Kyutai's names here."""
    native = "decoder_transformer.transformer.layers.{layer}."
    flat = TRANSFORMERS_CODEC + "decoder_transformer.layers.{layer}."
    ours, theirs = "decoder.model.", TRANSFORMERS_CODEC + "decoder.layers."
    chain = TRANSFORMERS_CODEC + "quantizer.{theirs}_residual_vector_quantizer."
    renamed = {
        "linear1.weight": "mlp.fc1.weight", "linear2.weight": "mlp.fc2.weight",
        "norm1.{param}": "input_layernorm.{param}",
        "norm2.{param}": "post_attention_layernorm.{param}",
        "layer_scale_1.scale": "self_attn_layer_scale.scale",
        "layer_scale_2.scale": "mlp_layer_scale.scale",
        "self_attn.out_proj.weight": "self_attn.o_proj.weight",
    }  # fmt: skip
    # One sequence of numbers for convolutions, activations and residual blocks, as in the encoder.
    per_stage = config.num_residual_layers + 2
    stages = range(len(config.strides))
    return Table(
        rows=(
            Row(ours + "{end_at}.conv.conv.{param}", theirs + "{end_at}.conv.{param}"),
            Row(ours + "{up_at}.convtr.convtr.{param}", theirs + "{up_at}.conv.{param}"),
            Row(
                ours + "{block_at}.block.{part}.conv.conv.{param}",
                theirs + "{block_at}.block.{part}.conv.{param}",
            ),
            *(Row(native + name, flat + other) for name, other in renamed.items()),
            Row(
                native + "self_attn.in_proj_weight",
                tuple(f"{flat}self_attn.{p}_proj.weight" for p in "qkv"),
                SplitHalves(config.transformer.num_heads),
            ),
            Row(
                "upsample.convtr.convtr.convtr.weight", TRANSFORMERS_CODEC + "upsample.conv.weight"
            ),
            Row("quantizer.rvq_{ours}.output_proj.weight", chain + "output_proj.weight"),
        ),
        axes={
            ("layer",): [(i,) for i in range(config.transformer.num_layers)],
            ("param",): [("weight",), ("bias",)],
            ("end_at",): [(0,), (2 + len(stages) * per_stage,)],
            ("up_at",): [(2 + s * per_stage,) for s in stages],
            ("block_at",): [
                (3 + s * per_stage + r,) for s in stages for r in range(config.num_residual_layers)
            ],
            ("part",): [(1,), (3,)],
            ("ours", "theirs"): [("first", "semantic"), ("rest", "acoustic")],
        },
    )
