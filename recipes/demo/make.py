"""The recipe of the demo model: stages in order; a stage whose result exists is skipped."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kiku.checkpoint.loading import load
from kiku.checkpoint.saving import as_stored, save_native
from kiku.codec import MimiEncoder
from recipes.demo import align, corpus, cuts, decoder, quantise, speak, voices
from recipes.demo.bank import Bank, joined, single_words, whole_words
from recipes.demo.conv_features import ConvFeatureBatches, ConvFeatures
from recipes.demo.curve import draw_curve
from recipes.demo.encoder import (
    DELAYS,
    Encoder,
    Lessons,
    encoder_loss,
    frame_errors,
    front_loss,
)
from recipes.demo.fit import Fit, Loss, Plan, batches, keep_memory
from recipes.demo.mean import mean_state
from recipes.demo.mix import Mixer, Recipe, StringBatches
from recipes.demo.report import clip_strings
from recipes.demo.score import Test, person_strings
from recipes.demo.shapes import DELAY_S, demo_codec, demo_model
from recipes.demo.sound import Surroundings
from recipes.demo.spelling import Spelling

SENTENCE_GROUPS = ("en-an4", "en-l2", "en-read", "en-story", "en-prompts")
_SENTENCES = "text/sentences.en.txt.gz"
_LONG_FRAMES = 200
_SHARD = 50
"""Batches of strings in one `ConvFeatures` shard."""
_NOISES = (0.0, 0.15, 0.3)
_LATENT_BATCHES = 40
_NEVER = 1 << 30
_SEEDS = 1000
"""Distance between the seeds of two runs: each stage of a run adds its own number."""

KEPT = 0.5
"""Share of the start model's weights in the weights that are written."""

Check = Callable[[Any], dict[str, float]]
"""Measures a model now and then; its values go to the log."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """Seconds of training of each stage, and hours of strings for the last two stages."""

    align: float = 430
    trunk: float = 900
    front: float = 300
    joint: float = 1600
    tuned: float = 780
    features_h: float = 21
    settled: float = 1100
    decoder: float = 720

    def scaled(self, factor: float) -> "Budgets":
        """All of them times `factor`."""
        return Budgets(**{f.name: getattr(self, f.name) * factor for f in fields(self)})


class DemoRecipe:
    """Makes a model that writes the words of `VOCABULARY` from recordings.

    Every stage reads the results of earlier stages from `folder`.
    """

    def __init__(
        self,
        data: Path,
        folder: Path,
        budgets: Budgets | None = None,
        start: str | Path | None = None,
        seed: int = 0,
        kept: float = KEPT,
    ) -> None:
        """`data` is the folder of recordings, `folder` the one for results and caches.

        `start`, a model of the same shape, replaces the stages before the tuning. Its quantiser and
        its decoder are trained on as well, and the written weights are a mean with a share of
        `kept` (0 to 1) of its weights (see `mean`). Another `seed` draws other strings, and other
        accents, speeds and pitches for the synthetic voices.
        """
        self.seed, self.kept = _SEEDS * seed, kept
        self.data, self.folder, self.budgets = data, folder, budgets or Budgets()
        self.start = None if start is None else load(start)
        keep_memory()
        folder.mkdir(parents=True, exist_ok=True)
        self.corpus = corpus.build(data, folder / "corpus")
        everything = [r for split in ("train", "dev") for r in self.corpus.select(split)]
        self.phones = align.Phones.of(everything, folder / "phones.json")
        self.config = demo_codec()

    def bank(self, name: str, make: Callable[[], Bank]) -> Bank:
        """The bank `name`, made once."""
        if not (self.folder / name / "snippets.jsonl").exists():
            make().save(self.folder / name)
        return Bank.load(self.folder / name)

    def aligner(self) -> align.Aligner:
        """The network that finds words in sentences, trained if needed."""
        source = align.SentenceBatches(
            self.corpus, self.corpus.select("train", *SENTENCE_GROUPS), self.phones
        )
        plan = Plan("align", 100_000, self.budgets.align, 3e-3, warmup_steps=50, average=0.99)
        return align.fit_aligner(source, self.folder / "align", plan).eval()

    def sentences(self) -> list[str]:
        """Written sentences, from which synthetic voices speak words outside the vocabulary."""
        with gzip.open(self.data / _SENTENCES, "rt") as lines:
            return lines.read().splitlines()

    def training_bank(self) -> Bank:
        """All snippets to train on."""
        train = self.corpus.select("train")
        sentences = [r for r in train if r.group in SENTENCE_GROUPS]
        french = self.corpus.select("train", language="fr")
        makers: dict[str, Callable[[], Bank]] = {
            "real_train": lambda: single_words(self.corpus, train),
            "voices": lambda: speak.synthetic(
                voices.VARIANTS, self.sentences(), rounds=3, seed=self.seed, style=speak.WIDE
            ),
            "usual": lambda: speak.usual(self.sentences(), seed=self.seed),
            "whole_train": lambda: whole_words(self.corpus, train),
            "other_words": lambda: cuts.other_words(
                self.corpus, sentences, self.aligner(), self.phones
            ),
            "cut_train": lambda: cuts.cut_words(
                self.corpus, sentences, self.aligner(), self.phones
            ),
            "other": lambda: cuts.other_speech(self.corpus, sentences),
            "french": lambda: cuts.other_speech(self.corpus, french, most_s=1800),
        }
        return joined([self.bank(name, make) for name, make in makers.items()])

    def tests(self) -> dict[str, list[Test]]:
        """Strings of people and of synthetic voices that are not in the training data."""
        people = self.bank("real_dev", lambda: single_words(self.corpus, self.corpus.select("dev")))
        dev = [r for r in self.corpus.select("dev") if r.group in SENTENCE_GROUPS]
        found = self.bank(
            "cut_dev", lambda: cuts.cut_words(self.corpus, dev, self.aligner(), self.phones)
        )
        spoken = self.bank(
            "voices_test",
            lambda: speak.synthetic(voices.HELD_OUT_VARIANTS, self.sentences(), rounds=1, seed=7),
        )
        digits = [
            (0.3 * found.audio(s), list(s.spans))
            for s in found.snippets
            if s.speaker.startswith("an4") and len(s.spans) >= 3
        ]
        return {
            "dev": person_strings(people, count=80, seed=11),
            "clips": clip_strings(self.corpus, count=40, seed=13),
            "syn": person_strings(spoken, count=30, seed=12),
            "an4": digits,
        }

    def mixer(self, recipe: Recipe | None = None) -> Mixer:
        """Makes strings of the training bank."""
        return Mixer(self.training_bank(), Surroundings.load(self.data / "noise"), recipe)

    def _check(self, tests: dict[str, list[Test]], **how: bool) -> Check:
        def check(model: Any) -> dict[str, float]:
            logits_of = partial(model.word_logits, **how)
            return {name: frame_errors(logits_of, test) for name, test in tests.items()}

        return check

    def encoder(self) -> Encoder:
        """The encoder without quantiser: train the trunk on spectra, SEANet on these, then both."""
        torch.manual_seed(self.seed)
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
        """Train everything after SEANet, on spectra."""
        model.requires_grad_(True).mimi.seanet.requires_grad_(False)
        strings = StringBatches(mixer, size=24, seconds=4.0, delays=DELAYS, seed=self.seed)
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
        """Train SEANet alone to reproduce the trunk's input."""
        model.requires_grad_(False).mimi.seanet.requires_grad_(True)
        strings = StringBatches(mixer, size=24, seconds=3.2, delays=DELAYS, seed=self.seed + 1)
        plan = Plan("front", 100_000, self.budgets.front, 2e-3, 50, weight_decay=0.0, average=0.99)
        return self._fit(
            plan,
            model,
            Lessons(strings, strings, _NEVER),
            lambda m, b, _: front_loss(m, b),
            self._check(tests, spectra=False),
        )

    def _joint(self, model: Encoder, mixer: Mixer, tests: dict[str, list[Test]]) -> Encoder:
        """Train both together; the weight of the distance from spectra falls to zero."""
        model.requires_grad_(True).from_mel.requires_grad_(False)
        strings = StringBatches(mixer, size=24, seconds=3.2, delays=DELAYS, seed=self.seed + 2)
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

    def tuned(self) -> quantise.Quantised:
        """The encoder and its quantiser, tuned together."""
        torch.manual_seed(self.seed + 1)
        model = self.encoder() if self.start is None else self._started(self.start.codec)
        strings = StringBatches(
            self.mixer(), size=8, seconds=6.4, delays=DELAYS, seed=self.seed + 3
        )
        model.requires_grad_(False)
        plan = Plan(
            "tuned", 100_000, self.budgets.tuned, 4e-4, 60, weight_decay=0.02, average=0.998
        )
        left: dict[str, float] = {}
        if not Fit.begun(plan, self.folder / "runs"):
            latents, targets = quantise.collect_latents(
                model, [strings(1_000_000 + step) for step in range(_LATENT_BATCHES)]
            )
            if self.start is None:
                latents = quantise.bring_to_unit_size(model, latents)
                left = quantise.start_quantiser(model, latents)
            whole = quantise.Quantised(model, self.config)
            whole.encoder.heads.requires_grad_(True)
            left["heads"] = quantise.start_heads(whole, latents, targets)
        else:
            whole = quantise.Quantised(model, self.config)
            whole.encoder.heads.requires_grad_(True)
        whole.encoder.mimi.requires_grad_(True)
        fit = Fit(plan, whole, self.folder / "runs")
        if left:
            fit.log({f"left_{name}": value for name, value in left.items()})
        tuned = fit.run(
            Lessons(strings, self._sentences_for_phones(), 8),
            lambda m, b, done: quantise.quantised_loss(m, b, detached=done < 0.05),
            self._check(self.tests()),
            240,
        )
        assert isinstance(tuned, quantise.Quantised)
        return tuned

    def conv_features(self) -> list[ConvFeatures]:
        """Outputs of the tuned convolutions for hours of strings."""
        shards = max(1, round(self.budgets.features_h * 3600 / (_SHARD * 8 * _LONG_FRAMES / 12.5)))
        folders = [self.folder / "heard" / str(shard) for shard in range(shards)]
        missing = [shard for shard, folder in enumerate(folders) if not folder.exists()]
        if missing:
            model = self.tuned().encoder
            make = decoder.LongStrings(
                self.mixer(Recipe(long_pauses=0.08, empty=0.12)),
                self.spelling().pieces,
                size=8,
                num_frames=_LONG_FRAMES,
                delay_s=DELAY_S,
                seed=self.seed + 4,
            )
            made = batches(make, _SHARD * missing[0], _SHARD * (shards - missing[0]), 1)
            for folder in folders[missing[0] :]:
                ConvFeatures.compute(model, islice(made, _SHARD)).save(folder)
        return [ConvFeatures.load(folder) for folder in folders]

    def quantised(self) -> Encoder:
        """The encoder with its quantiser, everything after its convolutions trained further.

        Its weights are rounded to bfloat16, in which they are shipped.
        """
        whole = self.tuned()
        strings = ConvFeatureBatches(
            self.conv_features(), size=12, seconds=6.4, delays=DELAYS, seed=self.seed + 6
        )
        whole.requires_grad_(True).encoder.mimi.seanet.requires_grad_(False)
        plan = Plan(
            "settled", 100_000, self.budgets.settled, 5e-4, 60, weight_decay=0.03, average=0.998
        )
        settled = Fit(plan, whole, self.folder / "runs").run(
            Lessons(strings, self._sentences_for_phones(), 8, "features"),
            lambda m, b, _: quantise.quantised_loss(m, b),
            self._check(self.tests()),
            240,
        )
        assert isinstance(settled, quantise.Quantised)
        model = settled.finish()
        state = model.state_dict()
        model.load_state_dict({k: v.bfloat16().float() for k, v in state.items()})
        model.mimi.quantizer.semantic.refresh()
        model.mimi.quantizer.acoustic.refresh()
        return model.eval().requires_grad_(False)

    def _started(self, codec: MimiEncoder) -> Encoder:
        """The encoder of an earlier model, with untrained heads."""
        torch.manual_seed(self.seed)
        model = Encoder(self.config, len(self.phones.symbols))
        model.mimi.load_state_dict(codec.state_dict())
        return model

    def spelling(self) -> Spelling:
        """The vocabulary's pieces."""
        return Spelling.made(self.folder / "tokenizer.model")

    def cache(self) -> decoder.CodeCache:
        """Codes of all strings of `conv_features`, with the decoder's targets."""
        path = self.folder / "codes.npz"
        if not path.exists():
            torch.manual_seed(self.seed + 3)
            model = self.quantised()
            rows: list[tuple[np.ndarray, ...]] = []
            for shard in self.conv_features():
                for first in range(0, len(shard.text), 8):
                    part = slice(first, first + 8)
                    features = torch.from_numpy(shard.features[part].astype(np.float32))
                    wanted = (
                        np.concatenate([whole[part]] * len(_NOISES))
                        for whole in (shard.text, shard.pauses, shard.hints)
                    )
                    rows.append((decoder.encode(model, features, _NOISES), *wanted))
            parts = [np.concatenate([row[i] for row in rows]) for i in range(4)]
            decoder.CodeCache(*parts).save(path)
        return decoder.CodeCache.load(path)

    def decoder(self) -> decoder.Decoder:
        """The decoder, trained on the cached codes."""
        torch.manual_seed(self.seed + 2)
        config = demo_model(self.spelling().size).lm
        source = decoder.CachedColumns(self.cache(), size=16, num_frames=_LONG_FRAMES)
        begun = decoder.Decoder(config)
        if self.start is not None:
            begun.lm.load_state_dict(self.start.lm.state_dict())
        peak = 2e-3 if self.start is None else 1e-3
        plan = Plan(
            "decoder", 100_000, self.budgets.decoder, peak, 100, weight_decay=0.05, average=0.998
        )
        model = Fit(plan, begun, self.folder / "runs").run(
            source, lambda m, b, done: decoder.decoder_loss(m, b, progress=done)
        )
        assert isinstance(model, decoder.Decoder)
        return model

    def export(self, target: Path) -> None:
        """Write the model in Kyutai's layout, in bfloat16, and the figures of its training."""
        lm, codec = self.decoder().lm.state_dict(), self.quantised().mimi.state_dict()
        if self.start is not None:
            lm = mean_state(lm, self.start.lm.state_dict(), self.kept)
            codec = mean_state(codec, self.start.codec.state_dict(), self.kept)
        save_native(
            target,
            demo_model(self.spelling().size),
            lm=as_stored(lm, torch.bfloat16),
            codec=as_stored(codec, torch.bfloat16),
            vocabulary=self.folder / "tokenizer.model",
        )


def make_demo(recipe: DemoRecipe, target: Path) -> None:
    """Run the whole recipe, from the recordings (or a start model) to the shipped files."""
    recipe.export(target)
    runs = recipe.folder / "runs"
    rows = [json.loads(line) for line in (runs / "log.jsonl").read_text().splitlines()]
    draw_curve(rows, recipe.folder / "learning_curve.png")
