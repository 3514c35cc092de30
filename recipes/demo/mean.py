"""The mean of two models, one of which was trained on from the other.

Two fine-tunings of one network lie in one basin, and a point between them errs less than either of
them on sound that neither heard (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022;
"Model soups", 2022). It costs nothing when the model runs. Models of two unlike beginnings have no
such mean.
"""

from collections.abc import Mapping

import torch


def mean_state(
    trained: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor], kept: float
) -> dict[str, torch.Tensor]:
    """`kept` of `start` (0 to 1) and the rest of `trained`, tensor by tensor, in float32.

    Whole numbers, which are no weights, are `trained`'s. ValueError when the names differ.
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
