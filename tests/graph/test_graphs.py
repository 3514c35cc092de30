"""The graphs on their own: their files, shapes that cannot be, and what they remember of a slot."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

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
from tests import tiny
from tests.engine.engines import graphs, weights_of


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
    from kiku.codec import MimiEncoder

    config = replace(tiny.codec_config(), residual_kernel_size=33)
    tensors = MimiEncoder(config).state_dict()
    with pytest.raises(UnsupportedConfig, match="33 taps"):
        write_codec(tmp_path, config, lambda name: tensors[name].numpy(), "float32")


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
    from kiku.codec import MimiEncoder

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
