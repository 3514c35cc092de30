"""Spectra, lessons and losses of the encoder."""

from functools import partial

import numpy as np
import pytest
import torch

from recipes.demo.corpus import VOCABULARY
from recipes.demo.encoder import (
    Encoder,
    Lessons,
    encoder_loss,
    even_norm,
    frame_errors,
    front_loss,
    hide_stripes,
    spoken_words,
    word_loss,
)
from recipes.demo.features import LogMel, mel_filters
from recipes.demo.initial_weights import he_init
from tests.recipes.test_quick import config


def model() -> Encoder:
    torch.manual_seed(0)
    return Encoder(config(), num_phones=5)


def test_spectra_see_no_future() -> None:
    mel = LogMel()
    pcm = 0.1 * torch.randn(1, 1, 960 * 8)
    later = pcm.clone()
    later[..., 960 * 5 :] = 0.3
    assert mel(pcm).shape == (1, 8, 256)
    assert torch.equal(mel(pcm)[:, :5], mel(later)[:, :5])
    assert not torch.allclose(mel(pcm)[:, 5], mel(later)[:, 5])


def test_a_tone_lights_its_own_mel() -> None:
    mel = LogMel()
    time = torch.arange(24_000) / 24_000
    tops = [
        int(mel(torch.sin(6.2832 * f * time)[None, None])[0, 10, :64].argmax())
        for f in (300, 1000, 4000)
    ]
    assert tops == sorted(set(tops))
    assert mel_filters()[:, tops[1]].argmax() * 24_000 / 768 == pytest.approx(1000, abs=120)


def test_the_start_keeps_the_signal_alive() -> None:
    encoder = model()
    he_init(encoder.mimi.seanet)
    with torch.no_grad():
        encoder.mimi.seanet.first.conv.weight.mul_(6.0)
        out = encoder.front(0.1 * torch.randn(2, 1, 1920 * 6))
    assert 0.1 < float(out.std()) < 30


def test_stripes_hide_and_leave_the_rest() -> None:
    torch.manual_seed(1)
    spectra = torch.randn(4, 30, 256)
    hidden = hide_stripes(spectra)
    same = (hidden == spectra).float().mean()
    assert 0.5 < same < 1.0


def test_every_so_often_phones_are_the_lesson() -> None:
    lessons = Lessons(lambda step: f"strings {step}", lambda step: f"sentences {step}", 3)
    assert [lessons(step)[0] for step in range(6)] == ["words", "words", "phones"] * 2
    assert lessons(2)[1] == "sentences 2"


def test_word_loss_counts_word_frames_at_the_last_delay() -> None:
    targets = torch.tensor([[[0, 2, 2, 0], [0, 0, 2, 2]]])
    logits = torch.nn.functional.one_hot(targets, 1 + len(VOCABULARY)).float() * 20
    loss, right = word_loss(logits, targets)
    assert float(right) == 1.0
    logits[0, 1, 3] = 0
    worse, right = word_loss(logits, targets)
    assert float(right) == 0.5
    assert worse > loss


def test_normed_latents_cost_nothing() -> None:
    latents = torch.randn(2, 16, 5)
    normed = torch.nn.functional.layer_norm(latents.transpose(1, 2), (16,)).transpose(1, 2)
    assert float(even_norm(normed)) < 1e-6
    assert float(even_norm(3 * normed)) > 1


@pytest.mark.parametrize("spectra", [True, False])
def test_gradients_reach_what_each_stage_trains(spectra: bool) -> None:
    encoder = model()
    pcm = 0.1 * torch.randn(2, 1, 1920 * 12)
    targets = torch.randint(0, 22, (2, 2, 12))
    values = encoder_loss(encoder, ("words", (pcm, targets)), spectra=spectra)
    values["loss"].backward()
    seanet = encoder.mimi.seanet.first.conv.weight.grad
    assert (seanet is None) == spectra
    assert encoder.mimi.transformer.layers[0].attention.in_proj.weight.grad is not None
    assert (encoder.from_mel.wide.weight.grad is not None) == spectra


def test_phones_are_a_lesson_too() -> None:
    encoder = model()
    batch = (
        0.1 * torch.randn(2, 1, 1920 * 12),
        torch.tensor([1, 2, 3, 1]),
        torch.tensor([24, 20]),
        torch.tensor([3, 1]),
    )
    values = encoder_loss(encoder, ("phones", batch), spectra=True)
    values["loss"].backward()
    assert float(values["phones"].detach()) > 0
    assert encoder.heads.phones.weight.grad is not None


def test_seanet_can_learn_what_spectra_give() -> None:
    encoder = model()
    lesson = ("words", (0.1 * torch.randn(4, 1, 1920 * 6), None))
    optimizer = torch.optim.Adam(encoder.mimi.seanet.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        value = front_loss(encoder, lesson)["loss"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_runs_of_frames_are_words() -> None:
    frames = [0, 3, 3, 3, 0, 5, 0, 3, 3, 7, 7, 7]
    logits = np.eye(22)[frames]
    assert spoken_words(logits) == [2, 2, 6]  # one frame of 5 is no word


def test_frame_errors_of_a_model_that_says_nothing() -> None:
    from recipes.demo.bank import WordSpan

    encoder = model()
    with torch.no_grad():
        for head in encoder.heads.words:
            head.bias[0] = 1e4
    tests = [(np.zeros(24_000, np.float32), [WordSpan(0, 0, 1), WordSpan(1, 1, 2)])]
    assert frame_errors(encoder.word_logits, tests) == 1.0
    assert frame_errors(partial(encoder.word_logits, spectra=True), tests) == 1.0
