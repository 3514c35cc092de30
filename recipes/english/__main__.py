"""`python -m recipes.english gate` trains the transformer alone and measures its word errors; `...
teacher` measures which parts of the teacher matter, `... ceiling` the best word errors to expect
with the recordings here, `... words` those that are left if the decoder knows English words."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from kiku.text import Vocabulary
from recipes.demo.corpus import Corpus, build
from recipes.english.ablation import TeacherEncoder, ablations
from recipes.english.beam import Decoder, Limits
from recipes.english.ceiling import (
    Reader,
    examples_of,
    first_hours,
    learn,
    scores_of,
    word_errors_of,
)
from recipes.english.gate import FRENCH, GROUPS, NUM_PIECES, Gate, dev_groups, run_gate
from recipes.english.lessons import bring_vocabulary, make_vocabulary
from recipes.english.ngrams import WordModel
from recipes.english.small import read_weights, write_small
from recipes.english.speak import build_said
from recipes.english.states import build_states
from recipes.english.teacher import model_file, read_variables
from recipes.english.trunk import AttentionAids, Trunk, trunk_config
from recipes.english.words import (
    SETTINGS,
    Heard,
    errors_of,
    figures,
    halves,
    hear,
    heard_of,
    rates,
    texts_without_dev,
)

app = typer.Typer(add_completion=False, no_args_is_help=True, help="A model of ordinary English.")


_Data = Annotated[Path, typer.Option(help="Folder of recordings, as for recipes.demo.")]
_Caches = Annotated[Path, typer.Option(help="Folder for caches.")]
_HALVES = ("second half", "first half", "both")
_Teacher = Annotated[list[Path], typer.Option(help="The two wheels of Whisper base.")]


@app.command()
def gate(
    data: _Data,
    out: Annotated[Path, typer.Option(help="Folder for caches, checkpoints and the log.")],
    teacher: _Teacher,
    minutes: Annotated[float, typer.Option(help="Of two processors.")] = 360.0,
    said_hours: Annotated[float, typer.Option(help="Of synthetic speech.")] = 10.0,
    start: Annotated[
        Path | None, typer.Option(help="Weights of an earlier run: trunk.pt, or what small made.")
    ] = None,
    ahead: Annotated[int, typer.Option(help="States of the future seen after --start.")] = 0,
    rate: Annotated[
        float, typer.Option(help="Highest learning rate of the head; layers have 0.4 of it.")
    ] = 1e-3,
) -> None:
    """Train the transformer on spectra, and measure it on readers it never heard."""
    wheels, seconds = tuple(teacher), minutes * 60
    found = run_gate(
        Gate(data, out, wheels, seconds, said_hours, peak_lr=rate, start=start, always=ahead)
    )
    typer.echo(json.dumps(found, indent=2))


@app.command("teacher")
def teacher_parts(
    data: _Data,
    out: _Caches,
    teacher: _Teacher,
    count: Annotated[int, typer.Option(help="Readers' recordings that are heard.")] = 24,
) -> None:
    """What the teacher's states are worth when a part of it is missing: a table."""
    people = build(data, out / "people")
    readers = [one for one in dev_groups(people)["en-read"] if 4 < one.seconds < 10][:count]
    found = ablations(read_variables(model_file(teacher)), people, readers)
    typer.echo("| its layers, but | explained |\n|---|---|")
    for name, share in found.items():
        typer.echo(f"| {name} | {share:.2f} |")


@app.command()
def ceiling(
    data: _Data,
    out: _Caches,
    teacher: _Teacher,
    rounds: Annotated[int, typer.Option(help="Times through all recordings.")] = 5,
    said_hours: Annotated[float, typer.Option(help="Of synthetic speech besides people.")] = 6.0,
) -> None:
    """Word errors of who learns to read the whole teacher's states: a table by rounds, and one with
    a decoder that knows English words."""
    people = build(data, out / "people")
    encoder = TeacherEncoder(read_variables(model_file(teacher)))
    told = people.select("train", *GROUPS)
    french = people.select("train", *FRENCH, language="fr")
    folder = out / "states-people"
    examples = examples_of(build_states(encoder, people, [*told, *french], folder), told)
    if said_hours > 0:
        spoken = build_said(data, out / "said", hours=said_hours)
        some = first_hours(spoken, said_hours)
        kept = build_states(encoder, spoken, some, out / "states-said", folder)
        examples += examples_of(kept, some)
    texts = sorted({" ".join(one.words) for one in examples})
    vocabulary = make_vocabulary(texts, NUM_PIECES, out)
    checked = dev_groups(people)
    dev = build_states(
        encoder, people, [one for some in checked.values() for one in some], out / "states-dev",
        folder,
    )  # fmt: skip
    groups = {name: examples_of(dev, some) for name, some in checked.items()}
    torch.manual_seed(1)
    reader = Reader(examples[0].states.shape[1], len(vocabulary))
    typer.echo("| round | loss | word errors: readers | learners of English |\n|---|---|---|---|")
    for number, loss in enumerate(learn(reader, examples, vocabulary, rounds=rounds), start=1):
        found = word_errors_of(reader, groups, vocabulary)
        typer.echo(f"| {number} | {loss:.2f} | {_shares(found)} |")
    limits = Limits()
    heard = [
        heard_of(name, one, scores, vocabulary, limits)
        for name, some in groups.items()
        for one, scores in scores_of(reader, some)
    ]
    _tell_with_words(data, people, vocabulary, heard, limits)


@app.command("words")
def with_words(
    trunk: Annotated[Path, typer.Argument(help="trunk.pt of a run, or what small made.")],
    data: _Data,
    out: Annotated[
        Path,
        typer.Option(help="Folder for caches, and of the vocabulary if it is not beside TRUNK."),
    ],
    ahead: Annotated[int, typer.Option(help="States of the future that it was trained with.")] = 0,
) -> None:
    """Word errors with a decoder that knows English words: what was tried, and a table."""
    bring_vocabulary(trunk.parent, out, NUM_PIECES)
    vocabulary = Vocabulary.load(out / f"vocabulary-{NUM_PIECES}.model")
    model = Trunk(trunk_config(), len(vocabulary))
    model.load_state_dict(read_weights(trunk))
    people, limits = build(data, out / "people"), Limits()
    heard = hear(model, people, vocabulary, AttentionAids(ahead), limits)
    _tell_with_words(data, people, vocabulary, heard, limits)


def _tell_with_words(
    data: Path, people: Corpus, vocabulary: Vocabulary, heard: Sequence[Heard], limits: Limits
) -> None:
    """Print word errors with a model of words: what was tried, and a table."""
    texts = texts_without_dev(data, people)
    words = WordModel(texts.kept)
    typer.echo(
        f"{len(words.words)} words in {len(texts.kept)} texts; left out, as dev has them: "
        f"{texts.sentences} sentences, {texts.people} transcripts of train\n"
    )
    errors = {
        setting: errors_of(heard, vocabulary, Decoder(vocabulary, words, setting, limits))
        for setting in SETTINGS
    }
    half, _ = halves(heard)
    typer.echo("| weight | bonus | first half: readers | learners of English |\n|---|---|---|---|")
    for setting in SETTINGS:
        shares = _shares(rates(heard, errors[setting], half))
        typer.echo(f"| {setting.weight} | {setting.bonus} | {shares} |")
    typer.echo(
        "\n| tuned on the other half | greedy: readers | learners of English | with the words: "
        "readers | learners of English |\n|---|---|---|---|---|"
    )
    for name, figure in zip(_HALVES, figures(heard, errors), strict=True):
        shares = f"{_shares(figure.greedy)} | {_shares(figure.known)}"
        used = "; ".join(f"weight {one.weight}, bonus {one.bonus}" for one in figure.settings)
        typer.echo(f"| {name} ({used}) | {shares} |")


@app.command()
def small(
    trunk: Annotated[Path, typer.Argument(help="trunk.pt of a run.")],
    out: Annotated[Path, typer.Argument(help="A .safetensors file.")],
) -> None:
    """Keep the weights of a run in a quarter of their size, and its vocabulary, for --start."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_small(read_weights(trunk), out)
    bring_vocabulary(trunk.parent, out.parent, NUM_PIECES)


def _shares(found: Mapping[str, float]) -> str:
    """Word errors of readers and of learners of English, two cells of a table."""
    return " | ".join(f"{found[name]:.1%}" for name in ("en-read", "en-l2"))


if __name__ == "__main__":
    app()
