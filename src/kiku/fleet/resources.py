"""The resources of a cluster that each actor gets, and how many actors fit. Does not import Ray.

A GPU is reserved only if it can be used. This depends on what the cluster has and on what is
installed on its machines, not on the machine where the batch was started.
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
"""Resources of one machine: "CPU", "GPU" and how many."""

Look = Callable[[], Sequence[str]]
"""Asks the machines with GPUs why they cannot use them; gives a sentence for each that cannot."""


def room_for(
    nodes: Sequence[Resources], settings: ModelSettings, look: Look
) -> tuple[dict[str, float], int]:
    """The resources to ask Ray for, for each actor, and how many actors there is room for.

    Raises:
        InputError: no machine has enough processors, or a GPU is asked for and there is none.
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
    """Whether `kiku.load` would use a GPU with these settings if there is one.

    Raises:
        InputError: the settings name a GPU by its number.
    """
    device = settings.device or "auto"
    if device.startswith("cuda:"):
        raise InputError(
            f"device={device!r} names one GPU of a machine, and each actor sees only the one that "
            "Ray gives it: give device='cuda'"
        )
    if settings.dtype in set(DTYPES["onnx"]) - set(DTYPES["torch"]) or is_converted(settings.model):
        return False  # for ONNX Runtime, which kiku runs on CPUs
    return settings.engine in _GPU_ENGINES and device in ("auto", "cuda")


def _wish(settings: ModelSettings) -> str:
    """The setting that needs a GPU, for messages; "" if CPUs suffice."""
    if settings.device == "cuda":
        return "device='cuda'"
    return "engine='cuda'" if settings.engine == "cuda" else ""


def why_no_gpu() -> str:
    """Why PyTorch can use no GPU on this machine, by what is installed; "" if it may be able to."""
    try:
        import torch
    except ImportError as error:
        return f"PyTorch is not installed ({error})"
    if torch.version.cuda or torch.version.hip:
        return ""
    return f"PyTorch {torch.__version__} is built for processors"
