"""A decoder that knows English words: the model of words, the search, and what is measured."""

import gzip
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from kiku.errors import VocabularyError
from kiku.text import Vocabulary
from recipes.demo.corpus import Corpus, Recording
from recipes.english import __main__ as english_commands
from recipes.english.beam import LETTER, Decoder, Limits, Setting, State, states_of
from recipes.english.gate import dev_groups, error_rates, scored
from recipes.english.lessons import make_vocabulary
from recipes.english.ngrams import END, START, UNKNOWN, WordModel
from recipes.english.rows import side_by_side, with_tail
from recipes.english.small import write_small
from recipes.english.trunk import AttentionAids, Trunk
from recipes.english.words import Heard, errors_of, figures, halves, hear, rates, texts_without_dev
from tests.recipes.test_english import PIECES, WORDS, given_to_a_run, trunk

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
SMALL = Vocabulary.from_pieces((*SPECIAL, "▁a", "b", "▁b", "▁"))
EVERYTHING = Limits(width=10**6, margin=math.inf, least=0.0, most=10**6)
TEXTS = [
    text.split()
    for text in (
        "the cat sat on the mat", "the cat ate", "a dog sat on the cat", "the dog ate the mat",
        "a b a", "b a a", "ab a b", "go to san francisco", "in san francisco", "of san francisco",
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def words() -> WordModel:
    return WordModel(TEXTS)


# The model of words


@pytest.mark.parametrize(
    "history",
    [
        (), (START,), (START, "the"), (START, "zebra"), ("the", "cat"), ("mat", "cat"),
        ("zebra", "cat"), ("cat", "zebra"), ("zebra", "zebra"), ("on", "the", "cat"),
    ],
)  # fmt: skip
def test_probabilities_of_all_words_are_one(words: WordModel, history: tuple[str, ...]) -> None:
    every = [*words.words, END, UNKNOWN]
    assert len(words.words) == len({word for text in TEXTS for word in text})
    found = [math.exp(words.log_probability(history, word)) for word in every]
    assert sum(found) == pytest.approx(1.0)
    assert min(found) > 0.0


def test_a_probability_by_hand() -> None:
    made = WordModel([["a", "b"], ["a", "b"], ["a", "c"]])
    # Triples: <s>ab 2, <s>ac 1, ab</s> 2, ac</s> 1. Pairs: <s>a 3; ab, ac, b</s>, c</s> 1 each.
    # Singles: a, b, c 1 each; </s> 2, as it comes after two words. d2 would be 4 / 4.
    d3, d2, d1 = 2 / (2 + 2 * 2), 0.9, 3 / (3 + 2 * 1)
    single = (1 - d1) / 5
    pair = ((1 - d2) + 2 * d2 * single) / 2
    triple = ((2 - d3) + 2 * d3 * pair) / 3
    assert math.exp(made.log_probability((), "b")) == pytest.approx(single)
    assert math.exp(made.log_probability(("x", "a"), "b")) == pytest.approx(pair)
    assert math.exp(made.log_probability((START, "a"), "b")) == pytest.approx(triple)
    assert math.exp(made.log_probability((), UNKNOWN)) == pytest.approx(d1 * 4 / 5)
    first = ((3 - d2) + d2 * (1 - d1) / 5) / 3
    assert math.exp(made.log_probability((START,), "a")) == pytest.approx(first)


def test_texts_without_words_tell_nothing(words: WordModel) -> None:
    made = WordModel([[], *TEXTS, []])
    assert made.words == words.words
    for history in ((), (START,)):
        assert made.log_probability(history, END) == words.log_probability(history, END)


def test_a_word_that_comes_after_one_word_only_is_rare_elsewhere(words: WordModel) -> None:
    """`francisco` is more frequent than `dog`, but it only comes after `san`."""
    assert words.log_probability(("zebra",), "francisco") < words.log_probability(("zebra",), "dog")
    assert words.log_probability(("in", "san"), "francisco") > math.log(0.5)


def test_beginnings_of_words(words: WordModel) -> None:
    assert words.starts.keys() == {w[:n] for w in words.words for n in range(1, len(w) + 1)}
    for begun in ("the", "o", "sa"):
        likely = [words.log_probability((), w) for w in words.words if w.startswith(begun)]
        assert words.starts[begun] == max(likely)
    assert min(likely) < max(likely)


# The search


def by_force(scores: Tensor, setting: Setting, words: WordModel) -> tuple[list[int], float]:
    """The best of all pieces that can be written at all, from the sums over all alignments."""
    ids = [0, *range(4, len(SMALL))]
    shares = scores[:, ids].double().softmax(-1)
    sums: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(len(ids)), repeat=len(scores)):
        share = math.prod(float(shares[at, index]) for at, index in enumerate(path))
        written = tuple(ids[index] for index, _ in itertools.groupby(path) if index)
        sums[written] = sums.get(written, 0.0) + share

    def score(written: tuple[int, ...]) -> float:
        text = SMALL.decode(written).split()
        row = [START, *text]
        added = words.log_probability(tuple(row), END) * setting.weight
        for place, word in enumerate(text, start=1):
            known = word if word in words else UNKNOWN
            found = words.log_probability(tuple(row[:place]), known)
            found -= 0.0 if word in words else LETTER * len(word)
            added += setting.weight * (found + setting.bonus)
        return math.log(sums[written]) + added

    best = max(sums, key=score)
    return list(best), score(best)


@pytest.mark.parametrize(
    "setting", [Setting(0.0, 0.0), Setting(0.6, 4.0), Setting(1.5, 0.0), Setting(0.2, -4.0)]
)
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_best_of_all(setting: Setting, seed: int, words: WordModel) -> None:
    for spread, drawn in ((1.0, seed), (3.0, seed + 100)):
        scores = torch.randn(5, len(SMALL), generator=torch.Generator().manual_seed(drawn)) * spread
        scores[:, 1:4] = 9.0  # no text: without a share
        states = states_of(scores, EVERYTHING)
        found = Decoder(SMALL, words, setting, EVERYTHING)(states)
        pieces, score = by_force(scores, setting, words)
        assert found.pieces == pieces
        assert found.score == pytest.approx(score)


LETTERS = Vocabulary.from_pieces(
    (*SPECIAL, *(f"{space}{letter}" for space in ("▁", "") for letter in "acdehmnostz"))
)


def spelled(text: str, doubts: dict[int, tuple[str, float, float]]) -> list[State]:
    """States that spell a text clearly, but for some letters: another one, its share, its own."""
    states: list[State] = []
    for place, piece in enumerate(LETTERS.encode(text)):
        shares = {piece: 0.998}
        if place in doubts:
            other, likely, own = doubts[place]
            space = "▁" if LETTERS.starts_word(piece) else ""
            wrong = next(i for i in range(len(LETTERS)) if LETTERS.piece(i) == space + other)
            shares = {wrong: likely, piece: own}
        states += [State(0.002, shares), State(1.0, {})]
    return states


def decoded(
    states: Sequence[State],
    words: WordModel,
    weight: float,
    limits: Limits | None = None,
    bonus: float = 0.0,
) -> str:
    decoder = Decoder(LETTERS, words, Setting(weight, bonus), limits or Limits())
    return LETTERS.decode(decoder(states).pieces)


def test_a_misspelt_word_is_mended(words: WordModel) -> None:
    for place, other, wrong in (
        (4, "e", "the cet sat on the mat"),
        (3, "m", "the mat sat on the mat"),
    ):
        states = spelled("the cat sat on the mat", {place: (other, 0.6, 0.3)})
        assert decoded(states, words, 0.0) == wrong
        assert decoded(states, words, 1.0) == "the cat sat on the mat"


def test_a_word_that_is_not_known_is_written_if_it_is_clear(words: WordModel) -> None:
    clear = spelled("the cat sat on the mat", {3: ("z", 0.998, 0.001)})
    assert decoded(clear, words, 0.5, Limits(least=0.0)) == "the zat sat on the mat"
    doubtful = spelled("the cat sat on the mat", {3: ("z", 0.9, 0.08)})
    assert decoded(doubtful, words, 0.5) == "the cat sat on the mat"


def test_what_is_far_from_the_best_is_not_looked_at(words: WordModel) -> None:
    states = spelled("the cat sat on the mat", {4: ("e", 0.6, 0.3)})
    assert decoded(states, words, 1.0, Limits(margin=1.0)) == "the cat sat on the mat"
    assert decoded(states, words, 1.0, Limits(margin=0.5)) == "the cet sat on the mat"
    states = spelled("the cat sat on the mat", {})
    states[12] = State(0.9, {next(iter(states[12].pieces)): 0.09})  # a blank is likelier
    assert decoded(states, words, 1.0, Limits(margin=3.0), bonus=9.0) == "the cat sat on the mat"
    assert decoded(states, words, 1.0, Limits(margin=2.0), bonus=9.0) == "the cat on the mat"
    states = spelled("the cat sat on the mat", {3: ("m", 0.6, 0.3)})
    assert decoded(states, words, 1.0, Limits(width=2)) == "the cat sat on the mat"
    assert decoded(states, words, 1.0, Limits(width=1)) == "the mat sat on the mat"


def test_states_hold_what_is_likely() -> None:
    scores = torch.tensor([[0.4, 9.0, 9.0, 9.0, 0.1, 0.3, 0.15, 0.05]]).log()
    (state,) = states_of(scores, Limits(least=0.0, most=10))
    assert state.blank == pytest.approx(0.4)
    assert list(state.pieces) == [5, 6, 4, 7]
    assert list(state.pieces.values()) == pytest.approx([0.3, 0.15, 0.1, 0.05])
    (few,) = states_of(scores, Limits(least=0.0, most=2))
    assert list(few.pieces) == [5, 6]
    (likely,) = states_of(scores, Limits(least=0.07, most=10))
    assert list(likely.pieces) == [5, 6, 4]


def test_a_long_recording_does_not_vanish(words: WordModel) -> None:
    scores = torch.zeros(3000, len(SMALL))
    scores[:, 0] = 1.0
    found = Decoder(SMALL, words, Setting(0.0, 0.0), Limits(width=4))(states_of(scores, Limits()))
    assert -3000 * math.log(len(SMALL)) < found.score < -1000


# What is measured


def people_of(folder: Path, *rows: tuple[str, str, str]) -> Corpus:
    """A corpus of a tenth of a second for each split, group and text."""
    folder.mkdir()
    recordings = [
        Recording(
            f"{n}", tuple(text.split()), f"s{n}", group, "en", split, n * 2400, (n + 1) * 2400
        )
        for n, (split, group, text) in enumerate(rows)
    ]
    (folder / "samples.i16").write_bytes(np.zeros(2400 * len(rows), "<i2").tobytes())
    (folder / "recordings.jsonl").write_text("\n".join(json.dumps(asdict(r)) for r in recordings))
    return Corpus(folder)


OPEN, CLOSE = "\N{LEFT SINGLE QUOTATION MARK}", "\N{RIGHT SINGLE QUOTATION MARK}"


def sentences_in(data: Path, *lines: str) -> Path:
    (data / "text").mkdir(parents=True)
    with gzip.open(data / "text" / "sentences.en.txt.gz", "wt", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")
    return data


def test_texts_of_dev_are_left_out(tmp_path: Path) -> None:
    people = people_of(
        tmp_path / "people", ("dev", "en-read", "it's a dog"), ("dev", "en-an4", "one two"),
        ("train", "en-read", "one two"), ("train", "en-l2", "a cat"), ("train", "en-l2", "a cat"),
        ("train", "elsewhere", "not for us"), ("train", "en-story", "a sheep"),
    )  # fmt: skip
    data = sentences_in(
        tmp_path / "data", f"{OPEN}It{CLOSE}s a dog.{CLOSE}", "It's a DOG!", "It's a dog, yes.",
        "'One,' 'two'", f"{OPEN}Don{CLOSE}t{CLOSE} go", "A cat.", "", "123", "A sheep",
    )  # fmt: skip
    found = texts_without_dev(data, people)
    assert [" ".join(words) for words in found.kept] == [
        "it's a dog yes", "don't go", "a cat", "a sheep"
    ]  # fmt: skip
    assert (found.sentences, found.people) == (2, 1)
    assert "one" not in WordModel(found.kept)


def listener(group: str, speaker: str, said: str, greedy: int = 0) -> Heard:
    return Heard(group, speaker, said.split(), greedy, [])


def test_halves_share_no_speaker() -> None:
    rng = np.random.default_rng(0)
    heard = [
        listener(group, f"{group}-{rng.integers(6)}", "a " * int(rng.integers(1, 9)))
        for group in ("en-read", "en-l2") for _ in range(60)
    ]  # fmt: skip
    first, second = halves(heard)
    assert sorted([*first, *second]) == list(range(len(heard)))
    assert {heard[i].speaker for i in first}.isdisjoint(heard[i].speaker for i in second)
    for group in ("en-read", "en-l2"):
        sizes = [
            sum(len(heard[i].words) for i in half if heard[i].group == group)
            for half in (first, second)
        ]
        assert min(sizes) > 0.8 * max(sizes)
    sizes = [len(half) for half in halves([listener("en-l2", who, "a") for who in "abcc"])]
    assert sizes == [2, 2]


def test_a_figure_is_of_those_that_nothing_was_tuned_on() -> None:
    ten = "a " * 10
    heard = [
        listener(group, f"{group}{number}", ten, greedy=8 - number)
        for group in ("en-read", "en-l2") for number in range(2)
    ]  # fmt: skip
    first, second = halves(heard)
    assert (first, second) == ([0, 2], [1, 3])
    one, two = Setting(0.1, 0.0), Setting(0.2, 0.0)
    later, earlier, both = figures(heard, {one: [1, 6, 1, 5], two: [4, 2, 3, 2]})
    assert (later.settings, later.known) == ([one], {"en-read": 0.6, "en-l2": 0.5})
    assert (earlier.settings, earlier.known) == ([two], {"en-read": 0.4, "en-l2": 0.3})
    assert later.greedy == {"en-read": 0.7, "en-l2": 0.7}
    assert earlier.greedy == {"en-read": 0.8, "en-l2": 0.8}
    assert (both.settings, both.known) == ([one, two], {"en-read": 0.5, "en-l2": 0.4})
    assert both.greedy == {"en-read": 0.75, "en-l2": 0.75}


def test_groups_count_alike_however_large() -> None:
    heard = [
        listener(group, f"{group}{number}", said)
        for group, said in (("en-read", "a " * 10), ("en-l2", "a " * 100)) for number in range(2)
    ]  # fmt: skip
    one, two = Setting(0.1, 0.0), Setting(0.2, 0.0)
    found = figures(heard, {two: [5, 5, 0, 0], one: [0, 0, 20, 20]})
    assert [figure.settings for figure in found] == [[one], [one], [one, one]]
    assert found[0].known == {"en-read": 0.0, "en-l2": 0.2}


def test_errors_are_those_of_the_decoder(words: WordModel) -> None:
    said = "the cat sat on the mat"
    states = spelled(said, {4: ("e", 0.6, 0.3)})
    heard = [
        Heard("en-read", "x", said.split(), 1, states),
        Heard("en-read", "x", ["a", "dog", "sat"], 1, states),
    ]
    for weight, errors in ((0.0, [1, 5]), (1.0, [0, 5])):
        decoder = Decoder(LETTERS, words, Setting(weight, 0.0), Limits())
        assert errors_of(heard, LETTERS, decoder) == errors
    assert rates(heard, [1, 5], [0, 1]) == {"en-read": 6 / 9}
    assert rates(heard, [1, 5], [1]) == {"en-read": 5 / 3}


@torch.no_grad()
def test_recordings_are_scored_as_if_alone(tmp_path: Path) -> None:
    lengths = (7, 3, 5)
    people = people_of(tmp_path / "people", *[("dev", "en-read", "yes no")] * 20)
    rng = np.random.default_rng(0)
    (tmp_path / "people" / "samples.i16").write_bytes(
        (3000 * rng.standard_normal(48_000)).astype("<i2").tobytes()
    )
    people = Corpus(tmp_path / "people")
    every = [
        Recording(f"{n}", ("yes",), "x", "en-read", "en", "dev", n * 2000, n * 2000 + size * 960)
        for n, size in enumerate(lengths * 6)
    ]
    model, aids = trunk(PIECES), AttentionAids(3)
    found = list(scored(model, people, every, aids))
    assert sorted(one.file for one, _ in found) == sorted(one.file for one in every)
    for one, scores in (found[0], found[-1]):
        pcm, length = side_by_side([with_tail(people.audio(one))])
        alone = model(pcm, length, aids)[0]
        assert scores.shape == alone.shape
        torch.testing.assert_close(scores.float(), alone, rtol=0, atol=0.05)
        assert (alone - model(pcm, length, AttentionAids())[0]).abs().max() > 0.1


def a_run(folder: Path) -> tuple[Path, Path]:
    """A folder of data, and one with the vocabulary and the weights of a run."""
    data, _ = given_to_a_run(folder)
    sentences_in(data, "One two three four.", "Yes, no!", "Five six seven", "One two three")
    out = folder / "out"
    out.mkdir()
    make_vocabulary([text for text in WORDS for _ in range(20)], PIECES, out)
    return data, out


def test_what_is_heard_is_what_the_gate_checks(tmp_path: Path, monkeypatch) -> None:
    for room in ("gate", "words"):
        monkeypatch.setattr(f"recipes.english.{room}.word_errors", lambda _, text: 7 + len(text))
    data, out = a_run(tmp_path)
    vocabulary = Vocabulary.load(out / f"vocabulary-{PIECES}.model")
    people = english_commands.build(data, out / "people")
    model = trunk(len(vocabulary))
    with torch.no_grad():
        model.head.bias[vocabulary.encode("one")[1]] = 9.0  # so that it writes something
    heard = hear(model, people, vocabulary, AttentionAids(2), Limits())
    assert all(len(one.states) == 35 for one in heard)
    wanted = error_rates(model, people, dev_groups(people), vocabulary, AttentionAids(2))
    found = rates(heard, [one.greedy for one in heard], range(len(heard)))
    assert found == {name: wanted[name] for name in ("en-read", "en-l2")}
    assert {one.greedy for one in heard} == {8}


@pytest.fixture
def ready(tmp_path: Path, monkeypatch) -> tuple[Vocabulary, list[str]]:
    """A vocabulary and a command, which lacks a trunk only."""
    data, out = a_run(tmp_path)
    monkeypatch.setattr(english_commands, "NUM_PIECES", PIECES)
    monkeypatch.setattr(english_commands, "SETTINGS", (Setting(0.3, 0.0), Setting(0.9, 2.0)))
    config = trunk().transformer.config
    monkeypatch.setattr(english_commands, "trunk_config", lambda: config)
    vocabulary = Vocabulary.load(out / f"vocabulary-{PIECES}.model")
    return vocabulary, ["words", "--data", str(data), "--out", str(out)]


def heard_by_hand(vocabulary: Vocabulary) -> list[Heard]:
    """Two speakers of each group, one of whom is not understood at the end."""
    states: list[State] = []
    for piece in vocabulary.encode("five six seven"):
        states += [State(0.01, {piece: 0.99}), State(1.0, {})]
    return [
        Heard(group, f"{group}{len(words)}", words.split(), greedy, states)
        for group in ("en-read", "en-l2")
        for words, greedy in (("five six seven", 1), ("five six" if group == "en-l2" else "six", 2))
    ]


def test_the_table_of_words(ready: tuple[Vocabulary, list[str]], monkeypatch) -> None:
    vocabulary, command = ready
    out = Path(command[-1])
    torch.save(trunk(len(vocabulary)).state_dict(), out / "trunk.pt")
    monkeypatch.setattr(english_commands, "hear", lambda *_: heard_by_hand(vocabulary))
    ran = CliRunner().invoke(english_commands.app, [*command, str(out / "trunk.pt")])
    assert ran.exit_code == 0, ran.output
    lines = ran.stdout.splitlines()
    assert lines[0] == (
        "11 words in 3 texts; left out, as dev has them: 2 sentences, 4 transcripts of train"
    )
    assert [line for line in lines if "%" in line] == [
        "| 0.3 | 0.0 | 0.0% | 0.0% |",
        "| 0.9 | 2.0 | 0.0% | 0.0% |",
        "| second half (weight 0.3, bonus 0.0) | 200.0% | 100.0% | 200.0% | 50.0% |",
        "| first half (weight 0.3, bonus 0.0) | 33.3% | 33.3% | 0.0% | 0.0% |",
        "| both (weight 0.3, bonus 0.0; weight 0.3, bonus 0.0) | 75.0% | 60.0% | 50.0% | 20.0% |",
    ]


def test_a_trunk_is_one_of_two_kinds(ready: tuple[Vocabulary, list[str]], monkeypatch) -> None:
    vocabulary, command = ready
    out = Path(command[-1])
    given: list[tuple[Tensor, AttentionAids]] = []

    def hears(model: Trunk, people: Corpus, _: Vocabulary, aids: AttentionAids, limits: Limits):
        given.append((model.head.weight.detach(), aids))
        return hear(model, people, vocabulary, aids, limits)

    monkeypatch.setattr(english_commands, "hear", hears)
    weights = trunk(len(vocabulary)).state_dict()
    torch.save(weights, out / "trunk.pt")
    write_small(weights, out / "small.safetensors")
    for name, more in (("trunk.pt", []), ("small.safetensors", ["--ahead", "3"])):
        ran = CliRunner().invoke(english_commands.app, [*command, str(out / name), *more])
        assert ran.exit_code == 0, ran.output
        assert ran.stdout.count("%") == 2 * 2 + 3 * 4
    assert [aids for _, aids in given] == [AttentionAids(0), AttentionAids(3)]
    for head, _ in given:
        torch.testing.assert_close(head, weights["head.weight"], rtol=0, atol=1e-3)


def test_a_run_without_its_vocabulary_is_told(ready: tuple[Vocabulary, list[str]]) -> None:
    _, command = ready
    (Path(command[-1]) / f"vocabulary-{PIECES}.model").unlink()
    ran = CliRunner().invoke(english_commands.app, [*command, "trunk.pt"])
    assert isinstance(ran.exception, VocabularyError)
