# pyright: basic
# What torch gives is only partly typed.
"""What a decoder said before it was trained, and how far it has gone from there.

Knows one decoder and its weights of two times; does not know batches.
"""

from copy import deepcopy

import torch
from torch import Tensor
from torch.func import functional_call

from kiku.lm import LM


class Before:
    """A decoder as it was when its run began, though it is being trained.

    Only what is trained is held twice: of adapters and new rows that is little, of a whole decoder
    it is a copy.
    """

    def __init__(self, lm: LM, new: range, *, apart: bool = False) -> None:
        """As `lm` is now.

        Args:
            lm: the decoder.
            new: ids of pieces of which it knows nothing yet.
            apart: hold a second decoder, frozen weights and all: for one whose weights are to lie
                in parts, and cannot be exchanged while its gradient is waited for.
        """
        self.new, self.apart = new, apart
        self.lm = deepcopy(lm).requires_grad_(False) if apart else lm
        self.weights = {
            name: weight.detach().clone()
            for name, weight in self.lm.named_parameters()
            if weight.requires_grad
        }

    @torch.no_grad()
    def logits(self, columns: Tensor, dtype: torch.dtype) -> Tensor:
        """What it said of these columns, without dropout: [B, T, 1 + K] -> [B, T, V] in float32.

        The network is the one that is trained, with its old weights for the time of the call: no
        gradient, no hook of whoever wraps it, and nothing is drawn.
        """
        count, device = len(columns), columns.device
        state = self.lm.init_state(count, device, dtype, remember=False)
        active = torch.ones(count, dtype=torch.bool, device=device)
        was = self.lm.training
        self.lm.eval()
        try:
            out = functional_call(self.lm, self.weights, (columns, state, active))
        finally:
            self.lm.train(was)
        return out.logits.float()

    def divergence(self, before: Tensor, now: Tensor) -> Tensor:
        """The Kullback-Leibler divergence from what was said to what is said: [..., V] twice,
        logits -> [...].

        What was said is over the old pieces, what is said over all: chance that is given to a new
        piece is taken from the old ones, and costs.
        """
        was = self._old(before).log_softmax(-1)
        found = self._old(now.log_softmax(-1))
        return (was.exp() * (was - found)).sum(-1)

    def _old(self, logits: Tensor) -> Tensor:
        parts = [logits[..., : self.new.start], logits[..., self.new.stop :]]
        return torch.cat(parts, dim=-1) if len(self.new) else logits
