"""The laws on the whole encoder and on its convolutional part; parity with both references is in
tests/parity."""

import pytest
import torch

from kiku.codec import MimiEncoder
from kiku.codec.rvq import RVQ
from kiku.errors import FrameError
from kiku.nn.state import all_active
from tests import laws, tiny


def test_laws_hold_for_codes_past_the_window() -> None:
    model = tiny.codec()
    law = laws.Remembering(
        lambda b: model.init_state(b, "cpu", torch.float32), model, model.config.frame_size
    )
    laws.check_all(law, torch.randn(3, 1, 20 * model.config.frame_size) * 0.3, model)


def test_laws_hold_for_latents() -> None:
    model = tiny.codec(1)
    law = laws.Remembering(
        lambda b: model.init_state(b, "cpu", torch.float32), model.latents, model.config.frame_size
    )
    laws.check_all(law, torch.randn(2, 1, 15 * model.config.frame_size) * 0.3, model)


def test_laws_hold_for_seanet() -> None:
    model = tiny.codec(2).seanet
    law = laws.Remembering(
        lambda b: model.init_state(b, "cpu", torch.float32), model, tiny.codec_config().hop
    )
    laws.check_all(law, torch.randn(2, 1, 9 * tiny.codec_config().hop), model)


def test_codes_vary_and_stay_in_range() -> None:
    model = tiny.codec()
    x = torch.randn(1, 1, 40 * model.config.frame_size) * 0.3
    codes = model(x, model.init_state(1, "cpu", torch.float32), all_active(1))
    assert codes.shape == (1, 4, 40)
    assert codes.dtype == torch.int64
    assert codes.min() >= 0
    assert codes.max() < 16
    assert all(len(set(row.tolist())) > 3 for row in codes[0])


def test_samples_must_be_whole_frames() -> None:
    model = tiny.codec()
    with pytest.raises(FrameError, match="100 samples are not a whole number of frames"):
        model(torch.zeros(1, 1, 100), model.init_state(1, "cpu", torch.float32), all_active(1))


def test_codes_are_the_nearest_entries() -> None:
    torch.manual_seed(0)
    rvq = RVQ(tiny.codec_config(), 3)
    latents = torch.randn(2, 32, 7)
    residual = rvq.input_proj(latents).transpose(1, 2)
    for codebook, code in zip(rvq.codebooks, rvq.encode(latents).unbind(1), strict=True):
        nearest = (residual[:, :, None] - codebook).square().sum(-1).argmin(-1)
        assert torch.equal(code, nearest)
        residual = residual - codebook[nearest]


def test_loading_other_codebooks_changes_the_codes() -> None:
    """The norms that `encode` uses are derived: they must follow the codebooks (transformers' go
    stale)."""
    a, b = tiny.codec(0), tiny.codec(5)
    x = torch.randn(1, 1, 10 * a.config.frame_size)
    one = all_active(1)
    a(x, a.init_state(1, "cpu", torch.float32), one)
    a.load_state_dict(b.state_dict())
    expected = b(x, b.init_state(1, "cpu", torch.float32), one)
    assert torch.equal(a(x, a.init_state(1, "cpu", torch.float32), one), expected)


def test_a_model_built_without_memory_can_be_filled() -> None:
    real = tiny.codec()
    with torch.device("meta"):
        model = MimiEncoder(real.config)
    model.load_state_dict(real.state_dict(), assign=True)
    x = torch.randn(1, 1, 5 * real.config.frame_size)
    one = all_active(1)
    expected = real(x, real.init_state(1, "cpu", torch.float32), one)
    assert torch.equal(model(x, model.init_state(1, "cpu", torch.float32), one), expected)
