# pyright: basic
# What torch gives is only partly typed.
"""Find when each word is spoken: a small network learns letters, and aligns the known text (CTC).

The network reads the output of the codec's convolutions, not the codec's latents: the codec's
transformer remembers seconds, and a network that reads it emits every word late, because nothing
in the loss prevents it (a measurement gave 0.3 s). The network is trained on the same recordings
that it then aligns; overfitting does no harm here.

A network trained in this way emits a word's letters in the middle of the word. A word therefore
begins and ends where the sound around its letters does, or half way to the next word if there is
no pause between them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kiku.checkpoint import Loaded
from kiku.errors import AudioError, ConfigError, TrainingError
from kiku.nn.state import all_active
from kiku.train.forced import force, widen_words
from kiku.train.letters import letters_of, sign_without_letters, spoken_words
from kiku.train.manifest import TimedWord, TrainingRow, problem_of, refuse_shared_splits
from kiku.train.pictures import pictures_page, words_svg
from kiku.train.sounds import pieces_of

_PER_LATENT = 2
"""Rows of scores for each latent: quick speakers say more letters than there are latents."""
_DILATIONS = (1, 2, 1)
_MEASURED = 200
"""Recordings from which the mean and the spread of the network's input are computed."""
_FAST = 25.0
"""Letters a second; nobody speaks faster."""
PICTURED = 50
"""How many doubtful rows are drawn."""
_SEEDS = 1 << 63
_ODD = 4.0
"""How many median deviations below the median a score looks wrong."""


@dataclass(frozen=True, slots=True)
class AlignOptions:
    """How the network is trained."""

    steps: int = 1500
    lr: float = 2e-3
    width: int = 192
    batch_s: float = 60.0
    """Seconds of sound in a step."""
    most_s: float = 60.0
    """Seconds; longer recordings are not aligned."""
    learn_s: float = 4 * 3600.0
    """Seconds of sound that the network is trained on; all sound is aligned."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError for a seed that PyTorch does not take."""
        if not 0 <= self.seed < _SEEDS:
            raise ConfigError(f"seed must be from 0 to 2^63 - 1, not {self.seed}")


@dataclass(frozen=True, slots=True)
class Doubt:
    """A row that a person should check, and why."""

    row: str
    why: str


@dataclass(slots=True)
class Aligned:
    """The result of aligning a manifest."""

    rows: list[TrainingRow]
    """The rows that can be packed, in order: with times found here, or in need of none."""
    timed: int = 0
    """How many of `rows` got their times here."""
    left_out: list[Doubt] = field(default_factory=list[Doubt])
    doubtful: list[Doubt] = field(default_factory=list[Doubt])
    """Those of `rows` that look wrong."""
    pictures: list[str] = field(default_factory=list[str])
    """SVG drawings of the first doubtful rows."""
    loss: float = 0.0
    """Loss per letter, the mean of the last hundred steps."""


class LetterNet(nn.Module):
    """Turns latents into scores of letters, seeing about a third of a second to both sides."""

    mean: Tensor
    spread: Tensor

    def __init__(self, latents: Tensor, num_letters: int, width: int) -> None:
        """Normalise by the statistics of `latents` [L, D]; `num_letters` excludes the blank."""
        super().__init__()
        dim = latents.shape[1]
        self.register_buffer("mean", latents.mean(0))
        self.register_buffer("spread", latents.std(0).clamp(min=1e-4))
        self.first = nn.Conv1d(dim, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Conv1d(width, 2 * width, 5, padding=2 * dilation, dilation=dilation)
            for dilation in _DILATIONS
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(len(_DILATIONS) + 1))
        self.num_scores = 1 + num_letters
        self.head = nn.Linear(width, _PER_LATENT * self.num_scores)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, L, D] -> [B, 2 L, 1 + letters] log-probabilities"""
        x = (latents - self.mean) / self.spread
        x = self.first(x.transpose(1, 2)).transpose(1, 2)
        for norm, block in zip(self.norms, self.blocks, strict=False):
            x = x + F.glu(block(norm(x).transpose(1, 2)).transpose(1, 2), dim=-1)
        scores = self.head(self.norms[-1](x))
        return scores.view(len(x), -1, self.num_scores).log_softmax(-1)


def align(
    rows: Sequence[TrainingRow],
    loaded: Loaded,
    options: AlignOptions | None = None,
    *,
    device: str = "cpu",
    on_progress: Callable[[str], None] = lambda line: None,
) -> Aligned:
    """Put times on the words of a manifest; rows that have them keep them.

    Rows with which something is wrong, or that have no transcript, are left out.

    Args:
        rows: rows of the manifest.
        loaded: the model whose codec encodes the recordings.
        options: how the network is trained.
        device: where the networks run.
        on_progress: is called with lines of progress.

    Raises:
        TrainingError: no row has a text without times, or none of them can be aligned; or a
            speaker or a part of a recording is in two splits.
    """
    refuse_shared_splits(rows)
    return Aligner(rows, loaded, options or AlignOptions(), device, on_progress).run()


@dataclass(frozen=True, slots=True)
class _Features:
    """The network's input of one recording, and the recording's loudness."""

    latents: Tensor  # [L, D] of the codec's convolutions, in half precision
    loudness: NDArray[np.float32]  # [2 L] root mean squares


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A row that is to be aligned."""

    index: int
    words: tuple[str, ...]
    """The words as they are written."""
    labels: tuple[int, ...]
    """The labels of all letters."""
    seconds: float


class Aligner:
    """Aligns one manifest."""

    def __init__(
        self,
        rows: Sequence[TrainingRow],
        loaded: Loaded,
        options: AlignOptions,
        device: str,
        on_progress: Callable[[str], None],
    ) -> None:
        """Collect the rows to align and the letters of their texts."""
        self.rows, self.options, self.device, self.on_progress = rows, options, device, on_progress
        self.config, self.codec = loaded.config, loaded.codec.to(device)
        self.wanted = [i for i, r in enumerate(rows) if r.words is None and (r.text or "").strip()]
        if not self.wanted:
            bad = next(((r.label, p) for r in rows if (p := problem_of(r)) is not None), None)
            first = "" if bad is None else f"; the first that cannot be used, {bad[0]}: {bad[1]}"
            raise TrainingError(
                f"no row has a text without times: there is nothing to align{first}"
            )
        texts = [letters_of(rows[i].text or "") for i in self.wanted]
        self.letters = {c: n for n, c in enumerate(sorted(set("".join(texts))), 1)}
        self.row_s = 1 / (self.config.frame_rate * self.config.codec.downsample * _PER_LATENT)
        self.result = Aligned([])

    def run(self) -> Aligned:
        """Train the network, then align row by row."""
        features, sentences = self._prepared()
        if not sentences:
            raise TrainingError(
                f"none of {len(self.wanted)} rows can be aligned: {self.result.left_out[0].why}"
            )
        net = self._learn({index: one.latents for index, one in features.items()}, sentences)
        timed: dict[int, TrainingRow] = {}
        scores: dict[int, float] = {}
        for sentence in sentences:
            held = features.get(sentence.index) or self._features_of(self.rows[sentence.index])
            found = self._aligned(net, held, sentence)
            if found is None:
                self._leave_out(sentence.index, "its letters do not fit its length")
                continue
            timed[sentence.index], scores[sentence.index] = found
        for index in self._doubt(timed, scores)[:PICTURED]:
            held = features.get(index) or self._features_of(self.rows[index])
            words = [word.moved(-timed[index].start) for word in timed[index].words or ()]
            self.result.pictures.append(words_svg(words, held.loudness, self.row_s))
        self._collect(timed)
        return self.result

    def _collect(self, timed: dict[int, TrainingRow]) -> None:
        """Put the rows of the result in order; leave out those that packing would refuse."""
        self.result.timed = len(timed)
        wanted = set(self.wanted)
        for i, row in enumerate(self.rows):
            if i in timed:
                self.result.rows.append(timed[i])
            elif i not in wanted:
                if (problem := problem_of(row)) is None:
                    self.result.rows.append(row)
                else:
                    self._leave_out(i, problem)

    def _leave_out(self, index: int, why: str) -> None:
        self.result.left_out.append(Doubt(self.rows[index].label, why))

    def _prepared(self) -> tuple[dict[int, _Features], list[_Sentence]]:
        """Features of the recordings to train on, and all sentences that can be aligned."""
        kept: dict[int, _Features] = {}
        sentences: list[_Sentence] = []
        held_s = 0.0
        for number in np.random.default_rng(self.options.seed).permutation(len(self.wanted)):
            index = self.wanted[number]
            row = self.rows[index]
            words = spoken_words(row.text or "")
            labels = tuple(self.letters[c] for word in words for c in letters_of(word))
            if not words:
                self._leave_out(index, "its text has no letters")
                continue
            try:
                features = self._features_of(row)
            except (AudioError, TrainingError) as error:
                self._leave_out(index, str(error))
                continue
            seconds = len(features.latents) * _PER_LATENT * self.row_s
            sentences.append(_Sentence(index, tuple(words), labels, seconds))
            if held_s < self.options.learn_s:
                kept[index] = features
                held_s += seconds
        return kept, sorted(sentences, key=lambda one: one.index)

    @torch.no_grad()
    def _features_of(self, row: TrainingRow) -> _Features:
        # A second piece suffices to know that the recording is too long.
        found = pieces_of(replace(row, words=()), self.config.sample_rate, self.options.most_s)
        pieces = [piece.samples for piece in islice(found, 2)]
        if len(pieces) != 1:
            if not pieces:
                past = f" from {row.start:g} s on: that is its end, or later" if row.start else ""
                raise TrainingError(f"no sound{past}")
            raise TrainingError(f"longer than {self.options.most_s:g} s: cut it into sentences")
        size = self.config.frame_size
        samples = np.pad(pieces[0], (0, -len(pieces[0]) % size))
        pcm = torch.from_numpy(samples).view(1, 1, -1).to(self.device)
        state = self.codec.init_state(1, self.device, torch.float32)
        active = all_active(1, self.device)
        latents = self.codec.seanet(pcm, state.seanet, active)[0].T.half().cpu()
        parts = samples.reshape(_PER_LATENT * len(latents), -1)
        return _Features(latents, np.sqrt(np.mean(parts**2, axis=1)))

    def _learn(self, latents: dict[int, Tensor], sentences: Sequence[_Sentence]) -> LetterNet:
        """Train a network on the recordings in memory."""
        options = self.options
        torch.manual_seed(options.seed)
        some = torch.cat(list(latents.values())[:_MEASURED]).float()
        net = LetterNet(some, len(self.letters), options.width)
        net = net.to(self.device).train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=options.lr, weight_decay=0.01)
        plan = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, options.lr, total_steps=options.steps + 1, pct_start=0.1
        )
        known = [one for one in sentences if one.index in latents]
        known.sort(key=lambda one: one.seconds)
        rng = np.random.default_rng([options.seed, 1])
        recent: list[float] = []
        for step in range(options.steps):
            # A batch is sentences of about the same length.
            first = int(rng.integers(len(known)))
            count = max(1, int(options.batch_s / known[first].seconds))
            chosen = known[first : first + count]
            loss = self._ctc(net, [latents[one.index] for one in chosen], chosen)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            plan.step()
            recent = [*recent[-99:], float(loss.detach())]
            if (step + 1) % max(1, options.steps // 10) == 0:
                self.on_progress(
                    f"learning letters: {step + 1:,}/{options.steps:,}, loss {recent[-1]:.3f}"
                )
        self.result.loss = float(np.mean(recent))
        return net.eval()

    def _ctc(
        self, net: LetterNet, latents: Sequence[Tensor], chosen: Sequence[_Sentence]
    ) -> Tensor:
        """The loss per letter."""
        padded = nn.utils.rnn.pad_sequence(list(latents), batch_first=True).float()
        scores = net(padded.to(self.device)).transpose(0, 1)
        lengths = torch.tensor([len(one) * _PER_LATENT for one in latents])
        labels = torch.tensor([label for one in chosen for label in one.labels])
        sizes = torch.tensor([len(one.labels) for one in chosen])
        loss = F.ctc_loss(
            scores, labels.to(self.device), lengths, sizes, reduction="sum", zero_infinity=True
        )
        return loss / sizes.sum()

    @torch.no_grad()
    def _aligned(
        self, net: LetterNet, features: _Features, sentence: _Sentence
    ) -> tuple[TrainingRow, float] | None:
        """The row with times, and how well its text fits; None if it does not."""
        scores = net(features.latents[None].float().to(self.device))[0].cpu().numpy()
        spans, score = force(scores, sentence.labels)
        if not len(spans):
            return None
        lasts = np.cumsum([len(letters_of(word)) for word in sentence.words]) - 1
        firsts = np.concatenate([[0], lasts[:-1] + 1])
        cores = np.stack([spans[firsts, 0], spans[lasts, 1] + 1], axis=1)
        row = self.rows[sentence.index]
        bounds = row.start + widen_words(cores, features.loudness) * self.row_s
        words = tuple(
            TimedWord(word, round(float(start), 3), round(float(end), 3))
            for word, (start, end) in zip(sentence.words, bounds, strict=True)
        )
        return replace(row, words=words), score

    def _doubt(self, timed: dict[int, TrainingRow], scores: dict[int, float]) -> list[int]:
        """Add rows that a person should check to the result; gives their numbers as well."""
        found: list[int] = []
        values = np.array(list(scores.values()))
        middle = float(np.median(values)) if len(values) else 0.0
        spread = float(np.median(np.abs(values - middle))) if len(values) else 0.0
        for index, score in sorted(scores.items(), key=lambda pair: pair[1]):
            row = timed[index]
            words = list(row.words or ())
            letters = sum(len(letters_of(word.text)) for word in words)
            pace = letters / max(1e-3, words[-1].end - words[0].start)
            why = None
            if score < middle - _ODD * max(spread, 0.02):
                why = f"its text does not match well ({score:.2f}; the others {middle:.2f})"
            elif pace > _FAST:
                why = f"{pace:.0f} letters a second: is there more text than sound?"
            elif (sign := sign_without_letters(row.text or "")) is not None:
                why = f"{sign!r} has no letters: write what is said"
            if why is not None:
                self.result.doubtful.append(Doubt(row.label, why))
                found.append(index)
        return found


def page_of(done: Aligned) -> str:
    """Drawings of the rows that look wrong: HTML for a file next to the manifest."""
    shown = [
        (one.row, one.why, picture)
        for one, picture in zip(done.doubtful, done.pictures, strict=False)
    ]
    return pictures_page(
        "Words whose times look wrong", shown, more=len(done.doubtful) - len(shown)
    )


def report_of(done: Aligned) -> dict[str, Any]:
    """A report for a JSON file next to the manifest."""
    return {
        "aligned": done.timed,
        "rows": len(done.rows),
        "loss_per_letter": round(done.loss, 4),
        "left_out": [{"row": one.row, "why": one.why} for one in done.left_out],
        "doubtful": [{"row": one.row, "why": one.why} for one in done.doubtful],
    }
