"""The output of a decoder before it was trained, and how far its output has moved since.

Knows one decoder and its weights at two times; does not know batches.
"""

from copy import deepcopy

import torch
from torch import Tensor
from torch.func import functional_call

from kiku.lm import LM


class ReferenceDecoder:
    """A decoder as it was when its run began, kept while it is being trained.

    Only trained weights are held twice: few for adapters and new rows, a full copy if the whole
    decoder is trained.
    """

    def __init__(self, lm: LM, new: range, *, own_copy: bool = False) -> None:
        """Copy the present weights of `lm`.

        Args:
            lm: the decoder.
            new: ids of new pieces, for which it is not trained yet.
            own_copy: hold a whole second decoder, with its frozen weights. This is for a decoder
                whose weights will be in parts: they cannot be exchanged until its gradient is
                computed.
        """
        self.new, self.own_copy = new, own_copy
        self.lm = deepcopy(lm).requires_grad_(False) if own_copy else lm
        self.weights = {
            name: weight.detach().clone()
            for name, weight in self.lm.named_parameters()
            if weight.requires_grad
        }

    @torch.no_grad()
    def logits(self, columns: Tensor, dtype: torch.dtype) -> Tensor:
        """Its earlier logits for these columns: [B, T, 1 + K] -> [B, T, V] in float32.

        The call uses the network that is being trained, with its old weights: without gradients,
        hooks of a module that wraps it, dropout or other random numbers.
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
        """Kullback-Leibler divergence from earlier to present output: logits [..., V] -> [...].

        Earlier probabilities are normalised over the old pieces, present ones over all pieces: what
        the decoder gives to a new piece is taken from the old ones, and increases the divergence.
        """
        was = self._old(before).log_softmax(-1)
        found = self._old(now.log_softmax(-1))
        return (was.exp() * (was - found)).sum(-1)

    def _old(self, logits: Tensor) -> Tensor:
        parts = [logits[..., : self.new.start], logits[..., self.new.stop :]]
        return torch.cat(parts, dim=-1) if len(self.new) else logits
