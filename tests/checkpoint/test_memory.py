"""Loading weights of the 1B's shape takes little more memory than the files are big."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kiku.checkpoint import save_native, save_transformers
from kiku.codec import MimiEncoder
from kiku.lm import LM
from tests import tiny
from tests.checkpoint.models import one_b

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak"),
]

_MEASURE = """
import json, sys
import torch
import kiku.checkpoint

def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

kiku.checkpoint.load(sys.argv[2], dtype="auto")  # a tiny one: what the libraries take once
before, anonymous = status("VmHWM"), status("RssAnon")
loaded = kiku.checkpoint.load(sys.argv[1], dtype="auto")
copied = status("RssAnon") - anonymous
tensors = [*loaded.lm.state_dict().values(), *loaded.codec.state_dict().values()]
for tensor in tensors:  # every page of every weight, as a network does
    tensor.reshape(-1)[:: 2048 // tensor.element_size()].sum().item()
peak = status("VmHWM") - before
print(json.dumps({"peak": peak, "copied": copied, "dtype": str(loaded.lm.out_norm.weight.dtype)}))
"""


def _random_state(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Values do not matter, but pages must not be those of one shared zero page."""
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        state[name] = torch.empty(tensor.shape, dtype=dtype).fill_(0.01)
    return state


@pytest.fixture(params=["native", "transformers"])
def big_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    config = one_b()
    with torch.device("meta"):
        lm, codec = LM(config.lm), MimiEncoder(config.codec)
    lm_state = _random_state(lm, torch.bfloat16)
    codec_state = _random_state(codec, torch.float32)
    vocabulary = tmp_path / "tokenizer.json"
    vocabulary.write_text(tiny.vocabulary().to_tokenizer_json())
    if request.param == "transformers":
        for name in lm_state:
            if "embed" in name or name == "text_head.weight":  # as in the published file
                lm_state[name] = lm_state[name].float()
    save = save_native if request.param == "native" else save_transformers
    save(tmp_path / "big", config, lm=lm_state, codec=codec_state, vocabulary=vocabulary)
    return tmp_path / "big"


def test_peak_is_at_most_a_fifth_above_the_size_of_the_files(
    big_folder: Path, native_folder: Path
) -> None:
    files = list(big_folder.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in files)
    try:
        out = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(big_folder), str(native_folder)],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for path in files:
            path.unlink()  # gigabytes, which pytest would keep
    measured = json.loads(out.stdout.splitlines()[-1])
    print(f"\n{size / 1e9:.3f} GB of files: {measured}, {measured['peak'] / size:.3f} of the size")
    assert measured["dtype"] == "torch.bfloat16"
    assert measured["peak"] <= 1.2 * size
    assert measured["peak"] > 0.7 * size, "less than the weights themselves: measured wrongly"
    if "mimi.safetensors" in {path.name for path in files}:
        assert measured["copied"] < 0.1 * size, "the decoder of this layout is mapped as it is"


_CONVERT = """
import pathlib, sys
from kiku.converted import convert

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

convert(sys.argv[2], precision="int8", folder=pathlib.Path(sys.argv[3], "made tiny"))
before = peak()
made = convert(sys.argv[1], folder=pathlib.Path(sys.argv[3], "made"))
assert made.precision == "int8"
print(peak() - before, made.manifest.num_bytes)
"""


def test_converting_holds_far_less_than_the_model(
    big_folder: Path, native_folder: Path, tmp_path: Path
) -> None:
    size = sum(path.stat().st_size for path in big_folder.glob("*.safetensors"))
    try:
        out = subprocess.run(
            [sys.executable, "-c", _CONVERT, *map(str, (big_folder, native_folder, tmp_path))],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for path in (*big_folder.glob("*.safetensors"), *tmp_path.rglob("*.data")):
            path.unlink()
    peak, made = map(int, out.stdout.split())
    print(f"\n{size / 1e9:.3f} GB of files: {peak / 1e9:.3f} GB of memory for {made / 1e9:.3f} GB")
    assert peak < 0.25 * size
