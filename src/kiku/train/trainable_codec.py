# pyright: basic
# What torch gives is only partly typed.
"""A codec that is trained: sound to codes, and a path for the decoder's gradient through them.

A code is a choice, and a choice has no gradient. The decoder reads the same codes as when it
transcribes. Only for the gradient each choice is treated as random: an entry of the codebook is the
likelier the nearer it is, and the decoder would have read the mean embedding of the entries. This
is a straight-through estimate with a softmax over negative squared distances.

The codebooks are not changed: the decoder's tables of embeddings, and the half of the codec that
makes sound, refer to their entries by number.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kiku.codec import RVQ, MimiEncoder
from kiku.nn.state import all_active


@dataclass(frozen=True, slots=True)
class SoftCodes:
    """Sound as codes for the decoder, with the probabilities of all choices."""

    codes: Tensor  # [B, K, T] int64
    probabilities: tuple[Tensor, ...]  # of each codebook [B, T, N]; empty if no gradient is wanted


class TrainableCodec(nn.Module):
    """A codec that is being trained."""

    softness: Tensor

    def __init__(
        self,
        codec: MimiEncoder,
        num_codebooks: int,
        temperature: float,
        *,
        checkpointing: bool = False,
    ) -> None:
        """Take a codec whose trained parts have `requires_grad` set.

        Args:
            codec: in float32, whatever the decoder's precision is: the codes depend on it.
            num_codebooks: how many codebooks the decoder reads.
            temperature: of the softmax, in squared distances between neighbours in a codebook.
            checkpointing: compute one example after the other, and again for its gradient.
        """
        super().__init__()
        self.codec, self.num_codebooks, self.checkpointing = codec, num_codebooks, checkpointing
        spacings = [_spacing(codebook) for _, codebook, _ in self._quantisers()]
        self.register_buffer("softness", temperature * torch.stack(spacings), persistent=False)

    def forward(self, sound: Tensor) -> SoftCodes:
        """Encode [B, T * frame_size] samples, each row from the beginning of a stream.

        A row is encoded as a whole and after silence, like a recording or a live stream.
        """
        if self.checkpointing and torch.is_grad_enabled():
            rows = [checkpoint(self._latents, row[None], use_reentrant=False) for row in sound]
            latents = torch.cat(rows)
        else:
            latents = self._latents(sound)
        return self._quantise(latents)

    def _latents(self, sound: Tensor) -> Tensor:
        # The state is made here, so that a recomputation starts from the same state.
        state = self.codec.init_state(len(sound), sound.device, sound.dtype, remember=False)
        return self.codec.latents(sound[:, None], state, all_active(len(sound), sound.device))

    def _quantise(self, latents: Tensor) -> SoftCodes:
        """The same codes as `SplitRVQ.encode`, with their probabilities."""
        codes: list[Tensor] = []
        probabilities: list[Tensor] = []
        projection, residual = None, latents
        for rvq, codebook, half_norm in self._quantisers():
            if rvq is not projection:
                projection = rvq
                residual = rvq.input_proj(latents).transpose(1, 2)
            scores = residual @ codebook.T - half_norm
            code = scores.argmax(-1)
            if scores.requires_grad:
                # The part of |x - c|^2 that depends on the entry is -2 * scores.
                probabilities.append((2 * scores / self.softness[len(codes)]).softmax(-1))
            residual = residual - codebook[code]
            codes.append(code)
        return SoftCodes(torch.stack(codes, dim=1), tuple(probabilities))

    def _quantisers(self) -> Iterator[tuple[RVQ, Tensor, Tensor]]:
        """The RVQ, codebook and half squared norms of each codebook that the decoder reads."""
        both = (self.codec.quantizer.semantic, self.codec.quantizer.acoustic)
        found = [(r, *one) for r in both for one in zip(r.codebooks, r.half_norms, strict=True)]
        yield from found[: self.num_codebooks]


def _spacing(codebook: Tensor) -> Tensor:
    """The median squared distance from an entry [N, D] to its nearest neighbour, as a number."""
    distances = torch.cdist(codebook, codebook).square()
    distances.fill_diagonal_(torch.inf)
    # Entries that are never used may be equal.
    nearest = distances.min(dim=1).values
    return nearest[nearest > 0].median() if bool((nearest > 0).any()) else nearest.new_ones(())


def straight_through(soft: SoftCodes, codes: Tensor, tables: nn.ModuleList) -> Tensor | None:
    """Zeros to add to the summed embeddings of codes, with the gradient of the mean embeddings.

    Args:
        soft: output of the codec.
        codes: [B, K, T] that the decoder reads; those that are hidden from it get no gradient.
        tables: the decoder's code embeddings; they get no gradient from this.

    Returns:
        [B, T, D] zeros; None if no gradient is wanted.
    """
    total: Tensor | None = None
    for k, probabilities in enumerate(soft.probabilities):
        with torch.no_grad():
            # Called, not indexed: a table may be in parts on several processes.
            rows = tables[k](
                torch.arange(probabilities.shape[-1], device=probabilities.device)
            ).float()
        mean = (probabilities @ rows) * (codes[:, k] >= 0).unsqueeze(-1)
        total = mean if total is None else total + mean
    return None if total is None else total - total.detach()
