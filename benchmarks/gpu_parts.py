"""The processes that `gpu.py` measures with: one part each, rows as they come.

    python benchmarks/gpu_parts.py '{"part": "live", "shape": "1b", "kv": "bfloat16", ...}'

Weights are random and made on the device. Windows are full: the rings are filled with noise, and
every slot is said to have come further than its window.
"""

import json
import re
import sys
import time
import traceback
import wave
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kiku.checkpoint.model_shapes import SHAPES
from kiku.codec import MimiEncoder
from kiku.codec.rvq import RVQ
from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig
from kiku.decoding import SamplingParams
from kiku.engine.core import SlotEngine
from kiku.engine.cuda import CudaBackend, GpuOptions, cuda_engine
from kiku.engine.gpu.attention import attend_plainly
from kiku.engine.torch import TorchBackend, torch_engine
from kiku.errors import ConfigError
from kiku.lm import LM
from kiku.nn.rope import Rope

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits.wav"

TOO_SLOW_MS = 160.0
"""More streams are not tried where the 99th percentile of a step is beyond this."""

_DIM = dict(dim=32, num_layers=2, num_heads=2, ffn_dim=40)

SMALL = ModelConfig(
    CodecConfig(
        TransformerConfig(
            **_DIM, window=6, rope_theta=1e4, norm="layer", norm_eps=1e-5, gated=False,
            layer_scale=True, positions_per_frame=2,
        ),
        sample_rate=1000, num_filters=4, strides=(4, 10), num_codebooks=4, codebook_size=16,
        codebook_dim=8,
    ),
    LMConfig(
        TransformerConfig(
            **_DIM, window=10, rope_theta=1e5, norm="rms", norm_eps=1e-8, gated=True,
            layer_scale=False,
        ),
        text_vocab_size=19, num_codebooks=4, codebook_size=16, num_pause_heads=4,
    ),
    text_delay_s=0.5,
)  # fmt: skip
"""What is compared with the processor, and what a dry run measures."""


def config_of(shape: str) -> ModelConfig:
    """The numbers of a shape, "tiny" among them."""
    return SMALL if shape == "tiny" else SHAPES[shape]


def random_model(
    config: ModelConfig, dtype: torch.dtype, device: str, seed: int = 0
) -> tuple[MimiEncoder, LM]:
    """Both networks with weights that keep the signal alive, made where they are needed."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        codec, lm = MimiEncoder(config.codec), LM(config.lm)
    codec, lm = codec.to_empty(device=device), lm.to(dtype).to_empty(device=device)
    for network in (codec, lm):
        for name, weight in network.state_dict().items():
            if name.endswith("codebooks"):
                weight.normal_(0, 0.5)
            elif ".scale" in name or "norm" in name or weight.dim() == 1:
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.1)
            else:
                weight.normal_(0, (2.0 / weight[0].numel()) ** 0.5)
        for part in network.modules():
            if isinstance(part, Rope):
                part.fill(device)
            if isinstance(part, RVQ):
                part.refresh()
    return codec.eval().requires_grad_(False), lm.eval().requires_grad_(False)


def fill_windows(engine: SlotEngine) -> None:
    """As if every slot had heard more than its windows hold."""
    backend = engine.backend
    # The GPU engine has a stream of its own, and would not wait for what another one is given.
    inside = backend._place.entered if isinstance(backend, CudaBackend) else torch.inference_mode
    with inside():
        if isinstance(backend, CudaBackend):
            for rings in (backend._slots.rings, backend._slots.codec_rings):
                for name, kept in rings.tensors.items():
                    if kept.dtype == torch.uint8:
                        kept.random_(0, 120)  # numbers of 8 bits below 448, no NaN
                    else:
                        kept.fill_(0.001) if "scales" in name else kept.normal_(0, 0.5)
            backend._slots.read[:-1] = backend.lm_config.transformer.window + 100
            backend._slots.heard[:-1] = backend.codec_config.transformer.window + 100
        else:
            assert isinstance(backend, TorchBackend)
            for state in (backend._state.lm, backend._state.codec.transformer):
                for ring in state.rings:
                    ring.keys.normal_(0, 0.5)
                    ring.values.normal_(0, 0.5)
                state.position.fill_(state.rings[0].keys.shape[2] + 100)
            backend._positions[:] = backend.lm_config.transformer.window + 100


class Part:
    """What a part is told, and how it tells."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Of a job as in JSON."""
        self.job = job
        self.device: str = job["device"]
        self.config = config_of(job.get("shape", "tiny"))
        self.ends = time.monotonic() + job["budget_s"]
        self.steps: int = job["steps"]
        self.on_gpu = self.device.startswith("cuda")
        if self.on_gpu and torch.device(self.device).index is not None:
            # What is computed, waited for and counted without a word of where is so there.
            torch.cuda.set_device(self.device)

    def tell(self, what: str, **values: Any) -> None:
        """One row."""
        kept = ("shape", "kv", "temperature")
        named = {key: self.job[key] for key in kept if key in self.job}
        print(json.dumps({"what": what, **named, **values}), flush=True)

    def attempt(self, work: Callable[[], None]) -> None:
        """Do one of several things that a part measures. Where it fails, a row says why, and the
        next one is done."""
        try:
            work()
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            self.tell("stopped", why=f"{type(error).__name__}: {str(error).strip()}"[:400])

    def wait(self) -> None:
        """Until the device is idle."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def times(self, step: Callable[[], Any], share: float, warm: int = 10) -> dict[str, float]:
        """Milliseconds of up to `steps` calls, in at most this share of the time that is left."""
        for _ in range(min(warm, self.steps)):
            step()
        self.wait()
        ends = time.monotonic() + max(1.0, (self.ends - time.monotonic()) * share)
        taken: list[float] = []
        while len(taken) < self.steps and time.monotonic() < ends:
            started = time.perf_counter()
            step()
            taken.append((time.perf_counter() - started) * 1e3)
        p50, p99 = np.percentile(taken, [50, 99])
        return {
            "steps": len(taken), "p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3),
            "max_ms": round(max(taken), 3),
        }  # fmt: skip


def frames_of(config: ModelConfig, count: int, seed: int = 0) -> np.ndarray:
    """[count, frame_size] of noise."""
    random = np.random.default_rng(seed)
    return (random.standard_normal((count, config.frame_size)) * 0.1).astype(np.float32)


def listeners(engine: SlotEngine, temperature: float = 0.0) -> list[int]:
    """All slots, open, with full windows."""
    slots = [engine.open(drawing(temperature, seed))[0] for seed in range(engine.num_slots)]
    fill_windows(engine)
    return slots


def drawing(temperature: float, seed: int) -> SamplingParams | None:
    """How a slot picks its tokens: at temperature 0 the likeliest."""
    return SamplingParams(temperature=temperature, seed=seed) if temperature else None


def attention_of(engine: SlotEngine) -> str:
    """By what a GPU engine attends: not all heads have kernels, and these may not work here."""
    backend = engine.backend
    assert isinstance(backend, CudaBackend)
    network = backend.launches._network
    decoder, codec = (
        "plain" if keys.attend is attend_plainly else "kernels"
        for keys in (network.keys, network.codec_keys)
    )
    return decoder if decoder == codec else f"{decoder}, the codec's {codec}"


def live(part: Part) -> None:
    """One frame of n streams, whole step with all of the host's part, for each n."""
    sizes: Sequence[int] = part.job["sizes"]
    dtype = torch.float32 if not part.on_gpu else torch.bfloat16
    codec, lm = random_model(part.config, dtype, part.device)
    options: dict[str, Any] = {"kv": part.job["kv"], "sizes": (1,), "rows": tuple(sizes)}
    most, asked = max(sizes), 0
    while True:
        try:
            engine = cuda_engine(
                codec, lm, slots=most, device=part.device, options=GpuOptions(**options)
            )
            break
        except ConfigError as error:
            found = re.search(r": (\d+) do;", str(error))
            # Where as many as were said to fit do not either, one fewer would not help.
            fit = min(int(found[1]), most * 9 // 10 if asked else most - 1) if found else 0
            if fit < 1:
                raise
            part.tell("fits", streams=fit, wanted=most)
            most, asked = fit, asked + 1
            options["rows"] = tuple(n for n in sizes if n <= most)
    slots = listeners(engine, part.job.get("temperature", 0.0))
    counts = sorted({*(n for n in sizes if n <= most), most})
    for place, n in enumerate(counts):
        frames = frames_of(part.config, n)
        times = part.times(lambda n=n, frames=frames: engine.step(slots[:n], frames),
                           1.6 / (len(counts) - place + 0.6))  # fmt: skip
        memory = torch.cuda.max_memory_reserved() / 1e9 if part.on_gpu else 0.0
        name = "cuda" if part.on_gpu else "cuda, graphs off"
        part.tell("live", streams=n, engine=name, attention=attention_of(engine),
                  memory_gb=round(memory, 1), **times)  # fmt: skip
        if times["p99_ms"] > TOO_SLOW_MS:
            slow = f"the 99th percentile with {n} streams was beyond {TOO_SLOW_MS:.0f} ms"
            part.tell("stopped", streams=n, why=slow)
            break


def eager(part: Part) -> None:
    """The same with plain attention, without graphs, and the torch engine."""
    n: int = part.job["streams"]
    dtype = torch.float32 if not part.on_gpu else torch.bfloat16
    frames = frames_of(part.config, n)

    def one(name: str) -> None:
        codec, lm = random_model(part.config, dtype, part.device)
        if name == "torch":
            engine = torch_engine(codec, lm, slots=n, device=part.device)
        else:
            plain = name == "cuda, plain attention"
            options = GpuOptions(
                attention="plain" if plain else "auto", graphs=None if plain else False,
                sizes=(1,), rows=(n,),
            )  # fmt: skip
            engine = cuda_engine(codec, lm, slots=n, device=part.device, options=options)
        slots = listeners(engine)
        times = part.times(lambda engine=engine, slots=slots: engine.step(slots, frames), 0.35)
        form = {} if name == "torch" else {"attention": attention_of(engine)}
        part.tell("live", streams=n, engine=name, **form, **times)

    for name in ("torch", "cuda, plain attention", "cuda, graphs off"):
        part.attempt(lambda name=name: one(name))


def bulk(part: Part) -> None:
    """Recordings: blocks of 16 frames of n files, at the acceptance of the demo model."""
    n, block = part.job["streams"], 16
    dtype = torch.float32 if not part.on_gpu else torch.bfloat16
    codec, lm = random_model(part.config, dtype, part.device)
    options = GpuOptions(kv=part.job["kv"], sizes=(1, block), rows=(n,))
    engine = cuda_engine(codec, lm, slots=n, device=part.device, options=options)
    slots = np.array(listeners(engine))
    backend = engine.backend
    frames = frames_of(part.config, n * block).reshape(n, block, -1)
    accepted, accepted_by = acceptance(part.device)
    # A step of 16 frames reads them in its first pass; the rest are passes of the decoder alone.
    first = part.times(lambda: backend.encode(slots, frames), 0.3, warm=3)
    columns = np.zeros((n, block, 1 + part.config.lm.num_codebooks), np.int64)
    counts = np.full(n, block)

    def again() -> None:
        backend.read(slots, columns, counts, logits=True)
        backend.rewind(slots, counts)

    passed = part.times(again, 0.6, warm=3)
    more = max(0.0, block / accepted - 1)
    seconds = (first["p50_ms"] + more * passed["p50_ms"]) / 1e3
    part.tell(
        "bulk", files=n, block=block, attention=attention_of(engine), accepted=accepted,
        accepted_by=accepted_by, step_ms=first["p50_ms"], pass_ms=passed["p50_ms"],
        sound_s_per_s=round(n * block / part.config.frame_rate / seconds, 1),
    )  # fmt: skip


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
    from kiku.checkpoint import load

    loaded = load("demo", dtype="float32")
    options = GpuOptions(guess=loaded.config.pad_id, graphs=False)
    engine = cuda_engine(loaded.codec, loaded.lm, device=device, options=options)
    slot, _ = engine.open()
    sound = demo_sound(engine.frame_size)
    before = engine.num_passes
    for at in range(0, len(sound), 16):
        part = sound[at : at + 16]
        engine.step([slot], part, [len(part)])
    return round(len(sound) / (engine.num_passes - before), 2), attention_of(engine)


def correct(part: Part) -> None:
    """Tokens of the GPU's engine beside those of PyTorch on the processor."""

    def one(model: str, kind: str, dtype: torch.dtype, kv: str, temperature: float) -> None:
        config, plain_codec, plain_lm = _model(model)
        _, codec, lm = _model(model)
        count = min(120, 8 * part.steps)
        sound = (
            demo_sound(config.frame_size)[:count]
            if model == "demo"
            else frames_of(config, count) * 3
        )
        options = GpuOptions(kv=kv, guess=config.pad_id)
        wanted = torch_engine(plain_codec, plain_lm, slots=3, device="cpu")
        got = cuda_engine(codec, lm.to(dtype), slots=3, device=part.device, options=options)
        ours, theirs = (tokens_of(each, sound, temperature) for each in (got, wanted))
        part.tell("correct", model=model, precision=kind, attention=attention_of(got),
                  frames=int(ours.size), same=round(float((ours == theirs).mean()), 5))  # fmt: skip

    for model in part.job["models"]:
        for case in (
            ("float32", torch.float32, "float32", 0.0),
            ("float32, drawn", torch.float32, "float32", 0.5),
            ("bfloat16", torch.bfloat16, "bfloat16", 0.0),
            ("keys in float8", torch.bfloat16, "float8", 0.0),
        ):
            part.attempt(lambda model=model, case=case: one(model, *case))


def _model(name: str) -> tuple[ModelConfig, MimiEncoder, LM]:
    if name == "tiny":
        return SMALL, *random_model(SMALL, torch.float32, "cpu")
    from kiku.checkpoint import load

    loaded = load(name, dtype="float32")
    return loaded.config, loaded.codec, loaded.lm


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


PARTS: dict[str, Callable[[Part], None]] = {
    "correct": correct, "live": live, "eager": eager, "bulk": bulk,
}  # fmt: skip


def main(arguments: Iterable[str]) -> None:
    """Run the part that a job names."""
    (job,) = (json.loads(one) for one in arguments)
    if job["part"] == "attention":
        import gpu_attention

        PARTS["attention"] = gpu_attention.attention
    if job["part"] in ("moshi", "transformers"):
        import gpu_peers  # needs them installed

        PARTS.update(gpu_peers.PARTS)
    PARTS[job["part"]](Part(job))


if __name__ == "__main__":
    sys.modules["gpu_parts"] = sys.modules["__main__"]  # parts of other files want this one
    main(sys.argv[1:])
