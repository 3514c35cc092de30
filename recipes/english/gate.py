"""Test whether a causal transformer of Mimi's shape can learn ordinary English from the data here.

It is trained with CTC on pieces of words, and with the teacher's states as a second target; the
future is taken away step by step. Word errors are measured on readers that are not in the training
data. A network that was causal from the first step emitted nothing (docs/english.md).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.evaluate.aligning import character_errors, word_errors
from kiku.text import Vocabulary
from recipes.demo.corpus import Corpus, Recording, build
from recipes.demo.fit import Fit, Plan, keep_memory
from recipes.demo.precision import lowered
from recipes.english.ablation import TeacherEncoder
from recipes.english.disguise import disguised
from recipes.english.lessons import Batch, Sentences, Source, bring_vocabulary, make_vocabulary
from recipes.english.rows import side_by_side, with_tail
from recipes.english.small import read_weights
from recipes.english.speak import build_said
from recipes.english.states import TeacherStates, build_states
from recipes.english.teacher import begin_from, model_file, read_variables
from recipes.english.trunk import AttentionAids, Trunk, trunk_config

NUM_PIECES = 150
"""Number of ids of the vocabulary, four of which are not text."""
AHEAD = (
    (0.03, 10_000), (0.05, 57), (0.07, 28), (0.09, 14), (0.11, 8), (0.13, 5), (0.15, 3),
    (0.17, 2), (0.19, 1), (1.01, 0),
)  # fmt: skip
"""Pairs: until this share of the training, a causal layer sees this many states of the future."""
TURNED = (0.0, 0.06)
"""Shares of the training between which the rotation of queries and keys grows from 0 to 1."""
PLACES = (0.03, 0.09)
"""Shares of the training between which the encodings of positions fade out."""
_HEAD_LR = 0.01
_HEAD_ROUNDS = 10
_DEV_S = 900.0
"""Seconds of sound of each group at every check."""
GROUPS = ("en-words", "en-an4", "en-read", "en-l2", "en-story", "en-prompts")
"""Groups of recordings of people in the training data."""
FRENCH = ("fr-story", "fr-verse")
"""Groups whose sound is used, but not their text."""
_SLOW = ("first.", "second.", "transformer.", "reader.", "norm.")
"""What begins from the teacher, and learns at a lower rate than the heads."""


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
        peak_lr: see `Plan`; that of the heads.
        slow: the rate of the layers, as a share of `peak_lr`.
        taught: weights of the loss of the teacher's states at the first and the last step; None
            for a run without them.
        still_batches: number of batches that the head is trained on first, see `begin_head`.
        start: weights of an earlier run to start from, instead of the teacher's; the vocabulary of
            that run lies beside them.
        always: for a run that starts from an earlier one: the number of states of the future that
            are seen all the time; encodings of positions are not used by such a run.
    """

    data: Path
    out: Path
    wheels: tuple[Path, ...]
    budget_s: float
    said_hours: float = 10.0
    batch_s: float = 110.0
    peak_lr: float = 1e-3
    slow: float = 0.4
    taught: tuple[float, float] | None = (1000.0, 100.0)
    still_batches: int = 24
    start: Path | None = None
    always: int = 0


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
    sources, second = _sources(gate, people)
    texts = sorted({" ".join(one.recording.words) for one in sources if one.recording.words})
    if gate.start is not None:
        bring_vocabulary(gate.start.parent, gate.out, NUM_PIECES)
    vocabulary = make_vocabulary(texts, NUM_PIECES, gate.out)
    noise, rooms = (gate.data / "noise" / part for part in ("noise", "RIRs"))
    lessons = Sentences(
        sources, vocabulary, batch_s=gate.batch_s, noise=noise if noise.is_dir() else None,
        rooms=rooms if rooms.is_dir() else None,
    )  # fmt: skip
    model = _begun(gate, len(vocabulary))
    plan = Plan("gate", 10**7, gate.budget_s, gate.peak_lr, warmup_steps=200, save_every_s=240.0)
    if gate.start is None and not Fit.begun(plan, gate.out):
        begin_head(model, [lessons(step) for step in range(gate.still_batches)], aids_at(0.0))
    fit = Fit(plan, model, gate.out, rates=dict.fromkeys(_SLOW, gate.slow))
    groups = dev_groups(people)
    last: dict[str, float] = {}

    def now(progress: float) -> AttentionAids:
        return aids_at(progress) if gate.start is None else AttentionAids(gate.always)

    def check(averaged: nn.Module) -> dict[str, float]:
        aids = now(fit.progress)
        last.update(error_rates(averaged, people, groups, vocabulary, aids))
        if second is not None:
            last.update(left_of_states(averaged, people, groups, second.dev, aids))
        return {**last, **asdict(aids), "rounds": fit.step / lessons.per_round}

    def loss(model: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        return both_losses(model, batch, now(progress), second, progress)

    averaged = fit.run(lessons, loss, check, check_every_s=600.0)
    if not last:  # it had been trained to its end before
        check(averaged)
    torch.save(averaged.state_dict(), gate.out / "trunk.pt")
    return last


def _begun(gate: Gate, num_pieces: int) -> Trunk:
    """A trunk as it is at the beginning of a run."""
    torch.manual_seed(1)
    model = Trunk(trunk_config(), num_pieces)
    if gate.start is not None:
        model.load_state_dict(read_weights(gate.start))
    else:
        begin_from(read_variables(model_file(gate.wheels)), model)
    return model


@dataclass(frozen=True, slots=True)
class Second:
    """The second target, the teacher's states.

    Attributes:
        weight: of its loss beside that of CTC, from the first to the last step.
        spread: float32 [layers, D], how much the teacher's states vary.
        dev: the states of the recordings of a check.
    """

    weight: tuple[float, float]
    spread: Tensor
    dev: TeacherStates


def _sources(gate: Gate, people: Corpus) -> tuple[list[Source], Second | None]:
    """What is heard; and the second target, if there is one: the states of people's recordings."""
    told = people.select("train", *GROUPS)
    said: list[Source] = []
    if gate.said_hours > 0:
        spoken = build_said(gate.data, gate.out / "said", hours=gate.said_hours)
        said = [Source(spoken, one) for one in spoken.recordings]
    if gate.taught is None:
        return [*(Source(people, one) for one in told), *said], None
    teacher = TeacherEncoder(read_variables(model_file(gate.wheels)))
    every = [*told, *people.select("train", *FRENCH, language="fr")]
    folder = gate.out / "states-people"
    states = build_states(teacher, people, every, folder)
    heard = [one for some in dev_groups(people).values() for one in some]
    dev = build_states(teacher, people, heard, gate.out / "states-dev", folder)
    sources = [*(Source(people, one, states) for one in every), *said]
    return sources, Second(gate.taught, states.spread, dev)


def both_losses(
    model: nn.Module,
    batch: Batch,
    aids: AttentionAids,
    second: Second | None,
    progress: float = 1.0,
) -> dict[str, Tensor]:
    """CTC losses per piece, with disguised spectra, and those of the teacher's states."""
    assert isinstance(model, Trunk)
    spectra = disguised(model.spectra(batch.pcm))
    told = batch.counts > 0
    found: dict[str, Tensor] = {}
    with lowered():
        states = model.states(spectra, batch.lengths, aids)
        half, read = model.read(states, batch.lengths, aids)
        scores = model.scores(read[told], batch.lengths[told])
    spelled = loss = per_piece(scores, batch)
    if second is not None and batch.taught.any():
        for number, (name, given) in enumerate((("half", half), ("last", read))):
            error = (given[batch.taught].float() - batch.wanted[:, number]) / second.spread[number]
            found[f"{name} states"] = error.square().mean()
        begin, end = second.weight
        weight = begin + (end - begin) * progress
        loss = loss + weight * torch.stack(list(found.values())).mean()
    parts = {"spelled": spelled, **found}
    return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}


def per_piece(scores: Tensor, batch: Batch) -> Tensor:
    """CTC loss per piece of scores [rows with text, L, vocabulary]."""
    told = batch.counts > 0
    if not told.any():
        return scores.sum() * 0.0
    loss = F.ctc_loss(
        scores.float().log_softmax(-1).transpose(0, 1), batch.pieces, batch.lengths[told],
        batch.counts[told], reduction="sum", zero_infinity=True,
    )  # fmt: skip
    return loss / batch.counts.sum()


def begin_head(model: Trunk, batches: Sequence[Batch], aids: AttentionAids) -> None:
    """Train the head on the reader's states before the layers themselves are trained.

    It takes a minute. With a random head the layers would first learn to emit nothing at all, which
    lowers the CTC loss fastest, and it would take half an hour until they emit something.
    """
    still: list[Tensor] = []
    with torch.no_grad(), lowered():
        for batch in batches:
            states = model.states(model.spectra(batch.pcm), batch.lengths, aids)
            _, read = model.read(states, batch.lengths, aids)
            still.append(read[batch.counts > 0].bfloat16())
    learned = [*model.near.parameters(), *model.head.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=_HEAD_LR, betas=(0.9, 0.98))
    steps = _HEAD_ROUNDS * len(batches)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = _HEAD_LR * (1 - step / steps)
        read, batch = still[step % len(still)], batches[step % len(batches)]
        with lowered():
            scores = model.scores(read.float(), batch.lengths[batch.counts > 0])
        optimizer.zero_grad()
        per_piece(scores, batch).backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
    model.zero_grad(set_to_none=True)


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


def _by_length(
    corpus: Corpus, recordings: Sequence[Recording]
) -> Iterator[tuple[Sequence[Recording], Tensor, Tensor]]:
    """Batches of recordings, the shortest first; their sound [B, S] and states of each [B]."""
    ordered = sorted(recordings, key=lambda one: one.seconds)
    for first in range(0, len(ordered), 16):
        some = ordered[first : first + 16]
        pcm, lengths = side_by_side([with_tail(corpus.audio(one)) for one in some])
        yield some, pcm, lengths


@torch.no_grad()
def scored(
    model: nn.Module, people: Corpus, recordings: Sequence[Recording], aids: AttentionAids
) -> Iterator[tuple[Recording, Tensor]]:
    """Recordings, the shortest first, and the scores of each, [L, vocabulary]."""
    assert isinstance(model, Trunk)
    model.eval()
    for some, pcm, lengths in _by_length(people, recordings):
        with lowered():
            scores = model(pcm, lengths, aids)
        for row, length, one in zip(scores, lengths.tolist(), some, strict=True):
            yield one, row[:length]


def error_rates(
    model: nn.Module,
    people: Corpus,
    groups: Mapping[str, Sequence[Recording]],
    vocabulary: Vocabulary,
    aids: AttentionAids,
) -> dict[str, float]:
    """Error rates of words and of letters by group, decoded from the best piece of each state."""
    found: dict[str, float] = {}
    for name, recordings in groups.items():
        wrong, total = np.zeros(2), np.zeros(2)
        for one, scores in scored(model, people, recordings, aids):
            text = text_of(scores.argmax(-1), vocabulary)
            letters = " ".join(one.words)
            wrong += word_errors(one.words, text.split()), character_errors(letters, text)
            total += len(one.words), len(letters)
        shares = (wrong / total).tolist()
        found |= zip((name, f"{name} letters"), shares, strict=True)
    return found


@torch.no_grad()
def left_of_states(
    model: nn.Module,
    corpus: Corpus,
    groups: Mapping[str, Sequence[Recording]],
    teacher: TeacherStates,
    aids: AttentionAids,
) -> dict[str, float]:
    """The share of the variance of the teacher's states that those of the model explain.

    This is the mean over dimensions, without any map between the two; by group and layer.
    Recordings without states are left out.
    """
    assert isinstance(model, Trunk)
    model.eval()
    found: dict[str, float] = {}
    for name, recordings in groups.items():
        given: list[Tensor] = []
        wanted: list[Tensor] = []
        known = [one for one in recordings if one.begin in teacher.spans]
        for some, pcm, lengths in _by_length(corpus, known):
            with lowered():
                states = model.states(model.spectra(pcm), lengths, aids)
                half, read = model.read(states, lengths, aids)
            both = torch.stack([half.float(), read.float()], 2)
            for row, one in zip(both, some, strict=True):
                wanted.append(teacher.of(one))
                given.append(row[: len(wanted[-1])])
        all_given, all_wanted = torch.cat(given), torch.cat(wanted)
        off = (all_given - all_wanted).square().mean(0) / all_wanted.var(0)
        for part, share in zip(("half", "last"), off.mean(1).tolist(), strict=True):
            found[f"{name} {part} states"] = 1.0 - share
    return found


def text_of(best: Tensor, vocabulary: Vocabulary) -> str:
    """The text of the best ids [L]: runs of one id count once, 0 is the blank."""
    ids: list[int] = torch.unique_consecutive(best).tolist()
    return vocabulary.decode(ids)
