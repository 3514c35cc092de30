"""Without PyTorch the weights are the same numbers, bit for bit, and the same tensors refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kiku.checkpoint import find, load, read_config
from kiku.checkpoint.weights import weights_of
from kiku.errors import CheckpointError
from tests.conftest import without_torch

Tensors = dict[str, Tensor]


def _edit(path: Path, edit: Callable[[Tensors], Tensors]) -> None:
    save_file({n: t.contiguous() for n, t in edit(load_file(path)).items()}, path)


def _later_spelling(tensors: Tensors) -> Tensors:
    """As a live module of moshi names them."""
    for old, new in (
        ("self_attn.in_proj_weight", "self_attn.in_projs.0.weight"),
        ("self_attn.out_proj.weight", "self_attn.out_projs.0.weight"),
        ("._codebook._initialized", "._codebook.inited"),
        ("._codebook.cluster_usage", "._codebook.cluster_size"),
        ("._codebook.embedding_sum", "._codebook.embed_sum"),
    ):
        tensors = {name.replace(old, new): t for name, t in tensors.items()}
    return tensors


def _of_transformers_5(tensors: Tensors) -> Tensors:
    for old, new in (
        ("codec_model.encoder.layers.", "codec_model.encoder.encoder_seanet.layers."),
        ("codec_model.encoder_transformer.", "codec_model.encoder.encoder_transformer."),
        ("codec_model.downsample.", "codec_model.encoder.downsample."),
    ):
        tensors = {name.replace(old, new): t for name, t in tensors.items()}
    return tensors


def _used(tensors: Tensors) -> Tensors:
    """Codebooks as training leaves them: sums of what each code was given, and how often."""
    generator = torch.Generator().manual_seed(3)
    for name in tensors:
        if "cluster_usage" in name:
            counts = torch.randint(0, 9, tensors[name].shape, generator=generator)
            tensors[name] = counts + torch.rand(counts.shape, generator=generator)
    return tensors


def _in(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    def convert(tensors: Tensors) -> Tensors:
        # as in the published files of transformers' layout: table and head stay float32
        return {n: t if "embed" in n or "head" in n else t.to(dtype) for n, t in tensors.items()}

    return convert


def _in_shards(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map: dict[str, str] = {}
    for i in range(3):
        name = f"model-{i}.safetensors"
        part = dict(list(tensors.items())[i::3])
        save_file(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _silent_about_heads(folder: Path) -> None:
    """As the -candle repositories are."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    del values["extra_heads_num_heads"], values["extra_heads_dim"]
    path.write_text(json.dumps(values))


def _edits(*edits: Callable[[Tensors], Tensors]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for path in folder.glob("*.safetensors"):
            for edit in edits:
                _edit(path, edit)

    return change


_CASES: list[tuple[str, str, Callable[[Path], None]]] = [
    ("native", "as written", lambda folder: None),
    ("native", "later spelling", _edits(_later_spelling)),
    ("native", "candle", _silent_about_heads),
    ("native", "bfloat16, used codebooks", _edits(_used, _in(torch.bfloat16))),
    ("native", "float16", _edits(_used, _in(torch.float16))),
    ("native", "float64", _edits(_in(torch.float64))),
    ("transformers", "flat", _edits(_used)),
    ("transformers", "5.x", _edits(_of_transformers_5)),
    ("transformers", "bfloat16", _edits(_in(torch.bfloat16))),
    ("transformers", "in shards", _in_shards),
]


@pytest.mark.parametrize(
    ("layout", "change"), [(a, c) for a, _, c in _CASES], ids=[f"{a} {b}" for a, b, _ in _CASES]
)
def test_the_arrays_are_the_tensors_of_the_torch_loader(
    layout: str,
    change: Callable[[Path], None],
    native_folder: Path,
    transformers_folder: Path,
) -> None:
    folder = native_folder if layout == "native" else transformers_folder
    change(folder)
    files = find(folder)
    loaded = load(files, dtype="float32")
    codec, lm = weights_of(files, read_config(files))
    for module, weights in ((loaded.codec, codec), (loaded.lm, lm)):
        for ours, tensor in module.state_dict().items():
            array = weights(ours)
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
            assert array.flags.writeable
            # not the values: -0 equals 0, and NaN does not equal itself
            assert array.shape == tuple(tensor.shape)
            assert array.tobytes() == tensor.contiguous().numpy().tobytes(), ours
    with pytest.raises(KeyError):
        lm("transformer.layers.99.norm1.weight")


def test_a_copy_is_a_copy(native_folder: Path) -> None:
    before = (native_folder / "model.safetensors").read_bytes()
    files = find(native_folder)
    _, lm = weights_of(files, read_config(files))
    lm("out_norm.weight").fill(7)
    assert (native_folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("layout", ["native", "transformers"])
def test_both_refuse_the_same_in_the_same_words(
    layout: str, native_folder: Path, transformers_folder: Path
) -> None:
    folder = native_folder if layout == "native" else transformers_folder

    def damage(tensors: Tensors) -> Tensors:
        first, second, *_ = sorted(tensors)
        del tensors[first]
        tensors[second] = torch.zeros(2, 3, 5)
        return tensors | {"codec_model.surprise": torch.zeros(3), "model.wings": torch.ones(2)}

    _edits(damage)(folder)
    files = find(folder)
    with pytest.raises(CheckpointError) as with_torch:
        load(files)
    with pytest.raises(CheckpointError, match="differ") as without:
        weights_of(files, read_config(files))
    assert str(with_torch.value) == str(without.value)


def test_numbers_of_a_type_that_numpy_lacks(native_folder: Path) -> None:
    _edit(native_folder / "model.safetensors", _in(torch.float8_e4m3fn))
    files = find(native_folder)
    _, lm = weights_of(files, read_config(files))
    with pytest.raises(CheckpointError, match=r"F8_E4M3; kiku reads BF16, F16, F32"):
        lm("out_norm.weight")


_READ = """
from kiku.checkpoint import find, read_config, verify
from kiku.checkpoint.weights import weights_of
for folder in sys.argv[1:]:
    files = find(folder)
    codec, lm = weights_of(files, read_config(files))
    lm("transformer.layers.0.attention.in_proj.weight"), codec("quantizer.acoustic.codebooks")
    assert all(finding.ok for finding in verify(folder))
"""


def test_reading_and_verifying_need_no_torch(
    native_folder: Path, transformers_folder: Path, tmp_path: Path
) -> None:
    sharded = Path(shutil.copytree(transformers_folder, tmp_path / "sharded"))
    _in_shards(sharded)
    folders = map(str, (native_folder, transformers_folder, sharded))
    subprocess.run([sys.executable, "-c", without_torch(_READ), *folders], check=True)
