"""How the cases are spelled in the API of the day: the only file here that knows it."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import kiku
from kiku.audio import read_chunks
from kiku.engine.onnx import onnx_engine
from kiku.engine.torch import torch_engine
from kiku.graph import Weights, write_codec, write_decoder
from kiku.options import DecodingOptions, Hotword, Recovery, StreamOptions
from kiku.stream import Redecode, StreamStats, Truncate, event_to_dict
from kiku.stream.recovery import POLICIES
from tests import tiny as models
from tests.golden.cases import Case


def tiny(engine: str, *, seed: int, heads: int) -> kiku.Recognizer:
    """A random model."""
    codec, lm = models.codec(seed), models.lm(seed, heads)
    config = replace(models.model_config(), lm=models.lm_config(heads))
    if engine == "torch":
        made = torch_engine(codec, lm, slots=2, device="cpu")
    else:
        folder = Path(tempfile.mkdtemp())
        write_codec(folder, config.codec, _weights(codec), "float32")
        write_decoder(folder, config.lm, _weights(lm), "float32")
        made = onnx_engine(folder, config, slots=2, threads=1)
        shutil.rmtree(folder)
    return kiku.Recognizer(made, config, models.vocabulary(), name="tiny")


def _weights(module: torch.nn.Module) -> Weights:
    state = module.state_dict()
    return lambda name: state[name].to(torch.float32).numpy().copy()


def demo(engine: str) -> kiku.Recognizer:
    """The model that ships with kiku."""
    return kiku.load("demo", engine=engine, device="cpu", dtype="float32", slots=2, threads=1)


def samples(path: Path) -> NDArray[np.float32]:
    """[S] of a recording."""
    return np.concatenate(list(read_chunks(str(path), 24_000)))


def tokens(rec: kiku.Recognizer, sound: NDArray[np.float32]) -> list[int]:
    """Raw tokens."""
    return rec.tokens(sound).tolist()


def words(rec: kiku.Recognizer, path: Path) -> list[dict[str, Any]]:
    """Of a file."""
    return [_plain(event_to_dict(word)) for word in rec.transcribe(path)]


class _Once:
    """Asks for something at one frame."""

    def __init__(self, action: Truncate | Redecode, frame: int) -> None:
        self._action, self._frame = action, frame

    def decide(self, stats: StreamStats) -> Truncate | Redecode | None:
        """See `RecoveryPolicy.decide`."""
        return self._action if stats.num_frames == self._frame else None


def _options(wishes: dict[str, Any]) -> StreamOptions:
    policies: list[Any] = list(POLICIES)
    if "truncate" in wishes:
        frame, frames = wishes["truncate"]
        policies.insert(0, _Once(Truncate(frames), frame))
    if "redecode" in wishes:
        frame, frames = wishes["redecode"]
        policies.insert(0, _Once(Redecode(frames, "test", "asked for"), frame))
    known = ("temperature", "top_k", "seed", "num_codebooks")
    hotwords = [Hotword(text, boost) for text, boost in wishes.get("hotwords", ())]
    return StreamOptions(
        turns=wishes.get("turns"),
        partials=wishes.get("partials", False),
        pauses=wishes.get("pauses", False),
        recovery=Recovery(policies) if wishes.get("recovery", True) else None,
        decoding=DecodingOptions(
            hotwords=hotwords, **{name: wishes[name] for name in known if name in wishes}
        ),
    )


def events(rec: kiku.Recognizer, sound: NDArray[np.float32], case: Case) -> list[dict[str, Any]]:
    """Of a stream."""
    options = _options(case.wishes)
    stream = rec.stream(options)
    for what, *how in case.script:
        if what == "push":
            stream.push(sound[how[0] : how[1]])
        elif what == "finalize":
            stream.finalize(cut=how[0])
        else:
            state = stream.save()  # with all events: none was fetched
            stream.stop()
            stream = rec.stream(options, state=state)
    stream.close()
    return [_plain(event_to_dict(event)) for event in stream.events()]


def _plain(event: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in event.items():
        if name in ("channel", "tag", "message"):  # words may change
            continue
        if isinstance(value, dict):
            value = _plain(value)
        plain[name] = list(value) if isinstance(value, tuple) else value
    return plain
