"""What the convolutions gave, kept: the same features, and words where they are."""

import numpy as np
import torch

from recipes.demo.bank import WordSpan
from recipes.demo.columns import UNKNOWN
from recipes.demo.conv_features import ConvFeatureBatches, ConvFeatures, delayed, roughened
from recipes.demo.decoder import HINT_DELAY
from recipes.demo.encoder import Encoder
from recipes.demo.mix import frame_targets
from recipes.demo.precision import lowered
from recipes.demo.quantise import Quantised, quantised_loss
from tests.recipes.test_quick import config

FRAMES = 24
SPANS = ([WordSpan(3, 0.3, 0.7), WordSpan(5, 1.2, 1.5)], [WordSpan(8, 0.0, 0.2)], [])


def model() -> Encoder:
    torch.manual_seed(0)
    return Encoder(config(), num_phones=5)


def batch() -> tuple[torch.Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """Sound, text, pauses and words of frames, as `LongStrings` gives them."""
    torch.manual_seed(1)
    hints = np.stack([frame_targets(p, FRAMES, HINT_DELAY).numpy() for p in SPANS])
    return (
        0.1 * torch.randn(len(SPANS), 1, FRAMES * 1920),
        np.full((len(SPANS), FRAMES), 3, np.int16),
        np.zeros((len(SPANS), FRAMES, 4), np.int16),
        hints.astype(np.int16),
    )


def test_features_come_back_as_they_were(tmp_path) -> None:
    encoder, strings = model(), batch()
    ConvFeatures.compute(encoder, [strings, strings]).save(tmp_path / "0")
    again = ConvFeatures.load(tmp_path / "0")
    with torch.no_grad(), lowered():  # as they were computed
        wanted = encoder.front(strings[0]).float()
    assert again.features.shape == (6, 2 * FRAMES, wanted.shape[-1])
    assert torch.allclose(
        torch.from_numpy(again.features[3:].astype(np.float32)), wanted, atol=5e-3
    )
    assert np.array_equal(again.hints[:3], strings[3])
    assert again.text.shape == (6, FRAMES)
    assert again.pauses.shape == (6, FRAMES, 4)


def test_words_can_be_told_at_another_delay() -> None:
    hints = frame_targets(SPANS[0], FRAMES, HINT_DELAY).numpy()
    for delay in (4, 7):
        wanted = frame_targets(SPANS[0], FRAMES, delay).numpy()
        given = delayed(hints, delay)
        known = given != UNKNOWN
        assert np.array_equal(given[known], wanted[known])
        assert (~known).sum() == max(0, HINT_DELAY - delay)


def test_stretches_carry_the_words_of_their_frames() -> None:
    shard = ConvFeatures.compute(model(), [batch()])
    make = ConvFeatureBatches([shard, shard], size=16, seconds=1.0, delays=(4, 7), seed=2)
    features, targets = make(3)
    assert features.shape[:2] == (16, 24)
    assert targets.shape == (16, 2, 12)
    again = make(3)
    assert torch.equal(features, again[0])
    assert torch.equal(targets, again[1])
    whole = np.stack([delayed(shard.hints, d) for d in (4, 7)], axis=1)
    cut = 0
    for part, words in zip(features.numpy(), targets.numpy(), strict=True):
        ((row, first),) = [
            (r, f)
            for r in range(3)
            for f in range(13)
            if np.array_equal(shard.features[r, 2 * f : 2 * f + 24].astype(np.float32), part)
        ]
        blind = 6 if first else 0
        cut += blind > 0
        assert np.array_equal(words[:, blind:], whole[row, :, first + blind : first + 12])
        assert (words[:, :blind] == UNKNOWN).all()
    assert 0 < cut < 16


def test_features_are_roughened_a_little() -> None:
    torch.manual_seed(0)
    features = torch.randn(4, 50, 8)
    rough = roughened(features, noise=0.0)
    assert torch.equal(rough, roughened(features, noise=0.0)) is False
    same = (rough == features).all(-1)
    assert 0.8 < same.float().mean() < 1.0
    assert (roughened(features) - features).std() > 0.05


def test_the_encoder_learns_from_features_as_from_sound() -> None:
    encoder = model()
    whole = Quantised(encoder, config())
    whole.encoder.mimi.seanet.requires_grad_(False)
    make = ConvFeatureBatches(
        [ConvFeatures.compute(encoder, [batch()])], size=4, seconds=1.0, delays=(4, 7), seed=2
    )
    values = quantised_loss(whole, ("features", make(0)))
    values["loss"].backward()
    assert encoder.mimi.transformer.layers[0].attention.in_proj.weight.grad is not None
    assert encoder.mimi.seanet.first.conv.weight.grad is None
    assert set(values) == {"loss", "coded", "plain", "drawn", "right"}
