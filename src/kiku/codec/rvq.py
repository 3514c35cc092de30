"""Split residual vector quantisation: which entry of each codebook is nearest to a latent."""

from typing import Any

import torch
from torch import Tensor, nn

from kiku.config import CodecConfig


class RVQ(nn.Module):
    """A chain of codebooks; each quantises what the ones before it left over."""

    codebooks: Tensor
    half_norms: Tensor

    def __init__(self, config: CodecConfig, num_codebooks: int) -> None:
        """A projection of the latents (where the config has it), then `num_codebooks`
        quantisers."""
        super().__init__()
        self.input_proj = (
            nn.Conv1d(config.latent_dim, config.codebook_dim, 1, bias=False)
            if config.project_latents
            else nn.Identity()
        )
        shape = (num_codebooks, config.codebook_size, config.codebook_dim)
        self.register_buffer("codebooks", torch.randn(shape))
        self.register_buffer("half_norms", torch.empty(shape[:2]), persistent=False)
        self.register_load_state_dict_post_hook(_refresh_after_load)  # pyright: ignore[reportUnknownMemberType]
        self.refresh()

    def refresh(self) -> None:
        """Follow a change of `codebooks` (loading does it by itself)."""
        self.half_norms = self.codebooks.square().sum(-1) / 2

    def encode(self, latents: Tensor) -> Tensor:
        """[B, D, T] -> [B, K, T] int64: for each codebook the entry nearest in Euclidean
        distance."""
        residual = self.input_proj(latents).transpose(1, 2)  # [B, T, D']
        codes: list[Tensor] = []
        for codebook, half_norm in zip(self.codebooks, self.half_norms, strict=True):
            # argmin |x - c|^2 = argmax (x . c - |c|^2 / 2)
            code = (residual @ codebook.T - half_norm).argmax(-1)  # [B, T]
            residual = residual - codebook[code]
            codes.append(code)
        return torch.stack(codes, dim=1)


def _refresh_after_load(module: nn.Module, _keys: Any) -> None:
    assert isinstance(module, RVQ)
    module.refresh()


class SplitRVQ(nn.Module):
    """Semantic codebooks and acoustic ones, two chains that start from the same latent.

    The acoustic chain does not quantise what the semantic one left over: both see the whole latent.
    """

    def __init__(self, config: CodecConfig) -> None:
        """`num_semantic` codebooks in the first chain, the rest in the second."""
        super().__init__()
        self.semantic = RVQ(config, config.num_semantic)
        self.acoustic = RVQ(config, config.num_codebooks - config.num_semantic)

    def encode(self, latents: Tensor) -> Tensor:
        """[B, D, T] -> [B, K, T] int64; semantic codebooks first."""
        return torch.cat([self.semantic.encode(latents), self.acoustic.encode(latents)], dim=1)
