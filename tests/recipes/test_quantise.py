"""K-means, axes, and a quantiser that means the same to the codec as to the trainer."""

import torch

from recipes.demo.corpus import VOCABULARY
from recipes.demo.encoder import Encoder
from recipes.demo.quantise import (
    Quantised,
    collect_latents,
    k_means,
    principal_axes,
    quantised_loss,
    start_heads,
    start_quantiser,
)
from tests.recipes.test_quick import config


def test_k_means_finds_separate_clusters() -> None:
    torch.manual_seed(0)
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = middles.repeat_interleave(50, 0) + 0.1 * torch.randn(150, 2)
    centres = k_means(points, 3, rounds=30)
    assert torch.cdist(middles, centres).min(1).values.max() < 0.2


def test_principal_axes_are_orthonormal_and_in_order() -> None:
    torch.manual_seed(0)
    points = torch.randn(500, 3) * torch.tensor([1.0, 9.0, 3.0])
    axes = principal_axes(points, 2)
    assert torch.allclose(axes @ axes.T, torch.eye(2), atol=1e-5)
    assert axes[0].abs().argmax() == 1
    assert axes[1].abs().argmax() == 2


def make() -> tuple[Encoder, torch.Tensor]:
    torch.manual_seed(3)
    model = Encoder(config(), num_phones=5)
    words = torch.randint(0, 1 + len(VOCABULARY), (4, 2, 20))
    batches = [(0.1 * torch.randn(4, 1, 20 * 1920), words) for _ in range(4)]
    latents, targets = collect_latents(model, batches, most=300)
    assert targets.shape == (300, 2)
    return model, latents


def test_codebooks_explain_the_latents_they_come_from() -> None:
    model, latents = make()
    assert latents.shape == (300, 16)
    left = start_quantiser(model, latents)
    assert left["semantic"] < 0.9
    assert left["acoustic"] < left["semantic"]  # two codebooks against one
    axes = model.mimi.quantizer.acoustic.input_proj.weight.squeeze(-1)
    assert torch.allclose(axes @ axes.T, torch.eye(8), atol=1e-4)


def test_what_the_trainer_decodes_is_what_the_codes_say() -> None:
    model, latents = make()
    start_quantiser(model, latents)
    whole = Quantised(model, config())
    x = latents[:20].T.unsqueeze(0)
    for chain, codebooks in zip(
        (model.mimi.quantizer.semantic, model.mimi.quantizer.acoustic), whole.codebooks, strict=True
    ):
        decoded, _ = whole.decoded(chain, codebooks, x)
        codes = chain.encode(x)
        summed = sum(chain.codebooks[k][codes[:, k]] for k in range(codes.shape[1]))
        assert torch.allclose(decoded, summed, atol=1e-5)


def test_tuning_moves_codebooks_and_encoder_and_is_put_back() -> None:
    model, latents = make()
    start_quantiser(model, latents)
    whole = Quantised(model, config())
    pcm = 0.1 * torch.randn(2, 1, 12 * 1920)
    targets = torch.randint(0, 1 + len(VOCABULARY), (2, 2, 12))
    values = quantised_loss(whole, ("words", (pcm, targets)))
    values["loss"].backward()
    assert all(book.grad is not None and book.grad.abs().sum() > 0 for book in whole.codebooks)
    first = model.mimi.seanet.first.conv.weight.grad
    assert first is not None
    assert first.abs().sum() > 0  # straight through the quantiser, down to the samples
    with torch.no_grad():
        whole.codebooks[0].add_(1.0)
    tuned = whole.finish()
    assert torch.equal(tuned.mimi.quantizer.semantic.codebooks, whole.codebooks[0])
    half = tuned.mimi.quantizer.semantic.codebooks.square().sum(-1) / 2
    assert torch.allclose(tuned.mimi.quantizer.semantic.half_norms, half)


def test_phones_are_a_lesson_here_too_and_may_leave_the_encoder_alone() -> None:
    model, latents = make()
    start_quantiser(model, latents)
    whole = Quantised(model, config())
    batch = (
        0.1 * torch.randn(2, 1, 1920 * 12),
        torch.tensor([1, 2, 3, 1]),
        torch.tensor([24, 20]),
        torch.tensor([3, 1]),
    )
    moved = []
    for detached in (True, False):
        whole.zero_grad(set_to_none=True)
        quantised_loss(whole, ("phones", batch), detached=detached)["loss"].backward()
        assert model.heads.phones.weight.grad is not None
        grad = model.mimi.transformer.layers[0].attention.in_proj.weight.grad
        assert grad is not None
        moved.append(grad.clone())
    assert not torch.allclose(*moved)


def test_heads_that_know_nothing_learn_to_read_codes_first() -> None:
    model, latents = make()
    start_quantiser(model, latents)
    model.requires_grad_(False)
    whole = Quantised(model, config())
    model.heads.requires_grad_(True)
    before = {name: value.clone() for name, value in model.mimi.state_dict().items()}
    # The word of a frame is the side of a plane on which its latent lies: codes tell that.
    targets = (latents[:, :1] > 0).long().expand(-1, 2).contiguous()
    left = start_heads(whole, latents, targets, steps=150)
    assert left < 1.2  # of 3.1 for heads that guess
    plain = torch.stack(
        [
            head(torch.nn.functional.layer_norm(latents, latents.shape[-1:]))
            for head in model.heads.words
        ],
        dim=1,
    )
    assert (plain.argmax(-1) == targets).float().mean() > 0.8
    assert all(torch.equal(before[name], value) for name, value in model.mimi.state_dict().items())
