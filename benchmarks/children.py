"""The processes that `peers.py` measures with: one program with one model each.

    python benchmarks/children.py '{"who": "transformers", "precision": "bfloat16", ...}'

A talker says {"ready": ...} once its model is there, and then answers each line on its standard
input: {"steps": n} with the seconds of n live frames, {"fill": true} when its windows are full. So
several can be measured in turn, a few frames each. kiku's parts (`who` = "kiku-part") are measured
alone: the answer comes at once.

Weights are random, of the same shape for all; all hear the same noise.
"""

import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from standstills import Probe, marked

from kiku.checkpoint.model_shapes import SHAPES
from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig
from kiku.measure.machine import resident_bytes
from kiku.measure.speed import Speed, full_window, noise

TINY = ModelConfig(
    CodecConfig(),
    LMConfig(
        TransformerConfig(
            dim=128, num_layers=2, num_heads=2, ffn_dim=352, window=40, rope_theta=1e5, norm="rms",
            norm_eps=1e-8, gated=True, layer_scale=False,
        ),
        text_vocab_size=100,
    ),
    text_delay_s=0.5,
)  # fmt: skip
"""For a dry run; the codec is the real one."""

_POOL = 4_194_301


def config_of(shape: str) -> ModelConfig:
    """The numbers of a shape, "tiny" among them."""
    return TINY if shape == "tiny" else SHAPES[shape]


class Peer(Protocol):
    """A program with a stream that goes on."""

    def steps(self, count: int) -> dict[str, list[float]]:
        """Hear so many frames; seconds of each step, and of its parts where they are known."""
        ...

    def fill(self) -> None:
        """Bring the stream to where its windows are full."""
        ...


class Kiku:
    """kiku on ONNX Runtime."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Open the folder of a dummy model."""
        from kiku.measure.dummy import open_model

        model = open_model(job["folder"], threads=job["threads"])
        self.engine, self.config = model.scheduler.engine, model.config
        self.speed = Speed(self.engine, self.config)
        sound = noise(self.config)
        self.frames = sound.reshape(-1, 1, self.config.frame_size)
        self.slots = self.speed.listeners(1, 0)
        self.heard = 0

    def steps(self, count: int) -> dict[str, list[float]]:
        """See `Peer.steps`."""
        taken: dict[str, list[float]] = {"step": [], "codec": [], "decoder": []}
        engine = self.engine
        for _ in range(count):
            frame = self.frames[self.heard % len(self.frames)]
            self.heard += 1
            started = time.perf_counter()
            codes = engine.encode(self.slots, frame)
            between = time.perf_counter()
            engine.decode(self.slots, codes)
            ended = time.perf_counter()
            taken["codec"].append(between - started)
            taken["decoder"].append(ended - between)
            taken["step"].append(ended - started)
        return taken

    def fill(self) -> None:
        """See `Peer.fill`."""
        self.engine.close(self.slots[0])
        self.slots = self.speed.listeners(1, full_window(self.config))


class Transformers:
    """transformers' `generate`, held up between tokens so that others can have their turn.

    It encodes the whole sound in its second step; that time is spread over the frames.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        """Build the model, and begin."""
        import torch
        import transformers

        self.config = config_of(job["shape"])
        torch.set_num_threads(job["threads"])
        transformers.utils.logging.set_verbosity_error()
        self.model = _transformers_model(self.config, getattr(torch, job["precision"]))
        self.frames = full_window(self.config) + job["frames"]
        self.codec_s = 0.0
        encode = self.model.codec_model.encode

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            found = encode(*args, **kwargs)
            self.codec_s += time.perf_counter() - started
            return found

        self.model.codec_model.encode = timed
        self.left, self.heard = 0, 0
        self.taken: list[float] = []
        self.failed: BaseException | None = None
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.since = 0.0
        threading.Thread(target=self._generate, daemon=True).start()
        self._advance(2)  # the first token, and all of the codec

    def _generate(self) -> None:
        import torch

        sound = noise(self.config)
        sound = np.resize(sound, self.frames * self.config.frame_size)
        self.go.acquire()
        self.since = time.perf_counter()
        try:
            with torch.no_grad():
                self.model.generate(
                    input_values=torch.from_numpy(sound)[None, None],
                    logits_processor=[self._held_up],
                    do_sample=False,
                )
            self.failed = RuntimeError("generate came to its end too early")
        except BaseException as error:
            self.failed = error
        self.done.release()

    def _held_up(self, _ids: Any, scores: Any) -> Any:
        self.taken.append(time.perf_counter() - self.since)
        self.heard += 1
        self.left -= 1
        if self.left == 0:
            self.done.release()
            self.go.acquire()
        self.since = time.perf_counter()
        return scores

    def _advance(self, count: int) -> list[float]:
        self.taken, self.left = [], count
        self.go.release()
        self.done.acquire()
        if self.failed is not None:
            raise self.failed
        return self.taken

    def steps(self, count: int) -> dict[str, list[float]]:
        """See `Peer.steps`."""
        decoder = self._advance(count)
        codec = [self.codec_s / self.frames] * count
        step = [a + b for a, b in zip(decoder, codec, strict=True)]
        return {"step": step, "codec": codec, "decoder": decoder}

    def fill(self) -> None:
        """See `Peer.fill`."""
        window = full_window(self.config)
        if self.heard < window:
            self._advance(window - self.heard)


def _transformers_model(config: ModelConfig, dtype: Any) -> Any:
    import torch

    # transformers looks for Hugging Face's package of this name, and would run the file beside us.
    sys.modules.setdefault("kernels", None)  # pyright: ignore[reportArgumentType]
    import transformers
    from transformers.initialization import no_init_weights

    t, lm = config.lm.transformer, config.lm
    vocab = lm.text_vocab_size + 1
    theirs = transformers.KyutaiSpeechToTextConfig(
        vocab_size=vocab, hidden_size=t.dim, num_hidden_layers=t.num_layers,
        num_attention_heads=t.num_heads, head_dim=t.head_dim, ffn_dim=2 * t.ffn_dim,
        sliding_window=t.window, max_position_embeddings=8192,
        audio_pad_token_id=vocab + lm.num_codebooks * (lm.codebook_size + 1),
        bos_token_id=lm.text_vocab_size, pad_token_id=config.pad_id,
        rope_parameters={"rope_type": "default", "rope_theta": t.rope_theta},
        codec_config={"model_type": "mimi", "sliding_window": config.codec.transformer.window},
    )  # fmt: skip
    with no_init_weights():
        torch.set_default_dtype(dtype)
        model = transformers.KyutaiSpeechToTextForConditionalGeneration(theirs).eval()
        torch.set_default_dtype(torch.float32)
    model.codec_model.float()  # as `from_pretrained` leaves it
    model.generation_config.eos_token_id = None
    _randomise(model)
    return model


class Moshi:
    """moshi's own streaming classes, as its programs use them."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Build both networks, and begin."""
        os.environ["NO_TORCH_COMPILE"] = "1"  # read when moshi is imported
        import torch
        from moshi.models import LMGen
        from moshi.models.loaders import get_mimi, get_moshi_lm

        from kiku.checkpoint.config_native import write_native

        self.torch = torch
        self.config = config_of(job["shape"])
        torch.set_num_threads(job["threads"])
        kwargs = write_native(self.config, mimi_name="", tokenizer_name="")
        for key in (
            "model_type", "mimi_name", "tokenizer_name", "lm_gen_config", "stt_config",
            "conditioners",
        ):  # fmt: skip
            kwargs.pop(key, None)
        dtype = getattr(torch, job["precision"])
        lm = get_moshi_lm(None, lm_kwargs=kwargs, device="meta", dtype=dtype)
        lm.to_empty(device="cpu").eval()
        self.mimi = get_mimi(None, num_codebooks=self.config.lm.num_codebooks).eval()
        for network in (lm, self.mimi):
            _randomise(network)
        self.lm = lm
        self.generator = LMGen(lm, temp=0.0, temp_text=0.0)
        self.open = ExitStack()
        self.open.enter_context(self.mimi.streaming(1))
        self.open.enter_context(self.generator.streaming(1))
        self.frames = torch.from_numpy(noise(self.config)).view(-1, 1, 1, self.config.frame_size)
        self.heard = 0

    def steps(self, count: int) -> dict[str, list[float]]:
        """See `Peer.steps`."""
        taken: dict[str, list[float]] = {"step": [], "codec": [], "decoder": []}
        with self.torch.no_grad():
            for _ in range(count):
                frame = self.frames[self.heard % len(self.frames)]
                self.heard += 1
                started = time.perf_counter()
                codes = self.mimi.encode(frame)
                between = time.perf_counter()
                self.generator.step(codes)
                ended = time.perf_counter()
                taken["codec"].append(between - started)
                taken["decoder"].append(ended - between)
                taken["step"].append(ended - started)
        return taken

    def fill(self) -> None:
        """See `Peer.fill`. moshi reads its whole ring of keys at every step however full it is, so
        the counters are put forward and the ring is filled with noise."""
        forward = 2 * full_window(self.config)
        for network in (self.lm, self.mimi):
            for module in network.modules():
                state = getattr(module, "_streaming_state", None)
                for name in ("offset", "offsets"):
                    if self.torch.is_tensor(counter := getattr(state, name, None)):
                        counter += forward
                if (ring := getattr(state, "kv_cache", None)) is not None:
                    ring.end_offset += forward
                    ring.cache.normal_(0, 0.5)


def _randomise(module: Any) -> None:
    """Fill every weight of a torch module with numbers that keep the signal alive."""
    import torch

    pool = torch.randn(_POOL, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "norm" in name:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
            elif "scale" in name:
                weight.fill_(0.1)
            elif weight.dim() == 1:
                weight.zero_()
            else:
                _tile(weight, pool, weight[0].numel() ** -0.5)
        for name, buffer in module.named_buffers():
            if name.endswith(("embed_sum", "embedding_sum")):
                _tile(buffer, pool, 0.5)
            elif name.endswith("cluster_usage"):
                buffer.fill_(1.0)


def _tile(tensor: Any, pool: Any, scale: float) -> None:
    flat = tensor.view(-1)
    for first in range(0, len(flat), len(pool)):
        part = flat[first : first + len(pool)]
        part.copy_(pool[: len(part)] * scale)


PEERS: dict[str, Callable[[dict[str, Any]], Peer]] = {
    "kiku": Kiku,
    "transformers": Transformers,
    "moshi": Moshi,
}


def write(job: dict[str, Any]) -> dict[str, Any]:
    """Write the dummy model of a shape."""
    from kiku.measure.dummy import write_dummy_model

    started = time.perf_counter()
    folder = write_dummy_model(Path(job["folder"]), config_of(job["shape"]), job["precision"])
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"seconds": time.perf_counter() - started, "bytes": size}


def streams(job: dict[str, Any]) -> Any:
    """Simultaneous live streams, with empty and with full windows."""
    from kiku.measure.dummy import open_model

    rows = []
    for count in job["streams"]:
        model = open_model(job["folder"], slots=count, threads=job["threads"])
        for past in (0, full_window(model.config)):
            rows.append(_watched(model, count, past, job["count"]))
        del model
    return rows


def _watched(model: Any, streams: int, past: int, count: int) -> dict[str, Any]:
    """One row of live steps, and what standstills of the machine did to them."""
    readings: list[float] = []

    def clock() -> float:
        readings.append(time.perf_counter())
        return readings[-1]

    speed = Speed(model.scheduler.engine, model.config, clock=clock)
    with Probe() as probe:
        row = speed.live(streams, past=past, count=count).to_dict()
        stood = probe.spans()
    # A step reads the clock three times: at its beginning, between the networks, at its end.
    steps = list(zip(readings[0::3], readings[2::3], strict=True))[-count:]
    return {**row, "standstills": marked(steps, stood)}


def block(job: dict[str, Any]) -> Any:
    """Blocks whose every guess is right, the codec in bulk, and single frames beside them."""
    from kiku.measure.dummy import open_model

    model = open_model(job["folder"], threads=job["threads"])
    speed, full = Speed(model.scheduler.engine, model.config), full_window(model.config)
    sizes = [size for size in job["sizes"] if size <= model.scheduler.max_block]
    return {
        "single": speed.live(1, past=full, count=job["count"]).to_dict(),
        "blocks": [speed.block(n, past=full, count=job["blocks"]).to_dict() for n in sizes],
        "codec_bulk": speed.codec_bulk(),
    }


def file(job: dict[str, Any]) -> Any:
    """Recordings in blocks and frame by frame, and the acceptance by block size."""
    from kiku.measure.dummy import open_model
    from kiku.measure.files import acceptance, file_speed, joined_sound

    model = open_model(job["model"], precision=job["precision"], threads=job["threads"])
    samples = joined_sound(job["sounds"], model.config.sample_rate)
    sizes = [size for size in job["sizes"] if size <= model.scheduler.max_block]
    return {
        **file_speed(model, samples, rounds=job["rounds"]).to_dict(),
        "acceptance": {str(n): acceptance(model, samples, n) for n in sizes},
    }


def soak(job: dict[str, Any]) -> Any:
    """A stream for hours."""
    from kiku.measure.dummy import open_model

    model = open_model(job["model"], precision=job["precision"], threads=job["threads"])
    speed = Speed(model.scheduler.engine, model.config)
    return speed.soak(job["hours"], count=job["count"]).to_dict()


PARTS = {"write": write, "streams": streams, "block": block, "file": file, "soak": soak}


def talk(peer: Peer) -> None:
    """Answer line by line until there are no more."""
    for line in sys.stdin:
        wanted = json.loads(line)
        if "fill" in wanted:
            peer.fill()
            answer: dict[str, Any] = {"resident": resident_bytes()}
        else:
            answer = dict(peer.steps(wanted["steps"]))
        _say(answer)


def _say(answer: Any) -> None:
    _OUT.write(json.dumps(answer) + "\n")
    _OUT.flush()


_OUT = sys.stdout

if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.stdout = sys.stderr  # whatever libraries print is no answer
    asked = json.loads(sys.argv[1])
    if asked["who"] == "kiku-part":
        _say(PARTS[asked["part"]](asked))
    else:
        one = PEERS[asked["who"]](asked)
        _say({"ready": True, "resident": resident_bytes()})
        talk(one)
