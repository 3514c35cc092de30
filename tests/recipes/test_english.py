"""The gate before a model of ordinary English: teacher, trunk, lessons."""

import gzip
import json
import struct
import sys
import wave
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from kiku.errors import ConfigError
from kiku.evaluate.aligning import character_errors
from kiku.text import Vocabulary
from kiku.text.vocabulary import NUM_SPECIAL
from kiku.train.augment import Augmentation, Augmenter
from recipes.demo.corpus import SAMPLE_RATE, Corpus, Recording
from recipes.english import __main__ as english_commands
from recipes.english import disguise as disguise_room
from recipes.english import gate as gate_room
from recipes.english.ablation import TeacherEncoder, Without, explained
from recipes.english.disguise import disguised, hidden_stripes, warped
from recipes.english.gate import (
    AHEAD,
    Gate,
    Second,
    aids_at,
    begin_head,
    both_losses,
    error_rates,
    left_of_states,
    run_gate,
    text_of,
)
from recipes.english.lessons import _ROW_S, Batch, Sentences, Source, make_vocabulary
from recipes.english.rows import TAIL, side_by_side, with_tail
from recipes.english.small import read_weights, write_small
from recipes.english.speak import build_said
from recipes.english.speak import sentences as sentences_of
from recipes.english.states import TeacherStates, build_states
from recipes.english.teacher import begin_from, model_file, read_variables, ridge_solution
from recipes.english.trunk import (
    READER_LAYERS,
    READS_AHEAD,
    STATE,
    AttentionAids,
    Trunk,
    WhisperMel,
    mel_filters,
    trunk_config,
)

DIM, LAYERS, PIECES = 128, 2, 28
SECOND = READER_LAYERS * READS_AHEAD + 1
"""States of the future that the reader and the convolution after it see."""
WORDS = ("one two three", "four five", "six seven eight nine", "yes no", "up down left right")


def trunk(pieces: int = 20) -> Trunk:
    torch.manual_seed(0)
    made = Trunk(trunk_config(DIM, LAYERS), pieces)
    for layer in [*made.transformer.layers, *made.reader.layers]:
        layer.scale1.data.fill_(1.0)  # pyright: ignore
        layer.scale2.data.fill_(1.0)  # pyright: ignore
    return made.eval()


def noise(states: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(states * STATE).astype(np.float32) * 0.1


def as_ctranslate2(variables: dict[str, np.ndarray]) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        kind = {"float32": 0, "int8": 1, "float16": 4}[str(array.dtype)]
        out += text(name) + struct.pack("<B", array.ndim)
        out += struct.pack(f"<{array.ndim}I", *array.shape)
        out += struct.pack("<BI", kind, array.nbytes) + array.tobytes()
    return out + struct.pack("<I", 0)


def teacher_of(trunk: Trunk) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)

    def some(*shape: int) -> np.ndarray:
        return (0.1 * rng.standard_normal(shape)).astype(np.float16)

    made = {}
    made["encoder/position_encodings/encodings"] = some(1500, DIM)
    for number, conv in ((1, trunk.first), (2, trunk.second)):
        made[f"encoder/conv{number}/weight"] = some(*conv.weight.shape)
        made[f"encoder/conv{number}/bias"] = some(DIM)
    norms = ["encoder/layer_norm"]
    for layer in range(LAYERS + READER_LAYERS):
        attention, feed = f"encoder/layer_{layer}/self_attention", f"encoder/layer_{layer}/ffn"
        norms += [f"{attention}/layer_norm", f"{feed}/layer_norm"]
        for name, rows, columns in (
            (f"{attention}/linear_0", 3 * DIM, DIM), (f"{attention}/linear_1", DIM, DIM),
            (f"{feed}/linear_0", 4 * DIM, DIM), (f"{feed}/linear_1", DIM, 4 * DIM),
        ):  # fmt: skip
            made[f"{name}/weight"], made[f"{name}/bias"] = some(rows, columns), some(rows)
    for name in norms:
        made[f"{name}/gamma"], made[f"{name}/beta"] = some(DIM) + np.float16(1), some(DIM)
    return made


def test_the_teacher_is_read_out_of_parts(tmp_path: Path) -> None:
    variables = {
        "a/weight": np.arange(6, dtype=np.float16).reshape(2, 3),
        "b": np.array([1, -1], np.int8),
    }
    data = as_ctranslate2(variables)
    for part, piece in (("2", data[30:]), ("1", data[:30])):
        with zipfile.ZipFile(tmp_path / f"{part}.whl", "w") as wheel:
            wheel.writestr(f"package_{part}/data/model.bin.part{part}", piece)
            wheel.writestr(f"package_{part}/data/config.json", b"{}")
    found = read_variables(model_file([tmp_path / "2.whl", tmp_path / "1.whl"]))
    assert found.keys() == variables.keys()
    for name, array in variables.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("cut", [0, 3, 20, 45])
def test_a_cut_teacher_is_told(cut: int) -> None:
    data = as_ctranslate2({"a/weight": np.zeros((4, 4), np.float32)})
    with pytest.raises(ConfigError, match="fetch the wheels again"):
        read_variables(data[:cut])


def test_wheels_without_a_model_are_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
        wheel.writestr("other/__init__.py", b"")
    with pytest.raises(ConfigError, match=r"no model\.bin in .*other\.whl"):
        model_file([tmp_path / "other.whl"])


@torch.no_grad()
def test_a_trunk_begins_as_its_teacher() -> None:
    """Biases and all, though its layers have none; it loses a place of each norm and one unit."""
    made = trunk()
    teacher = teacher_of(made)
    for name in list(teacher):  # what is given up says nothing in this teacher
        if name.endswith("linear_0/weight"):
            teacher[name][:, 5] = 0
        if name.endswith("ffn/linear_1/weight"):
            teacher[name][:, 7] = 0
        if name.endswith("self_attention/linear_1/weight"):  # so that any bias can be reached
            teacher[name] += np.eye(DIM, dtype=np.float16) * np.float16(3)
    begin_from(teacher, made)
    spectra = made.spectra(torch.from_numpy(noise(30))[None])
    length = torch.tensor([30])

    def states(aids: AttentionAids) -> torch.Tensor:
        return made.read(made.states(spectra, length, aids), length, aids)[1]

    ours = states(AttentionAids(10_000, 1.0))
    theirs = TeacherEncoder(teacher)(spectra, torch.tensor([30]), Without(rotated=True))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)
    without = states(AttentionAids(10_000, 0.0))
    assert (without - theirs).abs().max() > 0.1
    still = states(AttentionAids(10_000, 1.0, 0.0))
    whole = TeacherEncoder(teacher)(spectra, torch.tensor([30]), Without())
    torch.testing.assert_close(still, whole, rtol=0, atol=2e-3)
    assert (still - theirs).abs().max() > 0.02


@pytest.mark.parametrize(
    ("bias", "name"),
    [
        ("queries", "self_attention/linear_0/bias"), ("values", "self_attention/linear_0/bias"),
        ("attention", "self_attention/linear_1/bias"), ("wide", "ffn/linear_0/bias"),
        ("narrow", "ffn/linear_1/bias"),
    ],
)  # fmt: skip
@torch.no_grad()
def test_a_bias_that_is_left_out_is_one_of_zeros(bias: str, name: str) -> None:
    made = trunk()
    teacher = teacher_of(made)
    spectra, length = made.spectra(torch.from_numpy(noise(8))[None]), torch.tensor([8])
    without = TeacherEncoder(teacher)(spectra, length, Without(biases=frozenset({bias})))
    rows = {"queries": slice(0, DIM), "values": slice(2 * DIM, None)}.get(bias, slice(None))
    for layer in range(LAYERS + READER_LAYERS):
        teacher[f"encoder/layer_{layer}/{name}"][rows] = 0
    assert torch.equal(without, TeacherEncoder(teacher)(spectra, length, Without()))


@torch.no_grad()
def test_a_teacher_of_pairs_is_not_one_of_single_states() -> None:
    made = trunk()
    encoder = TeacherEncoder(teacher_of(made))
    spectra, length = made.spectra(torch.from_numpy(noise(8))[None]), torch.tensor([8])
    assert encoder(spectra, length, Without()).shape == (1, 8, DIM)
    assert encoder(spectra, length, Without(pairs=False)).shape == (1, 16, DIM)
    whole, other = (encoder(spectra, length, Without(ahead=a)) for a in ((10_000,), (0,)))
    assert not torch.allclose(whole[:, :4], other[:, :4])


@torch.no_grad()
def test_each_layer_of_the_teacher_sees_its_part_of_the_future() -> None:
    encoder = TeacherEncoder(teacher_of(trunk()))
    sound, states, cut = noise(24), 24, 16
    other = sound.copy()
    other[cut * STATE :] = noise(states, 1)[cut * STATE :]
    spectra = [WhisperMel()(torch.from_numpy(one)[None]) for one in (sound, other)]
    for ahead, first in (((0,), cut), ((0, 0, 0, 2), cut - 2), ((0, 0, 3, 1), cut - 4)):
        one, two = (
            encoder(some, torch.tensor([states]), Without(ahead=ahead))[0] for some in spectra
        )
        assert torch.equal(one[:first], two[:first])
        assert not torch.equal(one[first], two[first])


def test_what_a_linear_map_explains() -> None:
    drawn = torch.Generator().manual_seed(2)
    given = torch.randn(4000, 8, generator=drawn) * 5
    turned = given @ torch.randn(8, 8, generator=drawn)
    assert explained(given, turned) > 0.99
    noisy = turned + turned.std(0) * torch.randn(4000, 8, generator=drawn)
    assert explained(given, noisy) == pytest.approx(0.5, abs=0.05)
    assert explained(torch.randn(4000, 8, generator=drawn), turned) < 0.02


def test_a_foreign_teacher_is_named() -> None:
    made = trunk()
    teacher = teacher_of(made)
    del teacher["encoder/layer_1/ffn/linear_0/weight"]
    with pytest.raises(ConfigError, match="encoder/layer_1/ffn/linear_0/weight"):
        begin_from(teacher, made)


def test_a_bias_is_solved_for() -> None:
    weight = torch.randn(40, 10, generator=torch.Generator().manual_seed(1))
    shift = torch.linspace(-1, 1, 10)
    torch.testing.assert_close(ridge_solution(weight, weight @ shift), shift, rtol=0.01, atol=0.01)


def test_filters_are_whispers() -> None:
    audio_utils = pytest.importorskip("transformers.audio_utils")
    wanted = audio_utils.mel_filter_bank(201, 80, 0.0, 8000.0, 16_000, "slaney", "slaney")
    ours = mel_filters().numpy()
    np.testing.assert_allclose(ours[:201], wanted, atol=2e-6)
    assert not ours[201:].any()


def test_spectra_are_whispers_two_later() -> None:
    whisper = pytest.importorskip("transformers").WhisperFeatureExtractor()
    soxr = pytest.importorskip("soxr")
    at = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tones = [0.1 * np.sin(2 * np.pi * f * at) for f in (300, 1000, 2500)]
    sound = np.sum(tones, axis=0).astype(np.float32)
    low = soxr.resample(sound, SAMPLE_RATE, 16_000)
    theirs = whisper(low, sampling_rate=16_000)["input_features"][0][:, 20:80]
    ours = trunk().spectra(torch.from_numpy(sound)[None])[0].numpy()[:, 23:83]
    loud = theirs > theirs.max() - 0.8  # near the tones; below are what resampling leaves
    assert np.abs(ours - theirs)[loud].max() < 0.02


@pytest.mark.parametrize("ahead", [0, 1, 3])
@torch.no_grad()
def test_a_state_hears_so_much_of_the_future(ahead: int) -> None:
    made, states, cut = trunk(), 40, 20
    sound = noise(states)
    other = sound.copy()
    other[cut * STATE :] = noise(states, 1)[cut * STATE :]
    length = torch.tensor([states])
    one, two = (
        made.states(made.spectra(torch.from_numpy(s)[None]), length, AttentionAids(ahead))[0]
        for s in (sound, other)
    )
    first = cut - ahead * LAYERS
    assert torch.equal(one[:first], two[:first])
    assert not torch.allclose(one[first], two[first])


@torch.no_grad()
def test_the_reader_waits_a_second() -> None:
    made, states, changed = trunk(), 60, 50
    given = torch.randn(1, states, DIM, generator=torch.Generator().manual_seed(0))
    other = given.clone()
    other[:, changed:] += 1.0
    length = torch.tensor([states])
    one, two = (
        made.scores(made.read(x, length, AttentionAids())[1], length)[0] for x in (given, other)
    )
    first = changed - SECOND
    assert torch.equal(one[:first], two[:first])
    assert not torch.equal(one[first], two[first])


@torch.no_grad()
def test_a_state_remembers_ten_seconds() -> None:
    torch.manual_seed(0)
    made = Trunk(trunk_config(DIM, 1), PIECES).eval()
    sound = noise(260)
    other = np.concatenate([noise(1, 1), sound[STATE:]])
    length = torch.tensor([260])
    one, two = (
        made.states(made.spectra(torch.from_numpy(s)[None]), length, AttentionAids())[0]
        for s in (sound, other)
    )
    # Spectra come 20 ms late and reach over 25, so the first state's sound is in the next two too.
    assert torch.equal(one[252:], two[252:])
    assert not torch.equal(one[250], two[250])


@torch.no_grad()
def test_places_fade() -> None:
    made = trunk()
    made.places.copy_(torch.randn(made.places.shape))
    spectra, length = made.spectra(torch.from_numpy(noise(20))[None]), torch.tensor([20])
    half = made.states(spectra, length, AttentionAids(0, 0.5))
    made.places.mul_(0.5)
    assert torch.equal(half, made.states(spectra, length, AttentionAids(0, 1.0)))


@torch.no_grad()
def test_the_turn_grows_with_its_share() -> None:
    made = trunk()
    spectra, length = made.spectra(torch.from_numpy(noise(20))[None]), torch.tensor([20])

    def states(turned: float) -> torch.Tensor:
        return made.states(spectra, length, AttentionAids(0, 0.0, turned))

    torch.testing.assert_close(states(1.0), states(1.0 - 1e-7), rtol=0, atol=1e-4)
    none, half, whole = states(0.0), states(0.5), states(1.0)
    assert (half - none).norm() < (whole - none).norm()
    assert (half - whole).abs().max() > 1e-3


@torch.no_grad()
def test_rows_do_not_hear_each_other() -> None:
    made = trunk()
    rows = [noise(30, 1), noise(12, 2)]
    pcm, lengths = side_by_side(rows)
    together = made(pcm, lengths, AttentionAids(10_000))
    for row, sound, length in zip(together, rows, lengths.tolist(), strict=True):
        alone = made(torch.from_numpy(sound)[None], torch.tensor([length]), AttentionAids(10_000))[
            0
        ]
        torch.testing.assert_close(row[:length], alone[:length], rtol=0, atol=1e-5)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines: list[Recording] = []
    parts: list[np.ndarray] = []
    position = 0
    rng = np.random.default_rng(5)
    for number in range(24):
        samples = (3000 * rng.standard_normal(int(rng.uniform(0.5, 2) * SAMPLE_RATE))).astype("<i2")
        recording = Recording(
            f"{number}.ogg", tuple(WORDS[number % len(WORDS)].split()), "someone", "en-read", "en",
            "train", position, position + len(samples),
        )  # fmt: skip
        parts.append(samples)
        position += len(samples)
        lines.append(recording)
    (folder / "samples.i16").write_bytes(np.concatenate(parts).tobytes())
    (folder / "recordings.jsonl").write_text("\n".join(json.dumps(asdict(r)) for r in lines))
    return Corpus(folder)


def sentences(corpus: Corpus, folder: Path, **changes: object) -> Sentences:
    vocabulary = make_vocabulary([text for text in WORDS for _ in range(20)], PIECES, folder)
    options = {"batch_s": 8.0, "noise": None, "rooms": None, **changes}
    return Sentences([Source(corpus, r) for r in corpus.recordings], vocabulary, **options)  # pyright: ignore


def test_a_round_hears_everything_once_and_keeps_to_its_size(corpus: Corpus, tmp_path) -> None:
    lessons = sentences(corpus, tmp_path, batch_s=16.0)
    for number in range(2):
        batches = lessons._batches(number)
        assert sorted(i for batch in batches for row in batch for i in row) == list(range(24))
        for batch in batches:
            assert max(map(lessons.row_s, batch)) * len(batch) <= 16.0
        rows = [row for batch in batches for row in batch]
        assert max(map(lessons.row_s, rows)) <= _ROW_S
        assert len(rows) < 12  # each recording has 1.25 s, and shares its row
    assert lessons._batches(0) != lessons._batches(1)


def test_a_long_recording_has_its_row_alone(corpus: Corpus, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("recipes.english.lessons._ROW_S", 0.5)
    lessons = sentences(corpus, tmp_path)
    rows = [row for batch in lessons._batches(0) for row in batch]
    assert sorted(rows) == [(i,) for i in range(24)]


def test_a_row_says_all_of_its_recordings_and_ends_in_silence(corpus: Corpus, tmp_path) -> None:
    lessons = sentences(corpus, tmp_path)
    lessons.augmenter = Augmenter(Augmentation(silence_s=(0.02, 0.3)), SAMPLE_RATE)
    row = (3, 11, 5)
    batch = lessons._made([row], np.random.default_rng(0))
    words = [word for i in row for word in corpus.recordings[i].words]
    assert lessons.vocabulary.decode(batch.pieces.tolist()) == " ".join(words)
    assert int(batch.lengths[0]) * STATE / SAMPLE_RATE >= lessons.row_s(row)
    silence = batch.pcm[0, -TAIL * STATE :]
    assert not silence.any()
    assert len(with_tail(batch.pcm[0].numpy())) == len(batch.pcm[0]) + TAIL * STATE


def test_a_step_has_the_same_batch_again(corpus: Corpus, tmp_path) -> None:
    one, again = sentences(corpus, tmp_path)(7), sentences(corpus, tmp_path)(7)
    assert torch.equal(one.pcm, again.pcm)
    assert torch.equal(one.pieces, again.pieces)
    other = sentences(corpus, tmp_path, seed=1)(7)
    assert not torch.equal(one.pcm[0, :4000], other.pcm[0, :4000])


def numbered_states(corpus: Corpus, folder: Path) -> TeacherStates:
    """States that say which recording they are of, and the how manieth; for all but the first."""
    folder.mkdir()
    spans: list[tuple[int, int, int]] = []
    states: list[list[float]] = []
    for number, one in enumerate(corpus.recordings[1:], start=1):
        length = -(-(one.end - one.begin) // STATE) + TAIL
        spans.append((one.begin, len(states), length))
        states += [[float(number), float(at)] for at in range(length)]
    kept = torch.tensor(states)[..., None].bfloat16()
    (folder / "states.bf16").write_bytes(kept.view(torch.int16).numpy().tobytes())
    np.save(folder / "spans.npy", np.array(spans))
    nothing = torch.zeros(1, 2, 1)
    torch.save(
        {"offsets": nothing, "spread": nothing[0], "centre": nothing[0]}, folder / "means.pt"
    )
    return TeacherStates(folder)


def test_states_are_wanted_where_their_sound_is(corpus: Corpus, tmp_path) -> None:
    lessons = sentences(corpus, tmp_path, still=1.0)
    teacher = numbered_states(corpus, tmp_path / "states")
    lessons.sources = [Source(corpus, one, teacher) for one in corpus.recordings]
    lessons.augmenter = Augmenter(Augmentation(noisy=0, gain_db=(0, 0), telephone=0), SAMPLE_RATE)
    batch = lessons._made([(3, 0, 5), (7,)], np.random.default_rng(0))
    assert (
        not batch.taught[1]
        .logical_and(torch.arange(batch.taught.shape[1]) >= batch.lengths[1])
        .any()
    )
    row, at = batch.taught.nonzero().unbind(1)
    assert len(row) == len(batch.wanted)
    assert set(batch.wanted[:, 0, 0].tolist()) == {3.0, 5.0, 7.0}
    for place, (number, count) in zip(
        zip(row.tolist(), at.tolist(), strict=True), batch.wanted[..., 0].tolist(), strict=True
    ):
        whole = np.pad(corpus.audio(corpus.recordings[int(number)]), (0, TAIL * STATE))
        heard = batch.pcm[place[0], place[1] * STATE : (place[1] + 1) * STATE]
        wanted = whole[int(count) * STATE : (int(count) + 1) * STATE]
        np.testing.assert_allclose(heard[: len(wanted)], wanted, atol=1e-6)
    last = int(batch.lengths[0]) - 1  # the silence after the last recording has its states
    assert bool(batch.taught[0, last])


def test_sound_without_text_is_heard_for_its_states_only(corpus: Corpus, tmp_path) -> None:
    teacher = numbered_states(corpus, tmp_path / "states")
    lessons = sentences(corpus, tmp_path, still=0.0)
    deaf = [replace(one, words=()) for one in corpus.recordings[:3]]
    told = [Source(corpus, one, teacher) for one in corpus.recordings[3:6]]
    every = [*told, *(Source(corpus, one, teacher) for one in deaf), Source(corpus, deaf[1])]
    made = Sentences(every, lessons.vocabulary, batch_s=99.0, noise=None, rooms=None, still=0.0)
    assert len(made.sources) == 5  # without the first, which has no states, and the last
    assert sorted(made._rows(np.random.default_rng(0)), key=min)[1] in {(3, 4), (4, 3)}
    batch = made(0)
    assert sorted(batch.counts > 0) == [False, True]
    assert bool(batch.taught.any(1)[batch.counts == 0])
    assert not batch.taught.any(1)[batch.counts > 0]  # another speed has no states


def test_texts_come_back_out_of_their_pieces(corpus: Corpus, tmp_path) -> None:
    lessons = sentences(corpus, tmp_path)
    batch = lessons(0)
    assert int(batch.counts.sum()) == len(batch.pieces)
    assert int(batch.pieces.min()) >= NUM_SPECIAL
    rows = torch.split(batch.pieces, batch.counts.tolist())
    spaced = [torch.stack([row, torch.zeros_like(row)], dim=1).flatten() for row in rows]
    texts = {text_of(row, lessons.vocabulary) for row in spaced}
    left = " ".join(texts)
    for text in sorted(WORDS, key=len, reverse=True):
        left = left.replace(text, "")
    assert not left.strip()


def test_what_is_said_counts_runs_once(tmp_path: Path) -> None:
    vocabulary = make_vocabulary([text for text in WORDS for _ in range(20)], PIECES, tmp_path)
    ids = vocabulary.encode("three")
    spaced = [0, 0] + [i for one in ids for i in (one, one, 0)]
    assert text_of(torch.tensor(spaced), vocabulary) == "three"


def test_crutches_are_taken_away_step_by_step() -> None:
    every = [aids_at(progress) for progress in np.linspace(0, 1, 101)]
    seen = [one.ahead for one in every]
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {ahead for _, ahead in AHEAD}
    places = [one.places for one in every]
    assert places == sorted(places, reverse=True)
    turned = [one.turned for one in every]
    assert turned == sorted(turned)
    assert every[0] == AttentionAids(10_000, 1.0, 0.0)
    assert every[-1] == AttentionAids(0, 0.0, 1.0)


def test_stripes_hide_some_and_leave_most() -> None:
    torch.manual_seed(0)
    spectra = torch.randn(4, 80, 402)
    hidden = hidden_stripes(spectra)
    changed = (hidden != spectra).float().mean()
    assert 0.05 < changed < 0.6


def test_another_throat_moves_a_tone_by_its_factor() -> None:
    at = torch.arange(STATE * 10) / SAMPLE_RATE
    mel = WhisperMel()
    for factor in (0.9, 1.0, 1.1):
        tones = [700.0, 2000.0, 5000.0]
        spectra = mel(torch.stack([0.1 * torch.sin(2 * np.pi * hertz * at) for hertz in tones]))
        moved = warped(spectra, torch.full((3,), factor))[..., 20].argmax(1)
        wanted = mel(torch.stack([0.1 * torch.sin(2 * np.pi * factor * f * at) for f in tones]))
        assert (moved - wanted[..., 20].argmax(1)).abs().max() <= 1, factor
    assert torch.allclose(warped(spectra, torch.ones(3)), spectra, atol=1e-4)


def test_every_disguise_is_another(monkeypatch) -> None:
    torch.manual_seed(0)
    spectra = torch.randn(1, 80, 40).expand(8, -1, -1)
    monkeypatch.setattr(disguise_room, "hidden_stripes", lambda spectra: spectra)
    rows = disguised(spectra)
    assert rows.shape == spectra.shape
    assert len({tuple(row.flatten().tolist()) for row in rows}) == 8


def test_it_learns(corpus: Corpus, tmp_path, monkeypatch) -> None:
    """Five texts, one rising tone each, which then say them."""
    monkeypatch.setattr("recipes.english.trunk.READER_LAYERS", 2)
    lessons = sentences(corpus, tmp_path)
    torch.manual_seed(0)
    at = np.arange(30 * STATE) / SAMPLE_RATE
    rows = [np.sin(2 * np.pi * (low + 300 * at) * at) for low in (200, 500, 900, 1600, 2900)]
    pcm, lengths = side_by_side([0.2 * row.astype(np.float32) for row in rows])
    spelled = [lessons.vocabulary.encode(text) for text in WORDS]
    batch = replace(
        lessons(0), pcm=pcm, lengths=lengths,
        pieces=torch.tensor([i for one in spelled for i in one]),
        counts=torch.tensor([len(one) for one in spelled]),
    )  # fmt: skip
    model = trunk(PIECES).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(900):
        loss = both_losses(model, batch, AttentionAids(30), None)["loss"]
        if loss < 0.2:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        best = model.eval()(pcm, lengths, AttentionAids(30)).argmax(-1)
    texts = [text_of(row, lessons.vocabulary) for row in best]
    wrong = sum(character_errors(wanted, text) for wanted, text in zip(WORDS, texts, strict=True))
    assert wrong < 0.2 * sum(map(len, WORDS)), texts


def taught_batch(model: Trunk, corpus: Corpus, folder: Path) -> Batch:
    """A batch in which the model already gives the wanted states: two rows of noise, one of them
    without text."""
    lessons = sentences(corpus, folder)
    pcm, lengths = side_by_side([noise(30, 1), noise(24, 2)])
    with torch.no_grad():
        states = model.states(model.spectra(pcm), lengths, AttentionAids())
        half, read = model.read(states, lengths, AttentionAids())
    taught = torch.arange(30) < lengths[:, None]
    pieces = torch.tensor(lessons.vocabulary.encode("yes no"))
    counts = torch.tensor([len(pieces), 0])
    return Batch(pcm, lengths, pieces, counts, taught, torch.stack([half, read], 2)[taught])


def second(weight: float) -> Second:
    nobody: TeacherStates = None  # pyright: ignore
    return Second((weight, 0.0), torch.full((2, DIM), 2.0), nobody)


def test_the_teachers_states_are_a_second_target(corpus: Corpus, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gate_room, "disguised", lambda spectra: spectra)
    model = trunk(PIECES)
    batch = taught_batch(model, corpus, tmp_path)
    found = both_losses(model, batch, AttentionAids(), second(3.0), 0.0)
    assert found["half states"] < 1e-3
    assert found["last states"] < 1e-3
    far = replace(batch, wanted=batch.wanted + torch.tensor([1.0, 4.0])[:, None])
    off = both_losses(model, far, AttentionAids(), second(3.0), 0.0)
    assert off["half states"] == pytest.approx(0.25, abs=0.01)  # in units of the spread
    assert off["last states"] == pytest.approx(4.0, abs=0.1)
    assert float(off["loss"].detach() - found["loss"].detach()) == pytest.approx(
        3 * 4.25 / 2, abs=0.1
    )
    late = both_losses(model, far, AttentionAids(), second(3.0), 2 / 3)
    assert float(late["loss"].detach() - found["loss"].detach()) == pytest.approx(4.25 / 2, abs=0.1)
    plain = both_losses(model, far, AttentionAids(), None)
    assert plain.keys() == {"loss", "spelled"}


def test_a_row_without_text_spells_nothing(corpus: Corpus, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gate_room, "disguised", lambda spectra: spectra)
    model = trunk(PIECES)
    batch = taught_batch(model, corpus, tmp_path)
    louder = replace(batch, pcm=batch.pcm * torch.tensor([[1.0], [3.0]]))
    one, two = (both_losses(model, some, AttentionAids(), second(1.0)) for some in (batch, louder))
    assert one["spelled"] == two["spelled"]
    assert one["last states"] != two["last states"]
    untold = replace(batch, counts=torch.zeros(2, dtype=torch.int64), pieces=batch.pieces[:0])
    assert both_losses(model, untold, AttentionAids(), second(1.0))["spelled"] == 0.0


def test_what_is_left_of_the_states(corpus: Corpus, tmp_path) -> None:
    model = trunk()
    recordings = corpus.recordings[:20]

    class Theirs:
        def __init__(self, add: float) -> None:
            self.add, self.spans = add, {one.begin: (0, 0) for one in recordings[1:]}

        def of(self, one: Recording) -> torch.Tensor:
            assert one.begin in self.spans
            pcm, lengths = side_by_side([with_tail(corpus.audio(one))])
            with torch.no_grad():
                states = model.states(model.spectra(pcm), lengths, AttentionAids())
                both = torch.stack(model.read(states, lengths, AttentionAids()), 2)[0]
            return both + self.add * both.std(0) * torch.randn(both.shape)

    for add, least, most in ((0.0, 0.99, 1.0), (1.0, 0.3, 0.6)):
        found = left_of_states(model, corpus, {"all": recordings}, Theirs(add), AttentionAids())  # pyright: ignore
        assert found.keys() == {"all half states", "all last states"}
        assert all(least < share <= most for share in found.values()), found


def test_the_heads_learn_first_and_alone(corpus: Corpus, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gate_room, "_HEAD_ROUNDS", 40)
    model = trunk(PIECES)
    lessons = sentences(corpus, tmp_path)
    batches = [lessons(step) for step in range(3)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        first = both_losses(model, batches[0], AttentionAids(10_000, 1.0, 0.0), None)
    begin_head(model, batches, AttentionAids(10_000, 1.0, 0.0))
    with torch.no_grad():
        then = both_losses(model, batches[0], AttentionAids(10_000, 1.0, 0.0), None)
    assert then["spelled"] < 0.7 * first["spelled"]
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert {name.split(".")[0] for name in changed} == {"near", "head"}


def test_word_errors_of_a_deaf_model_are_all(corpus: Corpus, tmp_path) -> None:
    lessons = sentences(corpus, tmp_path)
    model = trunk(PIECES)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        model.head.bias[0] = 5.0
    found = error_rates(
        model, corpus, {"en-read": corpus.recordings[:5]}, lessons.vocabulary, AttentionAids()
    )
    assert found == {"en-read": 1.0, "en-read letters": 1.0}


def text_folder(folder: Path) -> Path:
    (folder / "text").mkdir(parents=True)
    lines = [f"Sentence number {word} is said here." for word in ("one", "two", "three", "four")]
    with gzip.open(folder / "text" / "sentences.en.txt.gz", "wt") as out:
        out.write("\n".join([*lines, "Too short."]) + "\n")
    return folder


def test_sentences_come_once_in_the_order_of_the_seed(tmp_path: Path) -> None:
    data = text_folder(tmp_path)
    every = list(sentences_of(data, 1))
    assert len(set(every)) == len(every) == 4
    assert "Too short." not in every
    assert every == list(sentences_of(data, 1))
    assert any(every != list(sentences_of(data, seed)) for seed in range(2, 6))


class Pico:
    """A voice that hums."""

    def speak(self, text: str, voice: str, speed: float, pitch: float) -> bytes:
        at = np.arange(16_000) / 16_000
        return (9000 * np.sin(2 * np.pi * 200 * pitch * at)).astype("<i2").tobytes()


def test_sentences_are_said_until_there_is_enough(tmp_path: Path, monkeypatch) -> None:
    data = text_folder(tmp_path / "data")
    monkeypatch.setitem(sys.modules, "py_nanotts", SimpleNamespace(NanoTTS=Pico))
    monkeypatch.setattr("recipes.english.speak._FLITE", 0.0)
    made = build_said(data, tmp_path / "said", hours=1, jobs=1)
    assert len(made.recordings) == 4  # all that there are
    assert {len(one.words) for one in made.recordings} == {6}
    for one in made.recordings:
        assert one.split == "train"
        assert one.seconds == pytest.approx(1.0, abs=0.01)
        assert 0.1 < np.abs(made.audio(one)).max() < 0.5
    monkeypatch.delitem(sys.modules, "py_nanotts")
    assert build_said(data, tmp_path / "said", hours=1).recordings == made.recordings


def test_a_missing_voice_is_told(tmp_path: Path, monkeypatch) -> None:
    data = text_folder(tmp_path / "data")
    monkeypatch.setitem(sys.modules, "py_nanotts", None)
    monkeypatch.setattr("recipes.english.speak._FLITE", 0.0)
    with pytest.raises(ConfigError, match="pip install py-nanotts"):
        build_said(data, tmp_path / "said", hours=0.001, jobs=1)


def recorded(data: Path, split: str, count: int) -> None:
    rows: list[str] = []
    for number in range(count):
        name = f"{split}-{number}.wav"
        with wave.open(str(data / name), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(SAMPLE_RATE)
            out.writeframes((noise(20, number) * 9000).astype("<i2").tobytes())
        row = {
            "file": name, "text": WORDS[number % len(WORDS)], "language": "en",
            "speaker": f"{split}{number}", "group": "en-read" if number % 2 else "en-l2",
        }  # fmt: skip
        rows.append(json.dumps(row))
    (data / f"{split}.jsonl").write_text("\n".join(rows) + "\n")


def given_to_a_run(folder: Path) -> tuple[Path, Path]:
    """A folder of recordings, and a wheel with a teacher."""
    data = folder / "data"
    data.mkdir()
    recorded(data, "train", 40)
    recorded(data, "dev", 4)
    wheel = folder / "teacher.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x/data/model.bin.part1", as_ctranslate2(teacher_of(trunk())))
    return data, wheel


@torch.no_grad()
def test_small_weights_are_nearly_the_same(tmp_path: Path) -> None:
    made = trunk()
    made.head.weight[3] = 0.0
    made.near.weight[2, 0, 0] = 500.0  # must not make the others of its row coarse
    write_small(made.state_dict(), tmp_path / "small.safetensors")
    found = read_weights(tmp_path / "small.safetensors")
    assert found.keys() == made.state_dict().keys()
    for name, value in made.state_dict().items():
        assert found[name].shape == value.shape
        width = 1 if value.dim() < 2 else 16 if value[0].numel() % 16 == 0 else value[0].numel()
        most = value.abs().view(-1, width).amax(1)
        assert torch.all((found[name] - value).abs().view(-1, width).amax(1) <= most / 240)
    torch.save(made.state_dict(), tmp_path / "trunk.pt")
    size = (tmp_path / "trunk.pt").stat().st_size
    assert (tmp_path / "small.safetensors").stat().st_size < 0.3 * size
    assert read_weights(tmp_path / "trunk.pt").keys() == found.keys()
    (tmp_path / "small.safetensors").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"small\.safetensors holds no weights"):
        read_weights(tmp_path / "small.safetensors")


def test_the_gate_trains_resumes_and_measures(tmp_path: Path, monkeypatch) -> None:
    data, wheel = given_to_a_run(tmp_path)
    monkeypatch.setattr(gate_room, "NUM_PIECES", PIECES)
    monkeypatch.setattr(gate_room, "trunk_config", lambda: trunk_config(DIM, LAYERS))
    monkeypatch.setattr("recipes.english.states.LAYERS", (LAYERS + 2, LAYERS + READER_LAYERS))
    gate = Gate(
        data, tmp_path / "out", (wheel,), budget_s=0.5, said_hours=0, batch_s=16.0, still_batches=2
    )
    found = run_gate(gate)
    parts = ("", " letters", " half states", " last states")
    assert found.keys() == {f"{name}{part}" for name in ("en-read", "en-l2") for part in parts}
    lines = [json.loads(one) for one in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["ahead"] == 0
    again = run_gate(gate)  # at its end: only measured
    assert again == found
    weights = torch.load(tmp_path / "out" / "trunk.pt", weights_only=True)
    assert weights.keys() == trunk(PIECES).state_dict().keys()
    kept = tmp_path / "kept"
    kept.mkdir()
    write_small(weights, kept / "small.safetensors")
    texts = [text for number, text in enumerate(WORDS) for _ in range(20 + 9 * number)]
    theirs = make_vocabulary(texts, PIECES, kept)
    own = Vocabulary.load(gate.out / f"vocabulary-{PIECES}.model")
    assert len(theirs) == len(own)
    assert theirs.source != own.source
    further = replace(
        gate, out=tmp_path / "further", start=kept / "small.safetensors", wheels=(), taught=None
    )
    for one in (further, replace(further, out=tmp_path / "seeing", always=3)):
        run_gate(one)
        lines = [json.loads(line) for line in (one.out / "log.jsonl").read_text().splitlines()]
        aids = tuple(lines[-1][name] for name in ("ahead", "places", "turned"))
        assert aids == (one.always, 0.0, 1.0)
        name = f"vocabulary-{PIECES}.model"
        assert (one.out / name).read_bytes() == (kept / name).read_bytes() == theirs.source


def test_what_is_kept_of_a_run_has_its_vocabulary(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("recipes.english.__main__.NUM_PIECES", PIECES)
    (tmp_path / "run").mkdir()
    torch.save(trunk(PIECES).state_dict(), tmp_path / "run" / "trunk.pt")
    wanted = make_vocabulary(["abcab", "cabba"] * 99, PIECES, tmp_path / "run")
    for given in ("run/trunk.pt", "kept/one.safetensors"):
        small = tmp_path / "kept" / "one.safetensors"
        result = CliRunner().invoke(
            english_commands.app, ["small", str(tmp_path / given), str(small)]
        )
        assert result.exit_code == 0, result.output
        found = small.parent / f"vocabulary-{PIECES}.model"
        assert found.read_bytes() == wanted.source


def test_states_are_kept_without_what_is_due_to_the_place(corpus: Corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.english.states.LAYERS", (1, 4))
    monkeypatch.setattr("recipes.english.states._FEWEST", 20)
    teacher = TeacherEncoder(teacher_of(trunk()))
    kept = build_states(teacher, corpus, corpus.recordings, tmp_path / "states")
    one = corpus.recordings[4]
    pcm, lengths = side_by_side([with_tail(corpus.audio(one))])
    with torch.no_grad():
        every = teacher.every(WhisperMel()(pcm), lengths, Without(pairs=False))
    pairs = [every[layer][0].unflatten(0, (-1, 2)).mean(1) for layer in (0, 3)]
    whole = torch.stack(pairs, 1)
    at = torch.arange(len(whole)).clamp(max=len(kept.offsets) - 1)
    assert (kept.of(one) + kept.offsets[at] - whole).abs().mean() < 0.02
    every_one = [kept.of(one) for one in corpus.recordings]
    for place in (0, 10):
        mean = torch.stack([some[place] for some in every_one]).mean(0)
        torch.testing.assert_close(mean, kept.centre, rtol=0, atol=0.02)
    spread = torch.cat(every_one).sub(kept.centre).square().mean(0).sqrt()
    torch.testing.assert_close(spread, kept.spread, rtol=0.05, atol=1e-3)
    again = build_states(None, corpus, [], tmp_path / "states")  # pyright: ignore
    assert torch.equal(again.of(one), kept.of(one))
