# pyright: basic
# What torch gives is only partly typed.
"""The text that a model itself writes for a recording, for rows marked "keep" without a text.

Knows codes and text tokens; does not know sound.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from kiku.checkpoint import Loaded
from kiku.train.columns import NOTHING, TextLayout
from kiku.train.new_pieces import new_pieces_of
from kiku.train.training_module import columns_of


class OwnText:
    """Transcribes with a model's decoder as a stream would, but whole recordings at once."""

    def __init__(self, loaded: Loaded, layout: TextLayout, device: str) -> None:
        """Move the decoder to the device."""
        self.lm, self.device = loaded.lm.to(device), device
        self.new = new_pieces_of(loaded, -1)
        self.pad_id = layout.pad_id
        self.lead = layout.lead_frames if layout.lead == "zero" else 0

    @torch.no_grad()
    def column(self, codes: NDArray[np.uint16]) -> NDArray[np.int64]:
        """[K, T] codes -> [T] text tokens, each the likeliest; new pieces are left out.

        The text is guessed, all frames are read with this guess, and the output is the next guess.
        Each time at least one more token, and mostly many more, equals what reading frame after
        frame gives; a guess that comes back unchanged is correct as a whole.
        """
        batch = torch.from_numpy(codes.astype(np.int64)).to(self.device)[None]
        text = torch.full((1, codes.shape[1]), self.pad_id, device=self.device)
        text[:, : self.lead] = NOTHING
        active = torch.ones(1, dtype=torch.bool, device=self.device)
        dtype = self.lm.out_norm.weight.dtype
        for _ in range(codes.shape[1] + 1):
            state = self.lm.init_state(1, self.device, dtype, remember=False)
            logits = self.lm(columns_of(text, batch, self.lm.config), state, active).logits
            logits[..., self.new.start : self.new.stop] = -torch.inf
            likeliest = logits.argmax(-1)
            likeliest[:, : self.lead] = NOTHING
            if torch.equal(likeliest, text):
                break
            text = likeliest
        return text[0].cpu().numpy()
