"""What of a cluster each actor gets, and how many there is room for. Ray itself is not known here.

A GPU is reserved only where one can be used: by what the cluster has, and by what is installed on
its machines, not on the one where the batch was started.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from kiku.converted import is_converted
from kiku.engine.choice import DTYPES
from kiku.errors import InputError
from kiku.fleet.settings import ModelSettings

_CPUS = 4
_GPU_ENGINES = ("auto", "cuda", "torch")
_LOG = logging.getLogger(__name__)

Resources = Mapping[str, float]
"""Of one machine: "CPU", "GPU" and how many."""

Look = Callable[[], Sequence[str]]
"""Asks the machines with GPUs: why some cannot use theirs, a sentence each."""


def room_for(
    nodes: Sequence[Resources], settings: ModelSettings, look: Look
) -> tuple[dict[str, float], int]:
    """What Ray is asked for each actor, and how many there is room for.

    Raises:
        InputError: no machine has so many processors, or a GPU is wanted that there is not.
    """
    if _may_use_gpu(settings):
        gpus = sum(int(min(node.get("GPU", 0), node.get("CPU", 0))) for node in nodes)
        problems = look() if gpus else ["no machine of the cluster has a GPU"]
        if not problems:
            return {"num_gpus": 1, "num_cpus": 1}, gpus
        if wish := _wish(settings):
            raise InputError(
                f"{wish} wants a GPU: {'; '.join(problems)}; start Ray where there is one "
                "(ray start --num-gpus=N), with kiku[torch], or leave it out"
            )
        if gpus:
            _LOG.warning("GPUs of the cluster are left alone: %s", "; ".join(problems))
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    threads = settings.threads or max(1, min([_CPUS, *(n for n in cpus if n)]))
    room = sum(n // threads for n in cpus)
    if not room:
        raise InputError(
            f"no machine of the cluster has {threads} processors, the largest has "
            f"{max(cpus, default=0)}: give fewer threads"
        )
    return {"num_cpus": threads}, room


def _may_use_gpu(settings: ModelSettings) -> bool:
    """Whether `kiku.load` would take a GPU for it, where there is one.

    Raises:
        InputError: it is a GPU by its number.
    """
    device = settings.device or "auto"
    if device.startswith("cuda:"):
        raise InputError(
            f"device={device!r} names one GPU of a machine, and each actor sees only the one that "
            "Ray gives it: give device='cuda'"
        )
    if settings.dtype in set(DTYPES["onnx"]) - set(DTYPES["torch"]) or is_converted(settings.model):
        return False  # ONNX Runtime's, which kiku runs on processors
    return settings.engine in _GPU_ENGINES and device in ("auto", "cuda")


def _wish(settings: ModelSettings) -> str:
    """What of the settings runs on GPUs alone; nothing where processors will do."""
    if settings.device == "cuda":
        return "device='cuda'"
    return "engine='cuda'" if settings.engine == "cuda" else ""


def why_no_gpu() -> str:
    """Why PyTorch can use no GPU on this machine, by what is installed; nothing where it may."""
    try:
        import torch
    except ImportError as error:
        return f"PyTorch is not installed ({error})"
    if torch.version.cuda or torch.version.hip:
        return ""
    return f"PyTorch {torch.__version__} is built for processors"
