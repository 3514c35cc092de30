"""Initial weights of the codec's convolutions."""

import math

import torch
from torch import nn


def he_init(seanet: nn.Module) -> None:
    """He initialisation, with residual branches scaled by 0.3.

    With PyTorch's default the signal fades out from layer to layer.
    """
    with torch.no_grad():
        for name, module in seanet.named_modules():
            if isinstance(module, nn.Conv1d):
                fan_in = module.in_channels * module.kernel_size[0]
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_in))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                if ".narrow" in name:
                    module.weight.mul_(0.3)
