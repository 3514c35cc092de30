"""The recipe of the demo model: stages in order, each left out where its result is there."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kiku.checkpoint.saving import as_stored, save_native
from kiku.train import align, corpus, cuts, decoder, quantise, speak, voices
from kiku.train.bank import Bank, single_words, whole_words
from kiku.train.curve import draw_curve
from kiku.train.encoder import (
    DELAYS,
    Encoder,
    Lessons,
    encoder_loss,
    frame_errors,
    front_loss,
)
from kiku.train.fit import Fit, Loss, Plan, batches, keep_memory
from kiku.train.mix import Mixer, Recipe, StringBatches
from kiku.train.score import Test, person_strings
from kiku.train.shapes import DELAY_S, demo_codec, demo_model
from kiku.train.sound import Surroundings
from kiku.train.spelling import Spelling

SENTENCE_GROUPS = ("en-an4", "en-l2", "en-read", "en-story", "en-prompts")
_SENTENCES = "text/sentences.en.txt.gz"
_LONG_FRAMES = 300
_NEVER = 1 << 30

Check = Callable[[Any], dict[str, float]]
"""Measures a model now and then; what it gives goes to the log."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """Seconds of training of each stage, and hours of sound whose codes the decoder gets."""

    align: float = 300
    trunk: float = 900
    front: float = 300
    joint: float = 1600
    tuned: float = 660
    cache_h: float = 18
    decoder: float = 1000

    def scaled(self, factor: float) -> "Budgets":
        """All of them times `factor`."""
        return Budgets(**{f.name: getattr(self, f.name) * factor for f in fields(self)})


class DemoRecipe:
    """From recordings to a model that writes the words of `VOCABULARY`.

    Every stage reads what the ones before left in `folder`.
    """

    def __init__(self, data: Path, folder: Path, budgets: Budgets | None = None) -> None:
        """`data` is the folder of recordings, `folder` the one for results and caches."""
        self.data, self.folder, self.budgets = data, folder, budgets or Budgets()
        keep_memory()
        folder.mkdir(parents=True, exist_ok=True)
        self.corpus = corpus.build(data, folder / "corpus")
        everything = [r for split in ("train", "dev") for r in self.corpus.select(split)]
        self.phones = align.Phones.of(everything, folder / "phones.json")
        self.config = demo_codec()

    def bank(self, name: str, make: Callable[[], Bank]) -> Bank:
        """A bank, made once."""
        if not (self.folder / name / "snippets.jsonl").exists():
            make().save(self.folder / name)
        return Bank.load(self.folder / name)

    def aligner(self) -> align.Aligner:
        """The network that finds words in sentences, trained if need be."""
        source = align.SentenceBatches(
            self.corpus, self.corpus.select("train", *SENTENCE_GROUPS), self.phones
        )
        plan = Plan("align", 100_000, self.budgets.align, 3e-3, warmup_steps=50, average=0.99)
        return align.fit_aligner(source, self.folder / "align", plan).eval()

    def sentences(self) -> list[str]:
        """Written sentences, for what synthetic voices say besides the vocabulary."""
        with gzip.open(self.data / _SENTENCES, "rt") as lines:
            return lines.read().splitlines()

    def training_bank(self) -> Bank:
        """All snippets to train on."""
        train = self.corpus.select("train")
        sentences = [r for r in train if r.group in SENTENCE_GROUPS]
        french = self.corpus.select("train", language="fr")
        whole = self.bank("real_train", lambda: single_words(self.corpus, train))
        for name, make in {
            "voices": lambda: speak.synthetic(voices.VARIANTS, self.sentences()),
            "whole_train": lambda: whole_words(self.corpus, train),
            "other_words": lambda: cuts.other_words(
                self.corpus, sentences, self.aligner(), self.phones
            ),
            "cut_train": lambda: cuts.cut_words(
                self.corpus, sentences, self.aligner(), self.phones
            ),
            "other": lambda: cuts.other_speech(self.corpus, sentences).joined(
                cuts.other_speech(self.corpus, french, most_s=1800)
            ),
        }.items():
            whole = whole.joined(self.bank(name, make))
        return whole

    def tests(self) -> dict[str, list[Test]]:
        """Strings of people and of synthetic voices that no training hears."""
        people = self.bank("real_dev", lambda: single_words(self.corpus, self.corpus.select("dev")))
        dev = [r for r in self.corpus.select("dev") if r.group in SENTENCE_GROUPS]
        found = self.bank(
            "cut_dev", lambda: cuts.cut_words(self.corpus, dev, self.aligner(), self.phones)
        )
        spoken = self.bank(
            "voices_test",
            lambda: speak.synthetic(
                voices.HELD_OUT_VARIANTS, self.sentences(), rounds=1, seed=7, flite_voices=()
            ),
        )
        digits = [
            (0.3 * found.audio(s), list(s.places))
            for s in found.snippets
            if s.speaker.startswith("an4") and len(s.places) >= 3
        ]
        return {
            "dev": person_strings(people, count=80, seed=11),
            "syn": person_strings(spoken, count=30, seed=12),
            "an4": digits,
        }

    def mixer(self, recipe: Recipe | None = None) -> Mixer:
        """Makes strings of the training bank."""
        return Mixer(self.training_bank(), Surroundings.load(self.data / "noise"), recipe)

    def _check(self, tests: dict[str, list[Test]], *, spectra: bool) -> Check:
        def check(model: Any) -> dict[str, float]:
            return {
                name: frame_errors(model, test, spectra=spectra) for name, test in tests.items()
            }

        return check

    def encoder(self) -> Encoder:
        """The encoder without quantiser: trunk on spectra, SEANet after the spectra, then both."""
        torch.manual_seed(0)
        mixer, tests = self.mixer(), self.tests()
        model = Encoder(self.config, len(self.phones.symbols))
        for stage in (self._trunk, self._front, self._joint):
            model = stage(model, mixer, tests)
        return model

    def _sentences_for_phones(self) -> align.SentenceBatches:
        return align.SentenceBatches(
            self.corpus,
            self.corpus.select("train", *SENTENCE_GROUPS[:-1]),
            self.phones,
            seconds=100,
            longest_s=8,
        )

    def _trunk(self, model: Encoder, mixer: Mixer, tests: dict[str, list[Test]]) -> Encoder:
        """Everything behind SEANet, on spectra."""
        model.requires_grad_(True).mimi.seanet.requires_grad_(False)
        strings = StringBatches(mixer, size=24, seconds=4.0, delays=DELAYS, seed=0)
        plan = Plan(
            "trunk", 100_000, self.budgets.trunk, 1.5e-3, 150, weight_decay=0.05, average=0.998
        )
        return self._fit(
            plan,
            model,
            Lessons(strings, self._sentences_for_phones(), 5),
            lambda m, b, _: encoder_loss(m, b, spectra=True),
            self._check(tests, spectra=True),
        )

    def _front(self, model: Encoder, mixer: Mixer, tests: dict[str, list[Test]]) -> Encoder:
        """SEANet alone learns to give what the trunk was given."""
        model.requires_grad_(False).mimi.seanet.requires_grad_(True)
        strings = StringBatches(mixer, size=24, seconds=3.2, delays=DELAYS, seed=1)
        plan = Plan("front", 100_000, self.budgets.front, 2e-3, 50, weight_decay=0.0, average=0.99)
        return self._fit(
            plan,
            model,
            Lessons(strings, strings, _NEVER),
            lambda m, b, _: front_loss(m, b),
            self._check(tests, spectra=False),
        )

    def _joint(self, model: Encoder, mixer: Mixer, tests: dict[str, list[Test]]) -> Encoder:
        """Both together; the spectra let go of SEANet by and by."""
        model.requires_grad_(True).from_mel.requires_grad_(False)
        strings = StringBatches(mixer, size=24, seconds=3.2, delays=DELAYS, seed=2)
        plan = Plan(
            "joint", 100_000, self.budgets.joint, 8e-4, 50, weight_decay=0.03, average=0.998
        )
        return self._fit(
            plan,
            model,
            Lessons(strings, self._sentences_for_phones(), 8),
            lambda m, b, done: encoder_loss(m, b, spectra=False, mel_weight=max(0.0, 0.5 - done)),
            self._check(tests, spectra=False),
        )

    def _fit(
        self, plan: Plan, model: Encoder, lessons: Lessons, loss: Loss, check: Check
    ) -> Encoder:
        fitted = Fit(plan, model, self.folder / "runs").run(lessons, loss, check, 240)
        assert isinstance(fitted, Encoder)
        return fitted

    def quantised(self) -> Encoder:
        """The encoder with its quantiser, its weights rounded to the bfloat16 in which they are
        shipped.
        """
        path = self.folder / "quantised.pt"
        model = self.encoder()
        if not path.exists():
            torch.manual_seed(1)
            mixer = self.mixer()
            strings = StringBatches(mixer, size=24, seconds=3.2, delays=DELAYS, seed=3)
            model.requires_grad_(False)
            latents, targets = quantise.collect_latents(
                model, [strings(1_000_000 + step) for step in range(60)]
            )
            latents = quantise.bring_to_unit_size(model, latents)
            left = quantise.start_quantiser(model, latents)
            whole = quantise.Quantised(model, self.config)
            left["heads"] = quantise.start_heads(whole, latents, targets)
            whole.encoder.mimi.requires_grad_(True)
            whole.encoder.heads.requires_grad_(True)
            plan = Plan("tuned", 100_000, self.budgets.tuned, 3e-4, 50, average=0.997)
            fit = Fit(plan, whole, self.folder / "runs")
            fit.log({f"left_{name}": value for name, value in left.items()})
            tuned = fit.run(
                Lessons(strings, strings, _NEVER), lambda m, b, _: quantise.quantised_loss(m, b)
            )
            assert isinstance(tuned, quantise.Quantised)
            torch.save(tuned.finish().state_dict(), path)
        state = torch.load(path, weights_only=True)
        model.load_state_dict({k: v.bfloat16().float() for k, v in state.items()})
        model.mimi.quantizer.semantic.refresh()
        model.mimi.quantizer.acoustic.refresh()
        return model.eval().requires_grad_(False)

    def spelling(self) -> Spelling:
        """The vocabulary's pieces."""
        return Spelling.made(self.folder / "tokenizer.model")

    def cache(self) -> decoder.CodeCache:
        """Codes of hours of strings, with what is to be written about them."""
        path = self.folder / "codes.npz"
        if not path.exists():
            model = self.quantised()
            mixer = self.mixer(Recipe(long_pauses=0.08, empty=0.12))
            make = decoder.LongStrings(
                mixer,
                self.spelling().pieces,
                size=8,
                num_frames=_LONG_FRAMES,
                delay_s=DELAY_S,
                seed=4,
            )
            steps = int(self.budgets.cache_h * 3600 / (8 * _LONG_FRAMES / 12.5))
            rows = [
                (decoder.encode(model, pcm), text, pauses, hints)
                for pcm, text, pauses, hints in batches(make, 0, steps, 1)
            ]
            parts = [np.concatenate([row[i] for row in rows]) for i in range(4)]
            decoder.CodeCache(*parts).save(path)
        return decoder.CodeCache.load(path)

    def decoder(self) -> decoder.Decoder:
        """The decoder, trained on the cached codes."""
        torch.manual_seed(2)
        config = demo_model(self.spelling().size).lm
        source = decoder.CachedColumns(self.cache(), size=12, num_frames=_LONG_FRAMES)
        plan = Plan(
            "decoder", 100_000, self.budgets.decoder, 2e-3, 100, weight_decay=0.05, average=0.998
        )
        model = Fit(plan, decoder.Decoder(config), self.folder / "runs").run(
            source, lambda m, b, done: decoder.decoder_loss(m, b, progress=done)
        )
        assert isinstance(model, decoder.Decoder)
        return model

    def export(self, target: Path) -> None:
        """Write the model in Kyutai's layout, in bfloat16, and the figures of its training."""
        spelling = self.spelling()
        model = demo_model(spelling.size)
        save_native(
            target,
            model,
            lm=as_stored(self.decoder().lm.state_dict(), torch.bfloat16),
            codec=as_stored(self.quantised().mimi.state_dict(), torch.bfloat16),
            vocabulary=self.folder / "tokenizer.model",
        )


def make_demo(data: Path, folder: Path, target: Path, budgets: Budgets | None = None) -> None:
    """Everything, from the recordings to the shipped files."""
    recipe = DemoRecipe(data, folder, budgets)
    recipe.export(target)
    log = folder / "runs" / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    draw_curve(rows, folder / "learning_curve.png")
