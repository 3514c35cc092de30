"""The kernels of other parts, compiled before these begin. A part of `gpu.py`, of which several run
at once.

An engine runs all of its calls while it is made, so making one compiles all that it will need. One
layer of each transformer is enough for that, and lets several engines have their slots at once.
"""

import time
from dataclasses import replace

import gpu_attention
import gpu_tokens
from gpu_job import Part
from gpu_models import asked, attention_of, random_model, thin

from kiku.engine.core import SlotEngine
from kiku.engine.cuda import cuda_engine


def warm(part: Part) -> None:
    """One row: how long it took, and whether attention is by the kernels."""
    job, began = part.job, time.perf_counter()
    if "cases" in job:
        attention = gpu_attention.compile_all(part, job["cases"])
    elif "model" in job:
        part.graphs = False
        attention = attention_of(gpu_tokens.engine_of(part, job["model"], job["kind"]))
    else:
        attention = attention_of(_engine(part))
    seconds = round(time.perf_counter() - began, 1)
    part.tell("warm", of=job["of"], seconds=seconds, attention=attention)


def _engine(part: Part) -> SlotEngine:
    """As that of a part of these streams and frames, of one layer, without graphs."""
    slots, options = asked(part.job)
    codec, lm = random_model(thin(part.config), part.dtype, part.device)
    options = replace(options, graphs=False)
    return cuda_engine(codec, lm, slots=slots, device=part.device, options=options)
