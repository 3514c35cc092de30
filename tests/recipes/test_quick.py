"""The training form of SEANet is the same function as the streaming one."""

import pytest
import torch

from kiku.codec import MimiEncoder
from kiku.config import CodecConfig, TransformerConfig
from recipes.demo.encoder import Encoder
from recipes.demo.quick import down, seanet_whole


def config() -> CodecConfig:
    inner = TransformerConfig(
        dim=16, num_layers=1, num_heads=2, ffn_dim=24, window=10, rope_theta=1e4, norm="layer",
        norm_eps=1e-5, gated=False, layer_scale=True, positions_per_frame=2,
    )  # fmt: skip
    return CodecConfig(
        transformer=inner, num_filters=4, num_codebooks=3, codebook_size=8, codebook_dim=8
    )


def test_the_same_latents_as_the_streaming_form() -> None:
    torch.manual_seed(0)
    mimi = MimiEncoder(config())
    pcm = 0.1 * torch.randn(2, 1, 5 * 1920)
    active = torch.ones(2, dtype=torch.bool)
    with torch.no_grad():
        wanted = mimi.seanet(pcm, mimi.seanet.init_state(2, "cpu", torch.float32), active)
        assert torch.allclose(seanet_whole(mimi.seanet, pcm), wanted, atol=1e-5)


@pytest.mark.parametrize(("channels", "stride"), [(8, 4), (100, 5)], ids=["blocks", "product"])
def test_a_strided_convolution_and_its_gradients(channels: int, stride: int) -> None:
    torch.manual_seed(1)
    conv = torch.nn.Conv1d(channels, 6, 2 * stride, stride)
    x = torch.randn(2, channels, 7 * stride, requires_grad=True)
    plain = conv(torch.nn.functional.pad(x, (stride, 0)))
    other = down(x, conv)
    assert torch.allclose(plain, other, atol=1e-4)
    (wanted,) = torch.autograd.grad(plain.square().sum(), conv.weight)
    (given,) = torch.autograd.grad(other.square().sum(), conv.weight)
    assert torch.allclose(wanted, given, rtol=1e-3, atol=1e-3)


def test_the_whole_encoder_gives_the_codecs_own_latents() -> None:
    torch.manual_seed(2)
    model = Encoder(config(), num_phones=5)
    pcm = 0.1 * torch.randn(2, 1, 6 * 1920)
    active = torch.ones(2, dtype=torch.bool)
    with torch.no_grad():
        state = model.mimi.init_state(2, "cpu", torch.float32)
        wanted = model.mimi.latents(pcm, state, active)
        _, given = model.trunk(model.front(pcm))
    assert torch.allclose(given, wanted, atol=1e-4)
