"""The mean of two models."""

import pytest
import torch

from recipes.demo.mean import mean_state


def states() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    trained = {"w": torch.tensor([4.0, -2.0]), "count": torch.tensor([7])}
    return trained, {"w": torch.tensor([0.0, 2.0]), "count": torch.tensor([3])}


def test_a_share_of_the_start_is_kept() -> None:
    trained, start = states()
    assert mean_state(trained, start, 0.25)["w"].tolist() == [3.0, -1.0]
    assert mean_state(trained, start, 0.25)["count"].tolist() == [7]


def test_half_precision_is_averaged_in_full() -> None:
    trained, start = ({"w": torch.tensor([x], dtype=torch.bfloat16)} for x in (1.0, 1.0078125))
    assert mean_state(trained, start, 0.5)["w"].tolist() == [1.00390625]


def test_two_unlike_models_have_no_mean() -> None:
    trained, start = states()
    with pytest.raises(ValueError, match="only one has b"):
        mean_state({**trained, "b": trained["w"]}, start, 0.5)
    with pytest.raises(ValueError, match="0 to 1"):
        mean_state(trained, start, 1.5)
