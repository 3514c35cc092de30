"""moshi and transformers on the same device, for `gpu_parts.py`: random weights of the same shape,
the same noise."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import children
import numpy as np
import torch
from gpu_job import Part, spread


def moshi(part: Part) -> None:
    """moshi's own streaming classes over a batch, with its CUDA graphs, as its server runs them;
    where the job says so, without `torch.compile`, whose first run may take minutes."""
    compiled = part.job.get("compiled", True)
    if not part.on_gpu or not compiled:
        os.environ["NO_TORCH_COMPILE"] = "1"  # read when moshi is imported
    from moshi.models import LMGen
    from moshi.models.loaders import get_mimi, get_moshi_lm

    from kiku.checkpoint.config_native import write_native

    n = part.job["streams"]
    config = children.config_of(part.job["shape"])
    kwargs = write_native(config, mimi_name="", tokenizer_name="")
    for key in (
        "model_type", "mimi_name", "tokenizer_name", "lm_gen_config", "stt_config", "conditioners",
    ):  # fmt: skip
        kwargs.pop(key, None)
    lm = get_moshi_lm(None, lm_kwargs=kwargs, device="meta", dtype=part.dtype)
    lm.to_empty(device=part.device).eval()
    mimi = get_mimi(None, device=part.device, num_codebooks=config.lm.num_codebooks).eval()
    for network in (lm, mimi):
        _randomise(network)
    generator = LMGen(lm, temp=0.0, temp_text=0.0)
    with ExitStack() as open_, torch.no_grad():
        open_.enter_context(mimi.streaming(n))
        open_.enter_context(generator.streaming(n))
        pcm = torch.from_numpy(children.noise(config)[: config.frame_size])
        pcm = pcm.view(1, 1, -1).repeat(n, 1, 1).to(part.device)

        def step() -> None:
            tokens = generator.step(mimi.encode(pcm))
            if tokens is not None:
                tokens.cpu()

        # moshi reads its whole ring of keys however full it is.
        times = part.times(step, 0.9)
    name = "moshi" if compiled else "moshi, NO_TORCH_COMPILE=1"
    part.tell("live", streams=n, engine=name, **times)


LEAST_STEPS = 20
"""Steps of transformers with a full window that are measured at least."""


class _Enough(Exception):
    """Ends a `generate` that has been measured for long enough."""


def transformers(part: Part) -> None:
    """transformers' `generate` on one stream, beyond a full window; its codec, which takes all of
    the sound at once, is spread over the frames. Where the time is nearly over, it is ended, and
    the row tells of the steps until then."""
    config = children.config_of(part.job["shape"])
    model = children._transformers_model(config, part.dtype).to(part.device)
    window = config.lm.transformer.window
    frames = window + LEAST_STEPS + min(part.steps, 200)
    sound = np.resize(children.noise(config), frames * config.frame_size)
    encode, codec_s, taken = model.codec_model.encode, [0.0], list[float]()

    def timed(*args: Any, **kwargs: Any) -> Any:
        part.wait()
        started = time.perf_counter()
        found = encode(*args, **kwargs)
        part.wait()
        codec_s[0] += time.perf_counter() - started
        return found

    def noted(_ids: Any, scores: Any) -> Any:
        part.wait()
        taken.append(time.perf_counter())
        if len(taken) > window + LEAST_STEPS and time.monotonic() > part.ends:
            raise _Enough
        return scores

    model.codec_model.encode = timed
    with torch.no_grad(), suppress(_Enough):
        model.generate(
            input_values=torch.from_numpy(sound)[None, None].to(part.device),
            logits_processor=[noted], do_sample=False,
        )  # fmt: skip
    steps = np.diff(taken)[window:] * 1e3 + codec_s[0] * 1e3 / frames
    part.tell("live", streams=1, engine="transformers", **spread(steps.tolist()))


def _randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "norm" in name or "scale" in name or weight.dim() == 1:
                weight.fill_(0.0 if name.endswith("bias") else 1.0 if "norm" in name else 0.1)
            else:
                weight.normal_(0, weight[0].numel() ** -0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("embedding_sum"):
                buffer.normal_()
            elif name.endswith("cluster_usage"):
                buffer.fill_(1.0)


PARTS: dict[str, Callable[[Part], None]] = {"moshi": moshi, "transformers": transformers}
