"""The resources of a cluster that each actor gets, how many actors fit, and waiting for resources
that others hold. Does not import Ray.

A GPU is reserved only if it can be used. This depends on what the cluster has and on what is
installed on its machines, not on the machine where the batch was started.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from kiku.converted import is_converted
from kiku.engine.choice import DTYPES
from kiku.errors import InputError
from kiku.fleet.settings import ModelSettings

_CPUS = 4
_GPU_ENGINES = ("auto", "cuda", "torch")
_LOOKS, _PAUSE_S = 10, 0.5
_LOG = logging.getLogger(__name__)

Resources = Mapping[str, float]
"""Resources of one machine: "CPU", "GPU" and how many."""

GpuProblems = Callable[[], Sequence[str]]
"""Asks the machines with GPUs why they cannot use them; gives a sentence for each that cannot."""


def room_for(
    nodes: Sequence[Resources], settings: ModelSettings, gpu_problems: GpuProblems
) -> tuple[dict[str, float], int]:
    """The resources to ask Ray for, for each actor, and how many actors there is room for.

    Raises:
        InputError: no machine has enough processors, or a GPU is asked for and there is none.
    """
    if _may_use_gpu(settings):
        gpus = sum(int(min(node.get("GPU", 0), node.get("CPU", 0))) for node in nodes)
        problems = gpu_problems() if gpus else ["no machine of the cluster has a GPU"]
        if not problems:
            return {"num_gpus": 1, "num_cpus": 1}, gpus
        if setting := _gpu_setting(settings):
            raise InputError(
                f"{setting} needs a GPU: {'; '.join(problems)}; start Ray where there is one (ray "
                "start --num-gpus=N), with kiku[torch], or leave it out"
            )
        if gpus:
            _LOG.warning("GPUs of the cluster are not used: %s", "; ".join(problems))
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


def _gpu_setting(settings: ModelSettings) -> str:
    """The setting that needs a GPU, for messages; "" if CPUs suffice."""
    if settings.device == "cuda":
        return "device='cuda'"
    return "engine='cuda'" if settings.engine == "cuda" else ""


def wait_for_room(
    wanted: int,
    each: Resources,
    free: Callable[[], Resources],
    held: Callable[[], Sequence[str]],
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Wait some seconds until `wanted` actors fit. If they still do not, log one line that says
    what is waited for and who holds it: Ray itself waits without a message, as long as it takes.

    Args:
        wanted: number of actors.
        each: resources that Ray is asked for, for each actor.
        free: gives the resources that are free now, summed over all machines.
        held: gives what other programs hold, one sentence for each.
        pause: sleeps for so many seconds.
    """
    for _ in range(_LOOKS):
        if _room_in(free(), each) >= wanted:
            return
        pause(_PAUSE_S)
    there = free()
    room = _room_in(there, each)
    if room >= wanted:
        return
    asked = " and ".join(f"{_NAMES[what]}: {count:g}" for what, count in each.items())
    left = ", ".join(f"{_NAMES[what]}: {there.get(_NAMES[what], 0.0):g}" for what in each)
    _LOG.warning(
        "%d of %d actors are waiting for room (each needs %s; free are %s): %s",
        wanted - room, wanted, asked, left,
        "; ".join(held()) or "'ray status' on the head says what is held",
    )  # fmt: skip


def _room_in(free: Resources, each: Resources) -> int:
    return min(int(free.get(_NAMES[what], 0.0) // count) for what, count in each.items())


_NAMES = {"num_gpus": "GPU", "num_cpus": "CPU"}
"""From the names of `ray.remote` to those of machines."""


def why_no_gpu() -> str:
    """Why PyTorch can use no GPU on this machine, by what is installed; "" if it may be able to."""
    try:
        import torch
    except ImportError as error:
        return f"PyTorch is not installed ({error})"
    if torch.version.cuda or torch.version.hip:
        return ""
    return f"PyTorch {torch.__version__} is built for processors"
