"""Upstream tensor names and kiku's: one table per upstream file, read in both directions.

A row pairs a pattern of our names (kiku's) with one or more of theirs (upstream's). `{letters}`
stand for the places of an axis (layers, codebooks ...). An axis that both sides name is run
through: one pair per place. An axis that only one side names is gathered: all its places belong to
one tensor of the other side, in order.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kiku.checkpoint.tensor_shapes import Shape, Shapes
from kiku.checkpoint.transforms import (
    SAME,
    Centroids,
    HeadRows,
    OneTable,
    SplitHalves,
    StartRow,
    Transform,
    Unsqueezed,
)
from kiku.config import CodecConfig, LMConfig

if TYPE_CHECKING:
    from torch import Tensor

Axes = Mapping[tuple[str, ...], Sequence[tuple[Any, ...]]]
"""The letters of an axis -> its places; each place gives a value to every letter."""

TRANSFORMERS_CODEC = "codec_model."
_TRANSFORMERS_BUFFERS = r"rotary_emb\.inv_freq$|audio_tokens_offsets$"

# A live module of moshi has the later spellings, Kyutai's files the first.
_NATIVE_ATTENTION = (
    (r"\.self_attn\.in_proj(?:s\.0)?\.weight$", ".self_attn.in_proj_weight"),
    (r"\.self_attn\.out_projs\.0\.weight$", ".self_attn.out_proj.weight"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Patterns of ours, the patterns of theirs with the same numbers, and how to convert these."""

    ours: str | tuple[str, ...]
    theirs: str | tuple[str, ...]
    how: Transform = SAME


@dataclass(frozen=True, slots=True)
class Pair:
    """A row at one place of its axes: plain names on both sides."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    how: Transform


@dataclass(frozen=True, slots=True)
class Table:
    """The names of all tensors in one upstream file, and what they are called here."""

    rows: tuple[Row, ...]
    axes: Axes
    aliases: tuple[tuple[str, str], ...] = ()
    """Other spellings -> the spelling of the rows: regular expressions, applied in order."""
    skipped: str = r"(?!)"
    """A regular expression of the names that kiku has no use for."""

    def canonical(self, name: str) -> str:
        """`name` in the spelling of the rows."""
        for pattern, replacement in self.aliases:
            name = re.sub(pattern, replacement, name)
        return name

    def skips(self, name: str) -> bool:
        """Whether kiku has no use for the tensor with this (canonical) name."""
        return re.search(self.skipped, name) is not None

    def pairs(self) -> Iterator[Pair]:
        """Every row at every place of its axes."""
        for row in self.rows:
            ours, theirs = _several(row.ours), _several(row.theirs)
            mine, other = self._axes_of(ours), self._axes_of(theirs)
            shared = [axis for axis in mine if axis in other]
            for place in self._places(shared):
                yield Pair(
                    self._names(ours, [a for a in mine if a not in shared], place),
                    self._names(theirs, [a for a in other if a not in shared], place),
                    row.how,
                )

    def to_theirs(self, state: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
        """Our tensors under upstream's names."""
        theirs: dict[str, Tensor] = {}
        for pair in self.pairs():
            values = pair.how.write([state[name] for name in pair.ours])
            theirs.update(zip(pair.theirs, values, strict=True))
        return theirs

    def expected(self, ours: Shapes) -> dict[str, Shape]:
        """The names and shapes that a file must have, from those of our tensors."""
        theirs: dict[str, Shape] = {}
        for pair in self.pairs():
            shapes = pair.how.written([ours[name] for name in pair.ours])
            theirs.update(zip(pair.theirs, shapes, strict=True))
        return theirs

    def _axes_of(self, patterns: tuple[str, ...]) -> list[tuple[str, ...]]:
        letters = set(re.findall(r"\{(\w+)\}", " ".join(patterns)))
        return [axis for axis in self.axes if letters.intersection(axis)]

    def _places(self, axes: list[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
        for places in itertools.product(*(self.axes[axis] for axis in axes)):
            yield {
                letter: value
                for axis, place in zip(axes, places, strict=True)
                for letter, value in zip(axis, place, strict=True)
            }

    def _names(
        self, patterns: tuple[str, ...], gathered: list[tuple[str, ...]], place: dict[str, Any]
    ) -> tuple[str, ...]:
        names: list[str] = []
        for pattern in patterns:
            own = [axis for axis in gathered if axis in self._axes_of((pattern,))]
            names += [pattern.format(**place, **more) for more in self._places(own)]
        return tuple(names)


def native_lm(config: LMConfig) -> Table:
    """The table of Kyutai's decoder file."""
    theirs = "transformer.layers.{layer}."
    ours = "transformer.layers.{layer}."
    return Table(
        rows=(
            Row(
                "text_embedding.weight",
                "text_emb.weight",
                StartRow(config.initial_text_id, config.text_vocab_size + 1),
            ),
            Row("code_embeddings.{codebook}.weight", "emb.{codebook}.weight"),
            Row(ours + "norm{half}.weight", theirs + "norm{half}.alpha", Unsqueezed()),
            Row(ours + "attention.in_proj.weight", theirs + "self_attn.in_proj_weight"),
            Row(ours + "attention.out_proj.weight", theirs + "self_attn.out_proj.weight"),
            Row(ours + "feed_forward.linear_{way}.weight", theirs + "gating.linear_{way}.weight"),
            Row("out_norm.weight", "out_norm.alpha", Unsqueezed()),
            Row("text_head.weight", "text_linear.weight"),
            Row("pause_heads.{head}.weight", "extra_heads.{head}.weight"),
        ),
        axes=_lm_axes(config),
        aliases=_NATIVE_ATTENTION,
    )


def native_codec(config: CodecConfig) -> Table:
    """The table of Kyutai's codec file; Mimi's decoder, the half that makes sound, is skipped."""
    layer = "encoder_transformer.transformer.layers.{layer}."
    ours = "transformer.layers.{layer}."
    return Table(
        rows=(
            *_seanet_rows("encoder.model.", ".conv.conv."),
            Row(ours + "norm{half}.{param}", layer + "norm{half}.{param}"),
            Row(ours + "scale{half}", layer + "layer_scale_{half}.scale"),
            Row(ours + "feed_forward.linear_in.weight", layer + "linear1.weight"),
            Row(ours + "feed_forward.linear_out.weight", layer + "linear2.weight"),
            Row(ours + "attention.in_proj.weight", layer + "self_attn.in_proj_weight"),
            Row(ours + "attention.out_proj.weight", layer + "self_attn.out_proj.weight"),
            Row("downsample.conv.weight", "downsample.conv.conv.conv.weight"),
            Row("quantizer.{chain}.input_proj.weight", "quantizer.rvq_{theirs}.input_proj.weight"),
            *_codebook_rows(
                "quantizer.rvq_{chain}.vq.layers.",
                "._codebook.",
                ("embedding_sum", "cluster_usage", "_initialized"),
                ("first", "rest"),
            ),
        ),
        axes=_codec_axes(config, ("first", "rest")),
        aliases=(
            *_NATIVE_ATTENTION,
            (r"\._codebook\.inited$", "._codebook._initialized"),
            (r"\._codebook\.cluster_size$", "._codebook.cluster_usage"),
            (r"\._codebook\.(embed_avg|embed_sum)$", "._codebook.embedding_sum"),
        ),
        skipped=r"^(decoder\.|decoder_transformer\.|upsample\.)|^quantizer\.\w+\.output_proj\.",
    )


def transformers_lm(config: LMConfig) -> Table:
    """The table of the decoder's part of transformers' file."""
    t = config.transformer
    layer = "model.layers.{layer}."
    ours = "transformer.layers.{layer}."
    text, codes = config.text_rows, config.codebook_size + 1
    return Table(
        rows=(
            Row(
                ("text_embedding.weight", "code_embeddings.{codebook}.weight"),
                "model.embed_tokens.embed_tokens.weight",
                OneTable((text, *(codes,) * config.num_codebooks)),
            ),
            Row(ours + "norm{half}.weight", layer + "{norm}.weight"),
            Row(
                ours + "attention.in_proj.weight",
                tuple(f"{layer}self_attn.{p}_proj.linear.weight" for p in "qkv"),
                SplitHalves(t.num_heads),
            ),
            Row(ours + "attention.out_proj.weight", layer + "self_attn.o_proj.linear.weight"),
            Row(ours + "feed_forward.linear_{way}.weight", layer + "mlp.{fc}.weight"),
            Row("out_norm.weight", "model.norm.weight"),
            Row("text_head.weight", "lm_head.weight", HeadRows(config.text_vocab_size, text)),
        ),
        axes=_lm_axes(config),
        skipped=rf"^{re.escape(TRANSFORMERS_CODEC)}|{_TRANSFORMERS_BUFFERS}",
    )


def transformers_codec(config: CodecConfig) -> Table:
    """The table of the codec's part of transformers' file: flat names (on disk) or those that 5.x
    has in memory."""
    prefix = TRANSFORMERS_CODEC
    layer = prefix + "encoder_transformer.layers.{layer}."
    chain = prefix + "quantizer.{theirs}_residual_vector_quantizer."
    ours = "transformer.layers.{layer}."
    projection = Row("quantizer.{chain}.input_proj.weight", chain + "input_proj.weight")
    return Table(
        rows=(
            *_seanet_rows(prefix + "encoder.layers.", ".conv."),
            Row(ours + "norm{half}.{param}", layer + "{norm}.{param}"),
            Row(ours + "scale{half}", layer + "{scale}.scale"),
            Row(
                ours + "attention.in_proj.weight",
                tuple(f"{layer}self_attn.{p}_proj.weight" for p in "qkv"),
                SplitHalves(config.transformer.num_heads),
            ),
            Row(ours + "attention.out_proj.weight", layer + "self_attn.o_proj.weight"),
            Row(ours + "feed_forward.linear_{way}.weight", layer + "mlp.{fc}.weight"),
            Row("downsample.conv.weight", prefix + "downsample.conv.weight"),
            *((projection,) if config.project_latents else ()),
            *_codebook_rows(
                prefix + "quantizer.{chain}_residual_vector_quantizer.layers.",
                ".codebook.",
                ("embed_sum", "cluster_usage", "initialized"),
                ("semantic", "acoustic"),
            ),
        ),
        axes=_codec_axes(config, ("semantic", "acoustic")),
        aliases=(
            (
                rf"^{re.escape(prefix)}encoder\.(?:encoder_seanet|encoder)\.layers\.",
                prefix + "encoder.layers.",
            ),
            (rf"^{re.escape(prefix)}encoder\.(encoder_transformer|downsample)\.", prefix + r"\1."),
        ),
        skipped=(
            rf"^(?!{re.escape(prefix)})"
            rf"|^{re.escape(prefix)}(decoder\.|decoder_transformer\.|upsample\.)"
            rf"|\.output_proj\.weight$|{_TRANSFORMERS_BUFFERS}"
        ),
    )


def _several(patterns: str | tuple[str, ...]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else patterns


# The two halves of a layer, and transformers' words for their norms and layer scales.
_HALVES = [
    (1, "input_layernorm", "self_attn_layer_scale"),
    (2, "post_attention_layernorm", "mlp_layer_scale"),
]


def _lm_axes(config: LMConfig) -> Axes:
    return {
        ("layer",): _count(config.transformer.num_layers),
        ("half", "norm", "scale"): _HALVES,
        ("way", "fc"): [("in", "fc1"), ("out", "fc2")],
        ("codebook",): _count(config.num_codebooks),
        ("head",): _count(config.num_pause_heads),
    }


def _codec_axes(config: CodecConfig, chains: tuple[str, str]) -> Axes:
    # Upstream numbers convolutions, residual blocks and activations of the whole SEANet in one
    # sequence.
    per_stage = config.num_residual_layers + 2
    stages = range(len(config.strides))
    blocks = range(config.num_residual_layers)
    return {
        ("layer",): _count(config.transformer.num_layers),
        ("half", "norm", "scale"): _HALVES,
        ("way", "fc"): [("in", "fc1"), ("out", "fc2")],
        ("param",): [("weight",), ("bias",)],
        ("stage", "down_at"): [(s, (s + 1) * per_stage) for s in stages],
        ("of_stage", "residual", "residual_at"): [
            (s, r, 1 + s * per_stage + r) for s in stages for r in blocks
        ],
        ("last_at",): [(2 + len(stages) * per_stage,)],
        ("chain", "theirs"): list(zip(("semantic", "acoustic"), chains, strict=True)),
        ("semantic",): _count(config.num_semantic),
        ("acoustic",): _count(config.num_codebooks - config.num_semantic),
    }


def _count(num: int) -> list[tuple[int]]:
    return [(i,) for i in range(num)]


def _seanet_rows(prefix: str, conv: str) -> tuple[Row, ...]:
    """Rows of the convolutions; `conv` is the part of the name in which upstream wraps one."""
    residual = "seanet.stages.{of_stage}.residuals.{residual}."
    block = prefix + "{residual_at}.block."
    return (
        Row("seanet.first.conv.{param}", prefix + "0" + conv + "{param}"),
        Row(residual + "wide.conv.{param}", block + "1" + conv + "{param}"),
        Row(residual + "narrow.conv.{param}", block + "3" + conv + "{param}"),
        Row("seanet.stages.{stage}.down.conv.{param}", prefix + "{down_at}" + conv + "{param}"),
        Row("seanet.last.conv.{param}", prefix + "{last_at}" + conv + "{param}"),
    )


def _codebook_rows(
    before: str, after: str, parts: tuple[str, ...], chains: tuple[str, str]
) -> tuple[Row, ...]:
    """Rows of the two chains of codebooks; `{chain}` in `before` is upstream's word for a chain."""
    return tuple(
        Row(
            f"quantizer.{axis}.codebooks",
            tuple(
                before.replace("{chain}", chain) + f"{{{axis}}}" + after + part for part in parts
            ),
            Centroids(),
        )
        for axis, chain in zip(("semantic", "acoustic"), chains, strict=True)
    )
