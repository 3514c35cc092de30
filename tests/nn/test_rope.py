"""Rotary positions against float64, near zero and after days."""

import pytest
import torch

from kiku.nn.rope import Rope, rotate


@pytest.mark.parametrize("theta", [10_000.0, 100_000.0])
@pytest.mark.parametrize("start", [0, 2**16 - 8, 2**20 + 3, 2**23])
def test_angles_equal_those_of_float64(theta: float, start: int) -> None:
    positions = torch.arange(start, start + 16)
    cos, sin = Rope(128, theta)(positions[None])
    frequencies = theta ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    angles = positions.double()[:, None] * frequencies
    assert (cos[0, 0] - angles.cos()).abs().max() < 3e-7
    assert (sin[0, 0] - angles.sin()).abs().max() < 3e-7


def test_a_product_in_float32_would_not_pass() -> None:
    position = 2**16 + 1
    frequencies = 1e5 ** (-torch.arange(0, 128, 2) / 128)
    naive = (position * frequencies.float()).cos()
    exact = (position * (1e5 ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128))).cos()
    assert (naive - exact).abs().max() > 1e-4


def test_a_model_that_is_cast_keeps_its_angles() -> None:
    rope = Rope(32, 1e4)
    before = rope(torch.tensor([[70_001]]))
    after = torch.nn.ModuleList([rope]).to(torch.bfloat16)[0](torch.tensor([[70_001]]))
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_scores_depend_on_distance_alone() -> None:
    torch.manual_seed(0)
    rope, q, k = Rope(64, 1e5), torch.randn(1, 1, 1, 64), torch.randn(1, 1, 1, 64)

    def score(query: int, key: int) -> float:
        a = rotate(q, *rope(torch.tensor([[query]])))
        return float((a * rotate(k, *rope(torch.tensor([[key]])))).sum())

    assert score(5_000_123, 5_000_023) == pytest.approx(score(100, 0), abs=1e-4)
    assert score(100, 0) != pytest.approx(score(101, 0), abs=1e-4)
