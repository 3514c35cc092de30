"""The quantiser: codebooks found by k-means, then encoder and codebooks tuned together."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.codec.rvq import RVQ
from kiku.config import CodecConfig
from recipes.demo.align import ctc
from recipes.demo.conv_features import roughened
from recipes.demo.corpus import VOCABULARY
from recipes.demo.encoder import DELAYS, Encoder, even_norm, word_loss
from recipes.demo.precision import lowered


def k_means(points: Tensor, count: int, *, rounds: int = 12, seed: int = 0) -> Tensor:
    """Centres [count, D] of points [N, D]; a centre without points becomes a random point."""
    generator = torch.Generator().manual_seed(seed)

    def pick(number: int) -> Tensor:
        return points[torch.randint(len(points), (number,), generator=generator)]

    centres = pick(count)
    for _ in range(rounds):
        nearest = (points @ centres.T - centres.square().sum(-1) / 2).argmax(-1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=count)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], pick(count))
    return centres


def principal_axes(points: Tensor, count: int) -> Tensor:
    """[count, D] orthonormal directions in which points [N, D] vary most."""
    centred = points - points.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(points))
    return vectors[:, -count:].T.flip(0).contiguous()


@torch.no_grad()
def bring_to_unit_size(model: Encoder, latents: Tensor) -> Tensor:
    """Scale the last convolution so that latents [N, D] have a root mean square of 1; gives them.

    The heads normalise their input, so nothing else changes; but the codebooks then change at the
    same pace as all other weights.
    """
    size = latents.square().mean().sqrt()
    model.mimi.downsample.conv.weight.div_(size)
    return latents / size


@torch.no_grad()
def start_quantiser(model: Encoder, latents: Tensor) -> dict[str, float]:
    """Fill projections and codebooks of `model.mimi.quantizer` from latents [N, D].

    Returns:
        the share of the projected latents' energy that remains after each chain.
    """
    left: dict[str, float] = {}
    for name, chain in (
        ("semantic", model.mimi.quantizer.semantic),
        ("acoustic", model.mimi.quantizer.acoustic),
    ):
        assert isinstance(chain.input_proj, nn.Conv1d)
        axes = principal_axes(latents, chain.codebooks.shape[-1])
        chain.input_proj.weight.copy_(axes.unsqueeze(-1))
        projected = residual = latents @ axes.T
        for i, codebook in enumerate(chain.codebooks):
            centres = k_means(residual, len(codebook), seed=i)
            codebook.copy_(centres)
            residual = (
                residual - centres[(residual @ centres.T - centres.square().sum(-1) / 2).argmax(-1)]
            )
        chain.refresh()
        left[name] = float(residual.square().sum() / projected.square().sum())
    return left


class Quantised(nn.Module):
    """An encoder with its quantiser, and heads that read the vectors that the codes stand for."""

    def __init__(self, encoder: Encoder, config: CodecConfig) -> None:
        """The codebooks become parameters here; `finish` puts them back."""
        super().__init__()
        self.encoder = encoder
        quantizer = encoder.mimi.quantizer
        self.codebooks = nn.ParameterList(
            nn.Parameter(chain.codebooks.clone())
            for chain in (quantizer.semantic, quantizer.acoustic)
        )
        self.words = nn.ModuleList(
            nn.Linear(2 * config.codebook_dim, 1 + len(VOCABULARY)) for _ in DELAYS
        )

    def decoded(self, chain: RVQ, codebooks: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [B, T, D'] of a chain's codes, and the loss between codebooks and latents."""
        projected = chain.input_proj(latents).float().transpose(1, 2)
        residual = projected
        loss = torch.zeros(())
        total = torch.zeros_like(projected)
        for codebook in codebooks:
            with torch.no_grad():
                code = (residual @ codebook.T - codebook.square().sum(-1) / 2).argmax(-1)
            chosen = codebook[code]
            loss = (
                loss
                + F.mse_loss(chosen, residual.detach())
                + 0.25 * F.mse_loss(residual, chosen.detach())
            )
            total = total + chosen
            residual = residual - chosen.detach()
        return projected + (total - projected).detach(), loss

    def read(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """latents [B, D, T] -> input of the heads [B, T, 2 D'], quantisation loss"""
        quantizer = self.encoder.mimi.quantizer
        pairs = [
            self.decoded(chain, codebooks, latents)
            for chain, codebooks in zip(
                (quantizer.semantic, quantizer.acoustic), self.codebooks, strict=True
            )
        ]
        read = torch.cat([pair[0] for pair in pairs], dim=-1)
        return F.layer_norm(read, read.shape[-1:]), pairs[0][1] + pairs[1][1]

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """latents [B, D, T] -> word logits [B, delays, T, 1 + words], quantisation loss"""
        read, drawn = self.read(latents)
        return torch.stack([head(read) for head in self.words], dim=1), drawn

    def word_logits(self, pcm: Tensor) -> Tensor:
        """[B, 1, S] -> [B, delays, T, 1 + words], read from codes"""
        with lowered():
            latents = self.encoder.trunk(self.encoder.front(pcm))[1]
        return self(latents.float())[0]

    @torch.no_grad()
    def finish(self) -> Encoder:
        """The encoder with the tuned codebooks."""
        quantizer = self.encoder.mimi.quantizer
        for chain, codebooks in zip(
            (quantizer.semantic, quantizer.acoustic), self.codebooks, strict=True
        ):
            chain.codebooks.copy_(codebooks)
            chain.refresh()
        return self.encoder


def quantised_loss(
    model: nn.Module, lesson: tuple[str, Any], *, detached: bool = False
) -> dict[str, Tensor]:
    """Loss of the words of frames, read from codes.

    The heads on unquantised latents are trained as well, so that the latents stay useful; so are
    the phones of sentences, if the batch is one of sentences.

    Args:
        model: a `Quantised`.
        lesson: kind and batch, from `Lessons`; or "features" and a batch with outputs of the
            convolutions in place of sound.
        detached: whether the phones train only their head (while it is untrained).
    """
    assert isinstance(model, Quantised)
    kind, batch = lesson
    heads = model.encoder.heads
    with lowered():
        x = roughened(batch[0]) if kind == "features" else model.encoder.front(batch[0])
        positions, latents = model.encoder.trunk(x)
        if kind == "phones":
            read = positions.detach() if detached else positions
            phones = ctc(heads.phone_logits(read), *batch[1:])
            drawn = model(latents.float())[1]
            return {"loss": 0.3 * phones + 0.5 * drawn, "phones": phones}
        plain, _ = word_loss(heads.word_logits(latents), batch[1])
    logits, drawn = model(latents.float())
    coded, right = word_loss(logits, batch[1])
    total = coded + 0.3 * plain + 0.5 * drawn + 0.02 * even_norm(latents)
    return {"loss": total, "coded": coded, "plain": plain, "drawn": drawn, "right": right}


@torch.no_grad()
def collect_latents(
    model: Encoder, batches: list[tuple[Tensor, Tensor]], *, most: int = 60_000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Latents [N, D] and word targets [N, delays] of batches, at most `most`, picked at random.

    Args:
        model: the encoder.
        batches: sound [B, 1, S] and targets [B, delays, T].
        most: N at most.
        seed: seed of the choice.
    """
    rows: list[Tensor] = []
    wanted: list[Tensor] = []
    for pcm, targets in batches:
        with lowered():
            latents = model.trunk(model.front(pcm))[1]
        rows.append(latents.float().transpose(1, 2).flatten(0, 1))
        wanted.append(targets.transpose(1, 2).flatten(0, 1))
    points, words = torch.cat(rows), torch.cat(wanted)
    picked = torch.from_numpy(np.random.default_rng(seed).permutation(len(points))[:most])
    return points[picked], words[picked]


def start_heads(model: Quantised, latents: Tensor, targets: Tensor, *, steps: int = 250) -> float:
    """Train the heads on codes and on latents alone; gives the last cross-entropy from codes.

    The first gradients of untrained heads would damage the encoder.

    Args:
        model: only its heads are trained.
        latents: [N, D].
        targets: int64 [N, delays].
        steps: number of steps, with 4,096 latents each.
    """
    plain = model.encoder.heads.words
    optimizer = torch.optim.Adam([*model.words.parameters(), *plain.parameters()], 1e-2)
    with torch.no_grad():
        read = model.read(latents.T.unsqueeze(0))[0].squeeze(0)
        normed = F.layer_norm(latents, latents.shape[-1:])
    loss = torch.zeros(())
    for _ in range(steps):
        rows = torch.randint(len(read), (4096,))
        wanted = targets[rows].flatten()
        loss, besides = (
            F.cross_entropy(
                torch.stack([head(given[rows]) for head in heads], dim=1).flatten(0, 1),
                wanted,
                label_smoothing=0.05,
            )
            for heads, given in ((model.words, read), (plain, normed))
        )
        optimizer.zero_grad()
        (loss + besides).backward()
        optimizer.step()
    return float(loss.detach())
