"""The models that the parts of `gpu.py` measure, with random weights and full windows, and their
engines."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gpu_wanted import calls

from kiku.checkpoint.model_shapes import SHAPES
from kiku.codec import MimiEncoder
from kiku.codec.rvq import RVQ
from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig
from kiku.decoding import SamplingParams
from kiku.engine.core import SlotEngine
from kiku.engine.cuda import CudaBackend, GpuOptions
from kiku.engine.gpu.attention import attend_plainly
from kiku.engine.torch import TorchBackend
from kiku.lm import LM
from kiku.nn.rope import Rope

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


def thin(config: ModelConfig) -> ModelConfig:
    """The same with one layer in each transformer: it runs the same kernels, in less memory."""
    codec, lm = (
        replace(part, transformer=replace(part.transformer, num_layers=1))
        for part in (config.codec, config.lm)
    )
    return replace(config, codec=codec, lm=lm)


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


def asked(job: dict[str, Any]) -> tuple[int, GpuOptions]:
    """How many slots the engine of a part has, and its options."""
    frames, rows = calls(job)
    options = GpuOptions(
        kv=job.get("kv", "auto"), sizes=frames, rows=rows, graphs=job.get("graphs")
    )
    return max(rows), options


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


def memory_of(engine: SlotEngine) -> dict[str, float]:
    """GB of the device that PyTorch took at most; how much of that is no ring, and how much the
    weights take of this; and what CUDA holds that PyTorch did not ask for. Nothing on a processor.
    """
    backend = engine.backend
    assert isinstance(backend, CudaBackend)
    slots, network = backend._slots, backend.launches._network
    if slots.rings.keys.device.type != "cuda":
        return {}
    kept = [*slots.rings.tensors.values(), *slots.codec_rings.tensors.values()]
    weights = [*network.codec.state_dict().values(), *network.lm.state_dict().values()]
    most = torch.cuda.max_memory_reserved()
    free, total = torch.cuda.mem_get_info()
    sizes = {
        "memory_gb": most,
        "beside_rings_gb": most - sum(ring.nbytes for ring in kept),
        "weights_gb": sum(weight.nbytes for weight in weights),
        "outside_gb": total - free - torch.cuda.memory_reserved(),
    }
    return {name: round(size / 1e9, 2) for name, size in sizes.items()}
