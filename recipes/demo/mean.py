"""The mean of two models, one of which was fine-tuned from the other.

Two fine-tunings of one network lie in one basin of the loss, and a point between them makes fewer
errors than either on sound that neither was trained on (Wortsman et al., "Robust fine-tuning of
zero-shot models", 2022; "Model soups", 2022). It costs nothing when the model runs. This does not
work for models that were trained from different initial weights.
"""

from collections.abc import Mapping

import torch


def mean_state(
    trained: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor], kept: float
) -> dict[str, torch.Tensor]:
    """The mean of the weights, a share of `kept` (0 to 1) of `start`, the rest of `trained`.

    It is in float32. Integer tensors, which are no weights, are `trained`'s. Raises ValueError if
    the names differ, or for another share.
    """
    if not 0 <= kept <= 1:
        raise ValueError(f"of the start {kept} cannot be kept: give a share from 0 to 1")
    if unlike := sorted(trained.keys() ^ start.keys()):
        raise ValueError(f"the two models do not have the same tensors: only one has {unlike[0]}")
    return {
        name: torch.lerp(tensor.float(), start[name].float(), kept)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in trained.items()
    }
