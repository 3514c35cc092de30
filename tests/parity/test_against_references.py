"""Equal to moshi and to transformers over many windows: tiny and, `heavy`, at the 1B's shape.

With KIKU_PARITY_REPORT=FILE the measured differences are appended there (see docs/parity.md).
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity import references as ref
from tests.parity.references import Network, Said

pytestmark = pytest.mark.filterwarnings("ignore")

Measured = Callable[[str, float], None]

SECONDS = 26.0
NUM_TOKENS = 200


@pytest.fixture(
    scope="module",
    params=["tiny", pytest.param("1b", marks=[pytest.mark.heavy, pytest.mark.timeout(3600)])],
)
def network(request: pytest.FixtureRequest) -> Network:
    if request.param == "tiny":
        return ref.random_network(ref.tiny_config(num_pause_heads=4))
    # The real shape but for the decoder's window, so that 200 tokens cross it.
    return ref.random_network(ref.one_b_config(window=40, num_pause_heads=4))


@pytest.fixture
def measured(request: pytest.FixtureRequest, network: Network) -> Measured:
    """Note down a number, for the page in docs."""
    report = os.environ.get("KIKU_PARITY_REPORT")

    def note(what: str, value: float) -> None:
        if report:
            shape = "tiny" if network.config.lm.transformer.dim < 1000 else "1b"
            with Path(report).open("a") as file:
                file.write(json.dumps({"shape": shape, "what": what, "value": value}) + "\n")

    return note


@pytest.fixture(scope="module")
def pcm(network: Network) -> Tensor:
    return ref.noise(network, SECONDS)


@pytest.fixture(scope="module")
def codes(network: Network, pcm: Tensor) -> Tensor:
    return ref.kiku_codes(network, pcm, frames_per_call=10_000)


@pytest.fixture(scope="module")
def said(network: Network, codes: Tensor) -> Said:
    return ref.kiku_tokens(network, codes[..., :NUM_TOKENS])


@pytest.fixture(scope="module")
def hf_model(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("hf")
    yield ref.transformers_model(network, folder)
    shutil.rmtree(folder)  # gigabytes, which pytest would keep


@pytest.fixture(scope="module")
def lm(network: Network) -> Any:
    return ref.moshi_lm(network)


def test_codes_equal_transformers(
    hf_model: Any, pcm: Tensor, codes: Tensor, measured: Measured
) -> None:
    with torch.no_grad():
        theirs = hf_model.codec_model.encode(pcm).audio_codes
    measured("codes, whole file, transformers: differing", int((codes != theirs).sum()))
    measured("codes compared", codes.numel())
    assert len(set(codes[0, 0].tolist())) > 5, "codes that do not vary prove nothing"
    assert torch.equal(codes, theirs)


def test_codes_equal_moshi_offline(
    network: Network, pcm: Tensor, codes: Tensor, measured: Measured
) -> None:
    with torch.no_grad():
        theirs = ref.moshi_codec(network).encode(pcm)
    measured("codes, whole file, moshi: differing", int((codes != theirs).sum()))
    assert torch.equal(codes, theirs)


def test_codes_frame_by_frame_equal_the_offline_references(
    network: Network, pcm: Tensor, hf_model: Any, measured: Measured
) -> None:
    with torch.no_grad():
        theirs = hf_model.codec_model.encode(pcm).audio_codes
    for frames in (1, 7, 100):
        cut = ref.kiku_codes(network, pcm, frames_per_call=frames)
        measured(f"codes, {frames} frames a call: differing", int((cut != theirs).sum()))
        assert torch.equal(cut, theirs)


def test_moshi_streaming_differs_past_its_window(network: Network, pcm: Tensor) -> None:
    """Why kiku follows the offline references: moshi's ring loses a key once it is full."""
    mimi = ref.moshi_codec(network)
    size = network.config.frame_size
    with torch.no_grad(), mimi.streaming(1):
        streamed = torch.cat([mimi.encode(frame) for frame in pcm.split(size, dim=-1)], dim=-1)
    with torch.no_grad():
        offline = mimi.encode(pcm)
    window = network.config.codec.transformer.window // 2
    assert torch.equal(streamed[..., :window], offline[..., :window])
    assert not torch.equal(streamed, offline)


def test_logits_equal_both(
    network: Network,
    codes: Tensor,
    said: Said,
    lm: Any,
    hf_model: Any,
    measured: Measured,
) -> None:
    read = ref.columns(network, codes[..., :NUM_TOKENS], said.tokens)
    moshi = ref.moshi_logits(lm, read)
    theirs = ref.transformers_logits(hf_model, read)[:, : said.logits.shape[1]]
    measured("logits, largest", float(said.logits.abs().max()))
    measured("logits, moshi: largest difference", float((moshi - said.logits).abs().max()))
    measured("logits, transformers: largest difference", float((theirs - said.logits).abs().max()))
    torch.testing.assert_close(moshi, said.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(theirs, said.logits, atol=1e-4, rtol=0)


def test_logits_in_one_block_equal_step_by_step(
    network: Network, codes: Tensor, said: Said
) -> None:
    state = network.lm.init_state(1, "cpu", torch.float32)
    read = ref.columns(network, codes[..., :NUM_TOKENS], said.tokens)
    with torch.no_grad():
        block = network.lm(read, state, ref.all_active(1)).logits[0]
    torch.testing.assert_close(block, said.logits, atol=1e-4, rtol=0)


def test_tokens_and_pauses_equal_moshi(
    codes: Tensor, said: Said, lm: Any, measured: Measured
) -> None:
    assert len(set(said.tokens)) > 10, "tokens that do not vary prove nothing"
    tokens, pauses = ref.moshi_tokens(lm, codes[..., :NUM_TOKENS])
    assert pauses is not None
    assert said.pauses is not None
    measured("tokens compared", len(tokens))
    measured("tokens, moshi: differing", _differing(tokens, said.tokens))
    measured("pauses, moshi: largest difference", float((pauses - said.pauses).abs().max()))
    assert tokens == said.tokens
    torch.testing.assert_close(pauses, said.pauses, atol=1e-5, rtol=0)


def test_tokens_equal_transformers(
    pcm: Tensor, said: Said, hf_model: Any, measured: Measured
) -> None:
    tokens = ref.transformers_tokens(hf_model, pcm, NUM_TOKENS)
    measured("tokens, transformers: differing", _differing(tokens, said.tokens))
    assert tokens == said.tokens


def _differing(a: list[int], b: list[int]) -> int:
    assert len(a) == len(b)
    return sum(x != y for x, y in zip(a, b, strict=True))
