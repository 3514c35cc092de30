"""The graphs on their own: their files, shapes that cannot be, and what they remember of a slot."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from kiku.codec import MimiEncoder
from kiku.engine.kernels import ONNX_RUNTIME, Kernels
from kiku.engine.onnx import onnx_engine
from kiku.errors import CheckpointError, UnsupportedConfig
from kiku.graph import (
    Variant,
    code_offsets,
    codec_pasts,
    empty_row,
    graph_file,
    write_codec,
    write_decoder,
)
from kiku.graph.writer import GraphWriter
from kiku.lm import LM
from tests import tiny
from tests.engine.engines import graphs, own_kernels, weights_of


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_the_files_are_a_valid_model_with_its_data_beside_it(precision: str) -> None:
    folder = graphs(precision)
    for name in ("codec", "decoder"):
        last_ends: list[int] = []
        for variant in Variant:
            file = folder / graph_file(name, variant)
            model = onnx.load(str(file), load_external_data=False)
            outside = [t for t in model.graph.initializer if t.external_data]
            places = sorted(
                (int(p["offset"]), int(p["length"]), p["location"])
                for p in ({e.key: e.value for e in t.external_data} for t in outside)
            )
            assert {place[2] for place in places} == {f"{name}.data"}
            ends = [offset + length for offset, length, _ in places]
            assert all(offset % 4096 == 0 for offset, _, _ in places)
            assert all(end <= after[0] for end, after in zip(ends, places[1:], strict=False))
            last_ends.append(ends[-1])
        assert max(last_ends) == (folder / f"{name}.data").stat().st_size


def test_the_same_weights_give_the_same_files(tmp_path: Path) -> None:
    config = tiny.model_config()
    write_decoder(tmp_path, config.lm, weights_of(tiny.lm()), "int4")
    write_codec(tmp_path, config.codec, weights_of(tiny.codec()), "int4")
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (graphs("int4") / file.name).read_bytes()


def test_fewer_bits_take_less_room() -> None:
    sizes = [(graphs(p) / "decoder.data").stat().st_size for p in ("float32", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True)


def test_heads_that_the_runtime_cannot_rotate_are_told(tmp_path: Path) -> None:
    config = tiny.lm_config()
    narrow = replace(config, transformer=tiny.transformer(num_heads=4, head_dim=8))
    with pytest.raises(UnsupportedConfig, match=r"heads of 8 .* engine='torch'"):
        write_decoder(tmp_path, narrow, weights_of(tiny.lm()), "float32")


def test_a_file_that_is_cut_short_is_told(tmp_path: Path) -> None:
    for file in graphs().iterdir():
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(
            data[: len(data) // 2] if "decoder" in file.name else data
        )
    with pytest.raises(CheckpointError, match="convert the model again"):
        onnx_engine(tmp_path, tiny.model_config())


def test_columns_index_one_table() -> None:
    config = tiny.lm_config()
    offsets = code_offsets(config)
    assert offsets.tolist() == [0, *(config.text_rows + k * 17 for k in range(4))]
    assert empty_row(config) == config.text_rows + 4 * 17


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_the_last_row_of_the_table_adds_nothing(precision: str) -> None:
    tensors = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(str(graphs(precision) / "decoder.onnx")).graph.initializer
    }
    row = empty_row(tiny.lm_config())
    table = tensors["embeddings"]
    assert len(table) == row + 1
    if precision == "float32":
        assert not table[row].any()
    else:
        assert (table[row] == 128).all()
        assert tensors["embedding_scales"].shape == (row + 1, 1)
        assert np.isfinite(tensors["embedding_scales"][row]).all()


def test_the_pasts_are_those_of_the_convolutions() -> None:
    # What a slot remembers is as long as the kernels reach: taps times the stride, less one.
    config = replace(tiny.codec_config(), residual_kernel_size=4, dilation_growth=3,
                     num_residual_layers=2)  # fmt: skip
    sizes = {past.name: past.size for past in codec_pasts(config)}
    assert sizes["past_first"] == config.kernel_size - 1
    assert sizes["past_0_down"] == 1
    assert sizes["past_0_0"] == 3 + 2 + 1  # of the taps but the last
    assert sizes["past_0_1"] == 3 * (3 + 2 + 1)
    assert all(sizes.values())
    alone = replace(config, residual_kernel_size=1, last_kernel_size=1)
    assert not {"past_0_0", "past_last"} & {past.name for past in codec_pasts(alone)}


def test_more_taps_than_the_operator_takes_are_refused(tmp_path: Path) -> None:
    config = replace(tiny.codec_config(), residual_kernel_size=33)
    tensors = MimiEncoder(config).state_dict()
    with pytest.raises(UnsupportedConfig, match="33 taps"):
        write_codec(tmp_path, config, lambda name: tensors[name].numpy(), "float32")


@pytest.mark.parametrize("used", [ONNX_RUNTIME, None], ids=["plain", "kernels"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize(
    "changes",
    [
        {"kernel_size": 1},
        {"kernel_size": 1, "last_kernel_size": 1, "residual_kernel_size": 1},
        {"num_residual_layers": 0},
        {"codebook_dim": 2064},
        {"codebook_dim": 2048},
    ],
    ids=str,
)
def test_shapes_at_the_edge_are_converted_and_run(
    changes: dict[str, Any], precision: str, used: Kernels | None, tmp_path: Path
) -> None:
    codec = replace(tiny.codec_config(), **changes)
    config = replace(tiny.model_config(), codec=codec)
    networks = [from_random(kind, part) for kind, part in ((MimiEncoder, codec), (LM, config.lm))]
    write_codec(tmp_path, codec, weights_of(networks[0]), precision)
    write_decoder(tmp_path, config.lm, weights_of(networks[1]), precision)
    engine = onnx_engine(tmp_path, config, threads=1, used=used or own_kernels())
    engine.open()
    sound = np.random.default_rng(0).standard_normal((20, codec.frame_size)).astype(np.float32)
    codes = engine.encode([0], sound[:1], [1]).tolist()
    codes += engine.encode([0], sound[1:], [19]).tolist()
    if precision == "float32":
        state = networks[0].init_state(1, "cpu", torch.float32)
        pcm = torch.from_numpy(sound.reshape(1, 1, -1))
        assert codes == networks[0](pcm, state, torch.ones(1, dtype=torch.bool))[0].T.tolist()
    engine.close(0)
    engine.open()
    assert len(engine.step([0], sound, [20]).tokens) == 20


def from_random(kind: type[Any], config: Any) -> Any:
    """A network with the weights that PyTorch gives it."""
    torch.manual_seed(2)
    return kind(config).eval().requires_grad_(False)


@pytest.mark.parametrize("head_dim", [256, 272])
def test_wide_heads_run_or_are_refused(head_dim: int, tmp_path: Path) -> None:
    lm = replace(tiny.lm_config(), transformer=tiny.transformer(head_dim=head_dim))
    inner = replace(tiny.codec_config().transformer, head_dim=head_dim)
    codec = replace(tiny.codec_config(), transformer=inner)
    networks = [from_random(kind, part) for kind, part in ((MimiEncoder, codec), (LM, lm))]
    if head_dim > 256:
        with pytest.raises(UnsupportedConfig, match=r"heads of 272 .*engine='torch'"):
            write_codec(tmp_path, codec, weights_of(networks[0]), "float32")
        with pytest.raises(UnsupportedConfig, match=r"heads of 272 .*engine='torch'"):
            write_decoder(tmp_path, lm, weights_of(networks[1]), "float32")
        return
    write_codec(tmp_path, codec, weights_of(networks[0]), "float32")
    write_decoder(tmp_path, lm, weights_of(networks[1]), "float32")
    for used in (ONNX_RUNTIME, own_kernels()):
        engine = onnx_engine(
            tmp_path, replace(tiny.model_config(), codec=codec, lm=lm), threads=1, used=used
        )
        engine.open()
        engine.step([0], np.zeros((2, codec.frame_size), np.float32), [2])


def test_other_shapes_of_the_codec_give_the_codes_of_torch(tmp_path: Path) -> None:
    # Two residual blocks with growing dilation, no projection, a downsampling by three.
    inner = tiny.transformer(
        norm="layer", norm_eps=1e-5, gated=False, layer_scale=True, positions_per_frame=3,
        window=7, rope_theta=10_000.0,
    )  # fmt: skip
    config = replace(
        tiny.codec_config(), transformer=inner, num_residual_layers=2, residual_kernel_size=4,
        dilation_growth=3, strides=(2, 5), project_latents=False, codebook_dim=32, num_semantic=2,
    )  # fmt: skip
    torch.manual_seed(3)
    codec = MimiEncoder(config).eval().requires_grad_(False)
    for name, weight in codec.named_parameters():
        if "scale" in name:
            weight.fill_(0.4)
    write_codec(tmp_path, config, weights_of(codec), "float32")
    write_decoder(tmp_path, tiny.lm_config(), weights_of(tiny.lm()), "float32")
    engine = onnx_engine(tmp_path, replace(tiny.model_config(), codec=config), slots=2, threads=1)
    engine.open()
    engine.open()
    sound = np.random.default_rng(0).standard_normal((2, 40, config.frame_size)).astype(np.float32)
    pieces = [
        engine.encode([0, 1], part.reshape(-1, config.frame_size), [part.shape[1]] * 2)
        for part in (sound[:, :1], sound[:, 1:])
    ]
    pcm = torch.from_numpy(sound.reshape(2, 1, -1))
    state = codec.init_state(2, "cpu", torch.float32)
    expected = codec(pcm, state, torch.ones(2, dtype=torch.bool)).transpose(1, 2).numpy()
    codes = np.concatenate([part.reshape(2, -1, part.shape[1]) for part in pieces], axis=1)
    assert codes.tolist() == expected.tolist()


@pytest.mark.parametrize("width", [1024, 1000])
def test_parts_of_a_weight_lie_in_the_file_once_where_they_are_pages(
    tmp_path: Path, width: int
) -> None:
    whole = np.arange(3 * width, dtype=np.float32).reshape(3, width)
    with GraphWriter(tmp_path, "one") as writer:
        with writer.only(Variant.OWN):
            writer.tensor("whole", whole)
        with writer.only(Variant.PLAIN):
            parts = writer.parts_of("whole", whole)
        writer.finish()
    graph = onnx.load(str(tmp_path / graph_file("one", Variant.PLAIN))).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert [arrays[part].tolist() for part in parts] == whole.tolist()
    size = (tmp_path / "one.data").stat().st_size
    assert (size == whole.nbytes) == (width == 1024)
