"""The whole recipe on a handful of made recordings: from a folder of sound to a model that loads.

What it learns in seconds is nothing; that every stage finds what the one before left is the point.
"""

import ctypes
import gzip
import json
import shutil
import wave
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import kiku
from kiku.config import ModelConfig
from recipes.demo import make, speak, voices
from recipes.demo.corpus import VOCABULARY
from recipes.demo.voices import espeak
from tests.recipes.test_decoder import lm_config
from tests.recipes.test_quick import config as codec_config

SECONDS = make.Budgets(
    align=0.5, trunk=0.5, front=0.5, joint=0.5, tuned=0.5, features_h=0.01, settled=0.5, decoder=0.5
)
SENTENCES = (
    "the green house stood near a river",
    "we go up the hill at nine",
    "she said no and left",
    "turn right on the second street",
    "it was late in the evening",
    "they read a long letter",
)


def has_voices() -> bool:
    try:
        ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        return False
    return shutil.which("flite") is not None


pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not has_voices(), reason="espeak-ng or flite is not installed"),
]


def write_data(data: Path) -> None:
    """Every word once and some sentences, by two voices in train and by one in dev."""
    (data / "speech").mkdir(parents=True)

    def said(text: str, voice: str, group: str, language: str) -> str:
        path = data / "speech" / f"{voice}-{text.replace(' ', '-')}.wav"
        samples = np.pad(espeak().say(text, voice).samples, 4800)
        with wave.open(str(path), "wb") as out:
            out.setparams((1, 2, 24_000, 0, "NONE", ""))
            out.writeframes((samples * 32767).astype("<i2").tobytes())
        row = {"file": f"speech/{path.name}", "text": text, "speaker": voice, "group": group}
        return json.dumps({**row, "language": language})

    for split, speakers in {"train": ("en+f2", "en-us"), "dev": ("en-us+m5",)}.items():
        rows = [said(word, who, "en-words", "en") for who in speakers for word in VOCABULARY]
        rows += [said(text, who, "en-an4", "en") for who in speakers for text in SENTENCES]
        rows += [said("la maison", who, "fr-verse", "fr") for who in speakers]
        (data / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    (data / "text").mkdir()
    with gzip.open(data / "text/sentences.en.txt.gz", "wt") as out:
        out.write("\n".join(SENTENCES))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recordings, and the recipe with tiny networks and few voices."""
    data = tmp_path / "data"
    write_data(data)
    monkeypatch.setattr(make, "demo_codec", codec_config)
    model = ModelConfig(codec_config(), lm_config(), text_delay_s=0.5)
    monkeypatch.setattr(make, "demo_model", lambda _size: model)
    monkeypatch.setattr(make, "_SHARD", 1)
    monkeypatch.setattr(make, "_LATENT_BATCHES", 1)
    monkeypatch.setattr(voices, "VARIANTS", ("",))
    monkeypatch.setattr(voices, "HELD_OUT_VARIANTS", ("m5",))
    monkeypatch.setattr(speak, "FLITE_VOICES", ())
    monkeypatch.setattr(speak, "other_phrases", lambda *_: ("house", "green river"))
    monkeypatch.setattr(speak, "usual", partial(speak.usual, rounds=1))
    return data


def stages(folder: Path) -> set[str]:
    """The stages that a run has ended."""
    return {path.stem for path in (folder / "runs").glob("*.pt")}


def test_from_recordings_to_a_model_and_on_from_that(small: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make.make_demo(make.DemoRecipe(small, first, SECONDS), first / "demo")
    assert stages(first) == {"trunk", "front", "joint", "tuned", "settled", "decoder"}
    assert (first / "learning_curve.png").stat().st_size > 5_000
    kiku.load(first / "demo", engine="torch").transcribe(np.zeros(24_000, np.float32), rate=24_000)

    make.make_demo(make.DemoRecipe(small, second, SECONDS, first / "demo"), second / "demo")
    assert stages(second) == {"tuned", "settled", "decoder"}
    kiku.load(second / "demo", engine="torch").transcribe(np.zeros(24_000, np.float32), rate=24_000)

    # Whatever is there is used: nothing trains again.
    lines = len((second / "runs/log.jsonl").read_text().splitlines())
    make.make_demo(make.DemoRecipe(small, second, SECONDS, first / "demo"), second / "demo")
    assert len((second / "runs/log.jsonl").read_text().splitlines()) == lines

    # What stays of the start is nothing, half or all of it.
    of = {}
    for kept in (0.0, 0.5, 1.0):
        recipe = make.DemoRecipe(small, second, SECONDS, first / "demo", kept=kept)
        recipe.export(tmp_path / str(kept))
        of[kept] = load_file(tmp_path / str(kept) / "model.safetensors")
    start = load_file(first / "demo" / "model.safetensors")
    for name, tensor in start.items():
        assert np.array_equal(of[1.0][name].float(), tensor.float())
        half = (of[0.0][name].float() + tensor.float()) / 2
        np.testing.assert_allclose(of[0.5][name].float(), half, rtol=2e-2, atol=1e-4)
    assert any(not np.array_equal(of[0.0][name].float(), start[name].float()) for name in start)
