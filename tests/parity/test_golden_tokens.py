"""The published 2.6B says, of four clips, the tokens that are known of it.

For whoever has the weights and the clips: KIKU_WEIGHTS is a folder or repository of stt-2.6b-en in
any layout; KIKU_GOLDEN_CLIPS a folder with the clips of the file, as <id>.wav, .flac or .npy
(24 kHz); KIKU_GOLDEN_TOKENS the JSON file itself where it does not lie in the shared folder.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiku
from kiku.audio import read_chunks

pytestmark = pytest.mark.weights


def _needed(variable: str, what: str) -> str:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"no {what}; say where they are in {variable}")
    return value


@pytest.fixture(scope="module")
def golden(repo_root: Path) -> dict[str, Any]:
    default = repo_root.parent / "shared" / "spec" / "golden_tokens_2.6b.json"
    path = Path(os.environ.get("KIKU_GOLDEN_TOKENS", default))
    if not path.is_file():
        pytest.skip(f"no golden tokens in {path}; say where they are in KIKU_GOLDEN_TOKENS")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def recognizer() -> kiku.Recognizer:
    return kiku.load(_needed("KIKU_WEIGHTS", "weights of the 2.6B"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("index", range(4))
def test_golden_tokens(index: int, recognizer: kiku.Recognizer, golden: dict[str, Any]) -> None:
    folder = Path(_needed("KIKU_GOLDEN_CLIPS", "the four clips"))
    clips = sorted(path for path in folder.iterdir() if path.suffix in (".wav", ".flac", ".npy"))
    assert len(clips) == 4, "the clips of the file, in the order of their ids"
    rate = recognizer.config.sample_rate
    if clips[index].suffix == ".npy":
        samples = np.load(clips[index]).astype(np.float32)
    else:
        samples = np.concatenate(list(read_chunks(clips[index], rate)))
    padded = np.concatenate([np.zeros(rate), samples, np.zeros(round(3.5 * rate))])
    tokens = _without_end(recognizer.tokens(padded.astype(np.float32)).tolist())
    expected = [_without_end(golden["tokens"][index])]
    if index == 2:  # the one place where both ways of computing q, k, v are known to part
        expected.append([*expected[0][:158], 3, 0, 269, *expected[0][161:]])
    assert tokens in expected


def _without_end(tokens: list[int]) -> list[int]:
    """Without the silence at the end, of which the batch's longest clip decides."""
    end = max(i for i, token in enumerate(tokens) if token != 3)
    return tokens[: end + 1]
