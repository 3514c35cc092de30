"""Tokens of the GPU's engine beside those of PyTorch on the processor, and the acceptance of the
demo model. Parts of `gpu.py`."""

import wave
from pathlib import Path

import numpy as np
import torch
from gpu_job import Part
from gpu_models import SMALL, attention_of, drawing, frames_of, random_model

from kiku.codec import MimiEncoder
from kiku.config import ModelConfig
from kiku.engine.core import SlotEngine
from kiku.engine.cuda import GpuOptions, cuda_engine
from kiku.engine.torch import torch_engine
from kiku.lm import LM

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits.wav"

CASES = {
    "float32": (torch.float32, "float32", 0.0),
    "float32, drawn": (torch.float32, "float32", 0.5),
    "bfloat16": (torch.bfloat16, "bfloat16", 0.0),
    "keys in float8": (torch.bfloat16, "float8", 0.0),
}
"""What is compared: the dtype of weights, that of keys, and the temperature."""


def correct(part: Part) -> None:
    """A row for each model and precision."""
    # Several precisions have the same reference, and the processor is slow.
    references: dict[tuple[str, float], np.ndarray] = {}

    def one(model: str, kind: str) -> None:
        temperature = CASES[kind][2]
        theirs = references.get((model, temperature))
        if theirs is None:
            _, codec, lm = _model(model)
            reference = torch_engine(codec, lm, slots=3, device="cpu")
            theirs = tokens_of(reference, _sound(part, model, reference.frame_size), temperature)
            references[model, temperature] = theirs
        engine = engine_of(part, model, kind)
        ours = tokens_of(engine, _sound(part, model, engine.frame_size), temperature)
        part.tell("correct", model=model, precision=kind, attention=attention_of(engine),
                  frames=int(ours.size), same=round(float((ours == theirs).mean()), 5))  # fmt: skip

    for model in part.job["models"]:
        for kind in CASES:
            part.attempt(lambda model=model, kind=kind: one(model, kind))


def engine_of(part: Part, model: str, kind: str) -> SlotEngine:
    """The GPU's engine that is compared."""
    config, codec, lm = _model(model)
    dtype, kv, _ = CASES[kind]
    options = GpuOptions(kv=kv, guess=config.pad_id, graphs=part.graphs)
    return cuda_engine(codec, lm.to(dtype), slots=3, device=part.device, options=options)


def _model(name: str) -> tuple[ModelConfig, MimiEncoder, LM]:
    """Each time anew: an engine moves the networks to its device."""
    if name == "tiny":
        return SMALL, *random_model(SMALL, torch.float32, "cpu")
    from kiku.checkpoint import load

    loaded = load(name, dtype="float32")
    return loaded.config, loaded.codec, loaded.lm


def _sound(part: Part, model: str, frame_size: int) -> np.ndarray:
    count = min(120, 8 * part.steps)
    return demo_sound(frame_size)[:count] if model == "demo" else frames_of(SMALL, count) * 3


def tokens_of(engine: SlotEngine, sound: np.ndarray, temperature: float) -> np.ndarray:
    """Three slots that hear the same, out of step, in pieces of several lengths."""
    slots = [engine.open(drawing(temperature, seed))[0] for seed in range(3)]
    told: list[list[int]] = [[], [], []]
    at, turn = [0, 0, 0], 0
    while min(at) < len(sound):
        counts = [min((1, 1, 16, 5, 4)[(turn + i) % 5], len(sound) - at[i]) for i in range(3)]
        ready = [i for i in range(3) if counts[i]]
        frames = np.concatenate([sound[at[i] : at[i] + counts[i]] for i in ready])
        out = engine.step([slots[i] for i in ready], frames, [counts[i] for i in ready])
        for place, i in enumerate(ready):
            told[i] += out.row(place).tokens.tolist()
            at[i] += counts[i]
        turn += 1
    return np.array(told)


def demo_sound(frame_size: int) -> np.ndarray:
    """[T, frame_size] of the example, at 24 kHz however it is stored."""
    with wave.open(str(EXAMPLE)) as file:
        assert file.getsampwidth() == 2
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)
        pcm = pcm.reshape(-1, file.getnchannels()).mean(-1) / 32768
        rate = file.getframerate()
    wanted = np.arange(int(len(pcm) * 24_000 / rate)) * rate / 24_000
    pcm = np.interp(wanted, np.arange(len(pcm)), pcm).astype(np.float32)
    return pcm[: len(pcm) // frame_size * frame_size].reshape(-1, frame_size)


def acceptance(device: str) -> tuple[float, str]:
    """Frames that a pass brings in blocks of 16, on real speech, and by which attention."""
    config, codec, lm = _model("demo")
    options = GpuOptions(guess=config.pad_id, graphs=False)
    engine = cuda_engine(codec, lm, device=device, options=options)
    slot, _ = engine.open()
    sound = demo_sound(engine.frame_size)
    before = engine.num_passes
    for at in range(0, len(sound), 16):
        part = sound[at : at + 16]
        engine.step([slot], part, [len(part)])
    return round(len(sound) / (engine.num_passes - before), 2), attention_of(engine)
