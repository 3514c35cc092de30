"""Manifests and a model -> an evaluation: results, scored, and their figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kiku.calibration import Calibration, CalibrationKind
from kiku.errors import InputError
from kiku.evaluate.aligning import check_extra
from kiku.evaluate.chance import RESAMPLES, Difference, difference_of
from kiku.evaluate.figures import (
    LENGTH,
    Confusions,
    Figures,
    confusions_of,
    figures_of,
    groups_by,
)
from kiku.evaluate.hearing import HeardPart, HeardUtterance, HearingOptions, hear
from kiku.evaluate.manifest import Manifest, Problem, Utterance, read_manifests
from kiku.evaluate.normalising import normaliser
from kiku.evaluate.scoring import Scored, Trust, score
from kiku.evaluate.store import ResultStore, read_results
from kiku.evaluate.trust import fit_calibration
from kiku.options import StreamOptions
from kiku.recognizer import Recognizer

OnHeard = Callable[[int, int], object]
"""Called with how many utterances are done, and how many there are."""


@dataclass(frozen=True)
class Evaluation:
    """A model's results for some utterances, and their figures."""

    settings: Mapping[str, Any]
    """The model, and how utterances were run through it."""
    scored: tuple[Scored, ...]
    """In the order of the manifests."""
    problems: tuple[Problem, ...] = ()
    """What could not be evaluated, and why."""
    normalise: str = "auto"
    seed: int = 0
    by: tuple[str, ...] = ()
    """Fields by which groups were asked for."""
    heard: int = field(default=0, compare=False)
    """How many utterances were run through the model by this call; the others had results."""

    @cached_property
    def figures(self) -> Figures:
        """The figures of all utterances."""
        return figures_of(self.scored, seed=self.seed)

    @cached_property
    def confusions(self) -> Confusions:
        """The commonest errors in all utterances."""
        return confusions_of(self.scored)

    @cached_property
    def groups(self) -> dict[str, dict[str, Figures]]:
        """Figures by field and value."""
        return {
            name: {
                value: figures_of(some, seed=self.seed)
                for value, some in groups_by(self.scored, name).items()
            }
            for name in self.by
        }

    @property
    def trusts(self) -> list[Trust]:
        """Each word's probability, and whether the word was right."""
        return [trust for one in self.scored for trust in one.trusts]

    @property
    def sound_s(self) -> float:
        """Seconds of sound that were evaluated."""
        return sum(one.heard.seconds for one in self.scored)

    @property
    def took_s(self) -> float:
        """Seconds that the machine took for it."""
        return sum(one.heard.took_s for one in self.scored)

    def calibration(self, kind: CalibrationKind = "isotonic") -> Calibration:
        """A calibration under which words are right as often as their probabilities say, for
        `StreamOptions.calibration`.

        Raises:
            InputError: too few words, or the results were made with a calibration already.
        """
        if self.settings.get("options", {}).get("calibration") is not None:
            raise InputError(
                "these words already have a calibration: evaluate without one to make another"
            )
        return fit_calibration(self.trusts, kind, model=str(self.settings.get("model", "")))

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain values. Only `speed` differs from run to run."""
        took_s = self.took_s
        return {
            "settings": dict(self.settings),
            "normalise": self.normalise,
            "figures": asdict(self.figures),
            "confusions": asdict(self.confusions),
            "groups": {
                name: {value: asdict(one) for value, one in some.items()}
                for name, some in self.groups.items()
            },
            "problems": [asdict(one) for one in self.problems],
            "utterances": [_row(one) for one in self.scored],
            "speed": {
                "sound_s": round(self.sound_s, 3),
                "took_s": round(took_s, 3),
                "real_time_factor": round(took_s / self.sound_s, 5) if self.sound_s else None,
            },
        }


def _row(scored: Scored) -> dict[str, Any]:
    said, got = scored.normalised
    return {
        "id": scored.utterance.id,
        "seconds": scored.heard.seconds,
        "reference": scored.utterance.text,
        "heard": " ".join(word.text for word in scored.heard.words),
        "compared": [said, got],
        "words": len(scored.reference),
        "errors": scored.errors,
        "fields": dict(scored.utterance.fields),
    }


def evaluate(
    manifests: Sequence[str | Path] | Manifest,
    recognizer: Recognizer,
    *,
    options: HearingOptions | None = None,
    folder: str | Path | None = None,
    normalise: str = "auto",
    by: Sequence[str] = (),
    on_heard: OnHeard | None = None,
) -> Evaluation:
    """Run the recordings of manifests through a model, and compare its words with their texts.

    Args:
        manifests: files of JSON lines, or folders of recordings with their texts; or what
            `read_manifests` made of them.
        recognizer: the model; all of its slots are used.
        options: how recordings are run through the model; None runs them as live streams.
        folder: results are kept here as they come, and utterances that have one here are not run
            again (`forget` deletes the results); None keeps results in memory.
        normalise: how texts are made comparable: "auto", "english", "basic" or "none".
        by: fields to make groups by, such as "speaker"; every utterance has the field "length".
        on_heard: called after each utterance.

    Raises:
        InputError: a manifest cannot be used at all, or an option is invalid.
        MissingExtra: the extra `evaluate` is not installed.
        ConfigError: the folder holds results of other settings.
        OutputError: the folder cannot be written.
    """
    options = options or HearingOptions()
    manifest = manifests if isinstance(manifests, Manifest) else read_manifests(manifests)
    check_evaluation(manifest, by=by, normalise=normalise)
    settings = _settings(recognizer, options)
    with ResultStore(None if folder is None else Path(folder), settings) as store:
        total = len(manifest.utterances)
        parts = [HeardPart.of(one, options.stream) for one in manifest.utterances]
        to_hear = [
            one
            for one, part in zip(manifest.utterances, parts, strict=True)
            if not _is_done(store.heard.get(one.id), part)
        ]
        for number, heard in enumerate(hear(recognizer, to_hear, options), 1):
            store.add(heard)
            if on_heard is not None:
                on_heard(total - len(to_hear) + number, total)
        found = store.heard
    return _evaluation(
        manifest, found, settings, normalise=normalise, by=by, num_heard=len(to_hear)
    )


def read_evaluation(
    manifests: Sequence[str | Path] | Manifest,
    folder: str | Path,
    *,
    normalise: str = "auto",
    by: Sequence[str] = (),
) -> Evaluation:
    """Read an earlier evaluation from its folder; no model is run. Utterances without a result in
    the folder, or with a result of another recording or part, become problems.

    Args:
        manifests: as for `evaluate`: texts are read from these.
        folder: the one that the evaluation was written to.
        normalise: as for `evaluate`.
        by: as for `evaluate`.

    Raises:
        InputError: as `evaluate`.
        OutputError: there are no results, or they are damaged.
    """
    manifest = manifests if isinstance(manifests, Manifest) else read_manifests(manifests)
    check_evaluation(manifest, by=by, normalise=normalise)
    settings, found = read_results(Path(folder))
    return _evaluation(manifest, found, settings, normalise=normalise, by=by)


def check_evaluation(manifest: Manifest, *, by: Sequence[str], normalise: str) -> None:
    """Raise at once for mistakes that would otherwise be found after an hour.

    Raises:
        InputError: there is no such field, or no such way to make texts comparable.
        MissingExtra: the extra `evaluate` is not installed.
    """
    check_extra()
    utterances = manifest.utterances
    for language in sorted({one.fields.get("language", "") for one in utterances}):
        normaliser(normalise, language)
    known = {name for one in utterances for name in one.fields} | {LENGTH}
    for name in by:
        if name not in known:
            raise InputError(f"no row has a field {name!r}; choose from {', '.join(sorted(known))}")


_HEARD_BY = ("decoding", "recovery", "turns", "calibration")
"""The stream options that change the results of an evaluation."""


def _settings(recognizer: Recognizer, options: HearingOptions) -> dict[str, Any]:
    engine = recognizer.scheduler.engine
    stream = options.stream.to_dict()
    return {
        "model": recognizer.name,
        "engine": engine.description,
        "weights": engine.backend.signature,
        "kiku": version("kiku"),
        "chunk_s": options.chunk_s,
        "options": {name: stream[name] for name in _HEARD_BY},
    }


def _is_done(heard: HeardUtterance | None, wanted: HeardPart) -> bool:
    """Whether this result can be kept; one with a problem is run again, as it may have none now."""
    return heard is not None and heard.problem is None and heard.part == wanted


def _problem_of(utterance: Utterance, heard: HeardUtterance | None) -> str | None:
    """Why an utterance cannot be compared with this result; None where it can."""
    if heard is None:
        return "was not transcribed in that evaluation"
    if other := heard.part.differs_from(HeardPart.of(utterance, StreamOptions())):
        return (
            f"was transcribed with other settings in that evaluation ({other}): run it again with "
            "this manifest"
        )
    return heard.problem


def _evaluation(
    manifest: Manifest,
    found: Mapping[str, HeardUtterance],
    settings: Mapping[str, Any],
    *,
    normalise: str,
    by: Sequence[str],
    num_heard: int = 0,
) -> Evaluation:
    scored: list[Scored] = []
    problems = list(manifest.problems)
    for utterance in manifest.utterances:
        heard = found.get(utterance.id)
        problem = _problem_of(utterance, heard)
        if heard is None or problem is not None:
            problems.append(Problem(utterance.id, str(problem)))
        else:
            same = normaliser(normalise, utterance.fields.get("language"))
            scored.append(score(utterance, heard, same))
    if not scored:
        first = problems[0]
        raise InputError(
            f"none of {len(problems)} utterances could be evaluated; the first, {first.where}: "
            f"{first.message}"
        )
    return Evaluation(
        settings, tuple(scored), tuple(problems), normalise, by=tuple(by), heard=num_heard
    )


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same utterances, the second compared with the first."""

    first: Mapping[str, Any]
    """Settings of the first evaluation; `second` are those of the second."""
    second: Mapping[str, Any]
    difference: Difference
    alone: int
    """Utterances that only one of them has."""
    pairs: tuple[tuple[Scored, Scored], ...]
    """Utterances in which one makes more errors than the other, the largest difference first."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "first": dict(self.first),
            "second": dict(self.second),
            **asdict(self.difference),
            "alone": self.alone,
        }


def compare(
    first: Evaluation, second: Evaluation, *, seed: int = 0, resamples: int = RESAMPLES
) -> Comparison:
    """Find whether the second makes fewer errors than the first, and whether that may be chance.

    This is a paired bootstrap over the utterances that both have and in which something is said.

    Args:
        first: of one model, precision or setting.
        second: of another, of the same recordings, normalised alike.
        seed: the same seed gives the same figures.
        resamples: how often utterances are drawn.

    Raises:
        InputError: they have no utterance in common, or none with a word; were normalised
            differently; or have different texts for an utterance.
    """
    if first.normalise != second.normalise:
        raise InputError(
            f"texts were normalised as {first.normalise} and as {second.normalise}: evaluate both "
            "in the same way"
        )
    if resamples < 100:
        raise InputError(f"resamples must be at least 100, not {resamples}")
    before = {one.utterance.id: one for one in first.scored if one.has_speech}
    after = {one.utterance.id: one for one in second.scored if one.has_speech}
    both = [(one, after[name]) for name, one in before.items() if name in after]
    if not both:
        raise InputError("the two evaluations have no utterance in common")
    _check_texts(both)
    if not any(one.reference for one, _ in both):
        raise InputError(
            f"the texts of the {len(both)} utterances in both evaluations contain no word to "
            "compare: normalise them in another way"
        )
    difference = difference_of(
        [one.errors for one, _ in both],
        [one.errors for _, one in both],
        [len(one.reference) for one, _ in both],
        seed=seed,
        resamples=resamples,
    )
    apart = [pair for pair in both if pair[0].errors != pair[1].errors]
    apart.sort(key=lambda pair: -abs(pair[1].errors - pair[0].errors))
    alone = len(before) + len(after) - 2 * len(both)
    return Comparison(first.settings, second.settings, difference, alone, tuple(apart))


def _check_texts(pairs: Sequence[tuple[Scored, Scored]]) -> None:
    """Raise InputError if an id stands for different texts in the two evaluations."""
    other = [pair for pair in pairs if pair[0].normalised[0] != pair[1].normalised[0]]
    if other:
        one, two = other[0]
        raise InputError(
            f"{len(other)} of {len(pairs)} utterances have another text in the second evaluation; "
            f"the first is {one.utterance.id}: {one.normalised[0]!r}, then {two.normalised[0]!r}; "
            "evaluate both with the same manifest"
        )
