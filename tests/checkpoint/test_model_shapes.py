"""The published shapes are those that their files state; random weights fit the modules."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kiku.checkpoint.model_shapes import SHAPES, random_weights
from kiku.checkpoint.tensor_shapes import Shapes, codec_shapes, lm_shapes
from kiku.codec import MimiEncoder
from kiku.config import CodecConfig, LMConfig, ModelConfig
from kiku.engine.torch import torch_engine
from kiku.lm import LM
from tests import tiny
from tests.checkpoint.models import one_b, two_b


def test_they_are_what_the_published_files_say() -> None:
    # `one_b` and `two_b` are what test_config_native reads from the published config.json.
    assert SHAPES["1b"] == one_b()
    assert SHAPES["2.6b"] == two_b()


def _shapes_of(module: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(
    "config", [tiny.lm_config(), one_b().lm, one_b(num_pause_heads=4).lm, two_b().lm]
)
def test_decoders_have_the_tensors_that_are_expected(config: LMConfig) -> None:
    with torch.device("meta"):
        assert lm_shapes(config) == _shapes_of(LM(config))


@pytest.mark.parametrize(
    "config",
    [
        tiny.codec_config(),
        CodecConfig(),
        replace(tiny.codec_config(), project_latents=False, codebook_dim=32, num_semantic=2),
        replace(tiny.codec_config(), num_residual_layers=2),
    ],
)
def test_codecs_have_the_tensors_that_are_expected(config: CodecConfig) -> None:
    with torch.device("meta"):
        assert codec_shapes(config) == _shapes_of(MimiEncoder(config))


def _modules(config: ModelConfig) -> tuple[MimiEncoder, LM]:
    codec, lm = MimiEncoder(config.codec), LM(config.lm)
    for module, weights in zip((codec, lm), random_weights(config), strict=True):
        module.load_state_dict(
            {name: torch.from_numpy(weights(name)) for name in module.state_dict()}
        )
    return codec.eval().requires_grad_(False), lm.eval().requires_grad_(False)


def test_with_random_weights_tokens_and_codes_vary() -> None:
    config = tiny.model_config()
    engine = torch_engine(*_modules(config), device="cpu")
    slot, _ = engine.open()
    sound = np.random.default_rng(0).standard_normal((60, config.frame_size)) * 0.2
    assert len(set(engine.step([slot], sound.astype(np.float32), [60]).tokens.tolist())) > 4


def _lm_weights(seed: int = 0) -> Callable[[str], np.ndarray]:
    return random_weights(SHAPES["1b"], seed)[1]


def test_a_tensor_depends_on_its_name_and_the_seed() -> None:
    name = "transformer.layers.3.attention.out_proj.weight"
    first = _lm_weights()(name)
    assert first.dtype == np.float32
    assert first.shape == (2048, 2048)
    assert np.array_equal(first, _lm_weights()(name))
    assert not np.array_equal(first, _lm_weights(1)(name))
    assert not np.array_equal(first, _lm_weights()(name.replace("3", "4")))
    assert first.std() * 2048**0.5 == pytest.approx(1, rel=0.01)


def test_a_tensor_larger_than_the_store_of_normals_does_not_repeat_its_rows() -> None:
    table = _lm_weights()("text_embedding.weight")  # 16 million numbers
    assert len(np.unique(table[:, 0])) == len(table)


def test_no_torch_is_needed() -> None:
    use = (
        "import sys; from kiku.checkpoint.model_shapes import SHAPES, random_weights;"
        "random_weights(SHAPES['1b'])[0]('seanet.first.conv.bias');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", use], check=False).returncode == 0
