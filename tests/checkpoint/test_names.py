"""The tables are bijections between our state_dicts and the published files."""

import math

import pytest
import torch
from torch import nn

from kiku.checkpoint import names
from kiku.checkpoint.names import Table
from kiku.checkpoint.transforms import Centroids, SplitHalves
from kiku.codec import MimiEncoder
from kiku.config import CodecConfig
from kiku.lm import LM
from tests.checkpoint import published
from tests.checkpoint.models import one_b, two_b
from tests.checkpoint.published import Shapes


def _on_meta(make: type[nn.Module], config: object) -> nn.Module:
    with torch.device("meta"):
        return make(config)


def _lm_cases() -> list[tuple[Table, nn.Module, Shapes]]:
    plain, candle, big = one_b().lm, one_b(num_pause_heads=4).lm, two_b().lm
    return [
        (names.native_lm(plain), _on_meta(LM, plain), published.native_lm(16, 8000)),
        (names.native_lm(candle), _on_meta(LM, candle), published.native_lm(16, 8000, 4)),
        (names.native_lm(big), _on_meta(LM, big), published.native_lm(48, 4000)),
        (names.transformers_lm(plain), _on_meta(LM, plain), published.transformers_lm(16, 8001)),
        (names.transformers_lm(big), _on_meta(LM, big), published.transformers_lm(48, 4001)),
    ]


def _codec_cases() -> list[tuple[Table, nn.Module, Shapes]]:
    config = CodecConfig()
    codec = _on_meta(MimiEncoder, config)
    return [
        (names.native_codec(config), codec, published.native_codec()),
        (names.transformers_codec(config), codec, published.transformers_codec()),
    ]


@pytest.mark.parametrize("case", range(5))
def test_decoder_tables_are_bijections_onto_the_published_files(case: int) -> None:
    _check_bijection(*_lm_cases()[case])


@pytest.mark.parametrize("case", range(2))
def test_codec_tables_are_bijections_onto_the_published_files(case: int) -> None:
    _check_bijection(*_codec_cases()[case])


def _check_bijection(table: Table, module: nn.Module, expected: Shapes) -> None:
    state = module.state_dict()
    pairs = list(table.pairs())
    ours = [name for pair in pairs for name in pair.ours]
    theirs = [name for pair in pairs for name in pair.theirs]
    assert sorted(ours) == sorted(state), "each of ours exactly once"
    assert len(theirs) == len(set(theirs)), "each of theirs at most once"
    assert {n: tuple(t.shape) for n, t in table.to_theirs(state).items()} == expected
    assert table.expected({n: tuple(t.shape) for n, t in state.items()}) == expected
    for name in expected:
        assert table.canonical(name) == name
        assert not table.skips(name)


def test_the_published_counts() -> None:
    assert len(published.native_lm(16, 8000)) == 131
    assert len(published.native_lm(16, 8000, 4)) == 135
    assert len(published.native_lm(48, 4000)) == 323
    total = sum(math.prod(s) for s in published.native_lm(16, 8000).values())
    assert total == 989_204_480
    assert sum(math.prod(s) for s in published.native_lm(48, 4000).values()) == 2_617_118_720


def test_other_spellings_are_understood() -> None:
    lm, codec = names.native_lm(one_b().lm), names.native_codec(CodecConfig())
    layer = "transformer.layers.3.self_attn."
    for spelling in ("in_proj_weight", "in_proj.weight", "in_projs.0.weight"):
        assert lm.canonical(layer + spelling) == layer + "in_proj_weight"
    assert lm.canonical(layer + "out_projs.0.weight") == layer + "out_proj.weight"
    book = "quantizer.rvq_rest.vq.layers.4._codebook."
    for old, new in (
        ("inited", "_initialized"), ("cluster_size", "cluster_usage"),
        ("embed_avg", "embedding_sum"), ("embed_sum", "embedding_sum"),
    ):  # fmt: skip
        assert codec.canonical(book + old) == book + new


def test_names_that_transformers_5_has_in_memory_are_understood() -> None:
    table = names.transformers_codec(CodecConfig())
    flat = "codec_model.encoder.layers.3.conv.weight"
    for spelling in ("encoder.encoder_seanet", "encoder.encoder", "encoder"):
        assert table.canonical(f"codec_model.{spelling}.layers.3.conv.weight") == flat
    assert (
        table.canonical("codec_model.encoder.encoder_transformer.layers.0.mlp.fc1.weight")
        == "codec_model.encoder_transformer.layers.0.mlp.fc1.weight"
    )
    assert (
        table.canonical("codec_model.encoder.downsample.conv.weight")
        == "codec_model.downsample.conv.weight"
    )


@pytest.mark.parametrize(
    "name",
    [
        "decoder.model.0.conv.conv.weight",
        "decoder_transformer.transformer.layers.0.norm1.bias",
        "upsample.convtr.convtr.convtr.weight",
        "quantizer.rvq_first.output_proj.weight",
    ],
)
def test_the_half_that_makes_sound_is_skipped_by_name(name: str) -> None:
    assert names.native_codec(CodecConfig()).skips(name)
    assert not names.native_codec(CodecConfig()).skips("encoder.model.99.surprise")
    flat = names.transformers_codec(CodecConfig())
    for theirs in ("decoder.layers.0.conv.bias", "decoder.decoder_seanet.layers.0.conv.bias"):
        assert flat.skips("codec_model." + theirs)
    assert not flat.skips("codec_model.surprise")
    assert not names.transformers_lm(one_b().lm).skips("model.surprise")


def test_q_and_k_are_turned_as_transformers_does() -> None:
    heads, dim, width = 4, 8, 24
    fused = torch.randn(3 * heads * dim, width)
    q, k, v = SplitHalves(heads).write([fused])
    # within a head: rows 0, 2, 4, 6 first, then 1, 3, 5, 7
    order = [h * dim + r for h in range(heads) for r in (0, 2, 4, 6, 1, 3, 5, 7)]
    assert torch.equal(q, fused[: heads * dim][order])
    assert torch.equal(k, fused[heads * dim : 2 * heads * dim][order])
    assert torch.equal(v, fused[2 * heads * dim :])
    assert torch.equal(SplitHalves(heads).read([q, k, v])[0], fused)


def test_centroids_are_sums_by_counts_and_rare_codes_do_not_divide_by_zero() -> None:
    total, count = torch.tensor([[4.0, 8.0], [1.0, 0.0]]), torch.tensor([2.0, 0.0])
    books = Centroids().read([total, count, torch.ones(1)])[0]
    assert books.shape == (1, 2, 2)
    assert books[0, 0].tolist() == [2.0, 4.0]
    assert torch.isfinite(books).all()
    again = Centroids().read(Centroids().write([books]))[0]
    assert torch.equal(again, books)
