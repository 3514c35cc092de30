"""How the convolutions of the codec begin."""

import math

import torch
from torch import nn


def start_well(seanet: nn.Module) -> None:
    """He initialisation, residual branches scaled by 0.3: PyTorch's default lets the signal die on
    the way.
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
