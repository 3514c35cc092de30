"""Test whether a causal transformer of Mimi's shape can learn ordinary English from the data here.

It is trained with CTC on pieces of words; the future is taken away step by step. Word errors are
measured on readers that are not in the training data. The same network, causal from the first step,
emitted nothing after the same time (docs/english.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.evaluate.aligning import character_errors, word_errors
from kiku.text import Vocabulary
from recipes.demo.corpus import Corpus, Recording, build
from recipes.demo.features import stripes
from recipes.demo.fit import Fit, Plan, keep_memory
from recipes.demo.precision import lowered
from recipes.english.lessons import Batch, Sentences, make_vocabulary, side_by_side, with_tail
from recipes.english.small import read_weights
from recipes.english.speak import build_said
from recipes.english.teacher import begin_from, model_file, read_variables
from recipes.english.trunk import AttentionAids, Trunk, trunk_config

NUM_PIECES = 150
"""Number of ids of the vocabulary, four of which are not text."""
AHEAD = (
    (0.12, 10_000), (0.16, 57), (0.20, 28), (0.24, 14), (0.28, 8), (0.32, 5), (0.36, 3),
    (0.39, 2), (0.42, 1), (1.01, 0),
)  # fmt: skip
"""Pairs: until this share of the training, a layer sees this many states of the future."""
TURNED = (0.01, 0.10)
"""Shares of the training between which the rotation of queries and keys grows from 0 to 1."""
PLACES = (0.06, 0.18)
"""Shares of the training between which the encodings of positions fade out."""
_EARLY = 0.3
"""Weight of the loss of the layers alone, without the reader."""
_HEAD_LR = 0.01
_HEAD_ROUNDS = 25
_DEV_S = 900.0
"""Seconds of sound of each group at every check."""
GROUPS = ("en-words", "en-an4", "en-read", "en-l2", "en-story", "en-prompts")
"""Groups of recordings of people in the training data."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Where everything is, and how long to train.

    Attributes:
        data: folder of recordings, sentences and noises.
        out: folder for results; a run that was killed goes on from there.
        wheels: the two packages that hold Whisper base.
        budget_s: seconds of the training thread's processor time.
        said_hours: hours of synthetic speech.
        batch_s: seconds of sound in a step.
        peak_lr: see `Plan`.
        still_batches: number of batches that the head is trained on first, see `begin_head`.
        start: weights of an earlier run to start from, instead of the teacher's.
        always: for a run that starts from an earlier one: the number of states of the future that
            are seen all the time; encodings of positions are then not used.
    """

    data: Path
    out: Path
    wheels: tuple[Path, ...]
    budget_s: float
    said_hours: float = 10.0
    batch_s: float = 110.0
    peak_lr: float = 3e-4
    still_batches: int = 80
    start: Path | None = None
    always: int | None = None


def aids_at(progress: float) -> AttentionAids:
    """The aids at this share of the training."""
    ahead = next(ahead for until, ahead in AHEAD if progress < until)
    return AttentionAids(ahead, 1.0 - _passed(progress, PLACES), _passed(progress, TURNED))


def _passed(progress: float, span: tuple[float, float]) -> float:
    begin, end = span
    return min(1.0, max(0.0, (progress - begin) / (end - begin)))


def run_gate(gate: Gate) -> dict[str, float]:
    """Train to the end; gives the last word errors."""
    keep_memory()
    people = build(gate.data, gate.out / "people")
    sources = [(people, one) for one in people.select("train", *GROUPS)]
    if gate.said_hours > 0:
        said = build_said(gate.data, gate.out / "said", hours=gate.said_hours)
        sources += [(said, one) for one in said.recordings]
    texts = sorted({" ".join(one.words) for _, one in sources if one.words})
    vocabulary = make_vocabulary(texts, NUM_PIECES, gate.out)
    torch.manual_seed(1)
    model = Trunk(trunk_config(), len(vocabulary))
    if gate.start is not None:
        model.load_state_dict(read_weights(gate.start))
    else:
        begin_from(read_variables(model_file(gate.wheels)), model)
    noise, rooms = (gate.data / "noise" / part for part in ("noise", "RIRs"))
    lessons = Sentences(
        sources, vocabulary, batch_s=gate.batch_s, noise=noise if noise.is_dir() else None,
        rooms=rooms if rooms.is_dir() else None,
    )  # fmt: skip
    plan = Plan("gate", 10**7, gate.budget_s, gate.peak_lr, warmup_steps=200, save_every_s=240.0)
    if gate.start is None and not Fit.begun(plan, gate.out):
        begin_head(model, [lessons(step) for step in range(gate.still_batches)], aids_at(0.0))
    fit = Fit(plan, model, gate.out)
    groups = dev_groups(people)
    last: dict[str, float] = {}

    def now(progress: float) -> AttentionAids:
        return aids_at(progress) if gate.always is None else AttentionAids(gate.always)

    def check(averaged: nn.Module) -> dict[str, float]:
        aids = now(fit.progress)
        last.update(error_rates(averaged, people, groups, vocabulary, aids))
        return {**last, **asdict(aids), "rounds": fit.step / lessons.per_round}

    def loss(model: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        return ctc_loss(model, batch, now(progress))

    averaged = fit.run(lessons, loss, check, check_every_s=240.0)
    if not last:  # it had been trained to its end before
        check(averaged)
    torch.save(averaged.state_dict(), gate.out / "trunk.pt")
    return last


def ctc_loss(model: nn.Module, batch: Batch, aids: AttentionAids) -> dict[str, Tensor]:
    """CTC losses per piece, with parts of the spectra masked."""
    assert isinstance(model, Trunk)
    spectra = hidden_stripes(model.spectra(batch.pcm))
    with lowered():
        states = model.states(spectra, batch.lengths, aids)
        early, late = model.early(states), model.head(model.read(states, batch.lengths))
    alone, read = per_piece(early, batch), per_piece(late, batch)
    return {
        "loss": _EARLY * alone + (1 - _EARLY) * read,
        "alone": alone.detach(),
        "read": read.detach(),
    }


def per_piece(scores: Tensor, batch: Batch) -> Tensor:
    """CTC loss per piece of scores [B, L, vocabulary]."""
    chances = scores.float().log_softmax(-1).transpose(0, 1)
    loss = F.ctc_loss(
        chances, batch.pieces, batch.lengths, batch.counts, reduction="sum", zero_infinity=True
    )
    return loss / batch.counts.sum()


def begin_head(model: Trunk, batches: Sequence[Batch], aids: AttentionAids) -> None:
    """Train the heads on the layers' states before the layers themselves are trained.

    It takes seconds. With random heads the layers would first learn to emit nothing at all, which
    lowers the CTC loss fastest, and it would take half an hour until they emit something.
    """
    with torch.no_grad(), lowered():
        still = [
            model.states(model.spectra(batch.pcm), batch.lengths, aids).bfloat16()
            for batch in batches
        ]
    optimizer = torch.optim.AdamW(model.early.parameters(), lr=_HEAD_LR, betas=(0.9, 0.98))
    steps = _HEAD_ROUNDS * len(batches)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = _HEAD_LR * (1 - step / steps)
        scores = model.early(still[step % len(still)].float())
        optimizer.zero_grad()
        per_piece(scores, batches[step % len(batches)]).backward()
        nn.utils.clip_grad_norm_(model.early.parameters(), 1.0)
        optimizer.step()
    model.head.load_state_dict(model.early.state_dict())  # the reader changes almost nothing


def hidden_stripes(spectra: Tensor) -> Tensor:
    """[B, 80, N] with two bands of mels and some stretches of time set to the mean of their row."""
    B, mels, count = spectra.shape
    hidden = stripes((B, count, mels), (2, 16), (1 + count // 400, 35)).transpose(1, 2)
    return torch.where(hidden, spectra.mean((1, 2), keepdim=True), spectra)


def dev_groups(people: Corpus) -> Mapping[str, Sequence[Recording]]:
    """The recordings of a check: readers, and speakers of English as a second language.

    There are some minutes of each group, spread over all speakers.
    """
    groups: dict[str, list[Recording]] = {}
    for name in ("en-read", "en-l2"):
        every = people.select("dev", name)
        order = np.random.default_rng(0).permutation(len(every))
        some: list[Recording] = []
        for index in order:
            if sum(one.seconds for one in some) < _DEV_S:
                some.append(every[index])
        groups[name] = some
    return groups


@torch.no_grad()
def error_rates(
    model: nn.Module,
    people: Corpus,
    groups: Mapping[str, Sequence[Recording]],
    vocabulary: Vocabulary,
    aids: AttentionAids,
) -> dict[str, float]:
    """Error rates by group, decoded from the best piece of each state.

    They are those of words and of letters with the reader, and of words by the layers alone.
    """
    assert isinstance(model, Trunk)
    model.eval()
    found: dict[str, float] = {}
    for name, recordings in groups.items():
        wrong, total = np.zeros(3), np.zeros(3)
        ordered = sorted(recordings, key=lambda one: one.seconds)
        for first in range(0, len(ordered), 16):
            some = ordered[first : first + 16]
            pcm, lengths = side_by_side([with_tail(people.audio(one)) for one in some])
            with lowered():
                states = model.states(model.spectra(pcm), lengths, aids)
                alone = model.early(states).argmax(-1)
                read = model.head(model.read(states, lengths)).argmax(-1)
            for row, early, length, one in zip(read, alone, lengths.tolist(), some, strict=True):
                text = text_of(row[:length], vocabulary)
                letters = " ".join(one.words)
                wrong += (
                    word_errors(one.words, text.split()), character_errors(letters, text),
                    word_errors(one.words, text_of(early[:length], vocabulary).split()),
                )  # fmt: skip
                total += len(one.words), len(letters), len(one.words)
        shares = (wrong / total).tolist()
        found |= zip((name, f"{name} letters", f"{name} alone"), shares, strict=True)
    return found


def text_of(best: Tensor, vocabulary: Vocabulary) -> str:
    """The text of the best ids [L]: runs of one id count once, 0 is the blank."""
    ids: list[int] = torch.unique_consecutive(best).tolist()
    return vocabulary.decode(ids)
