"""How many live streams of a model fit on a machine, how fast recordings go, and how many machines
are needed.

Estimates are those of the roofline. If the benchmarks measured this model on this machine, their
figure takes the place of the estimate; every figure says which of the two it is.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kiku.checkpoint import KNOWN_REPOS, find, is_local, read_config
from kiku.checkpoint.model_shapes import SHAPES
from kiku.config import ModelConfig
from kiku.converted import is_converted, open_converted
from kiku.errors import InputError
from kiku.measure import known
from kiku.measure.assumptions import assumptions
from kiku.measure.fits import Basis, Figure, Fits, PlanOptions
from kiku.measure.hardware import Hardware, check_within

_MOST = 1e12  # streams, hours, prices


@dataclass(frozen=True, slots=True)
class Wanted:
    """The work that the machines have to do.

    Raises:
        InputError: a value is not allowed.
    """

    streams: int | None = None
    """Live streams at once."""
    hours_per_day: float | None = None
    """Hours of recordings a day."""
    price: float | None = None
    """Price of a machine for an hour, in any currency."""
    recordings_at_once: int | None = None
    """Recordings that a process transcribes at once; None is as few as are nearly the fastest."""

    def __post_init__(self) -> None:
        if self.streams is not None:
            check_within("streams", self.streams, _MOST, least=1)
        if self.hours_per_day is not None:
            check_within("hours_per_day", self.hours_per_day, _MOST)
        if self.recordings_at_once is not None:
            check_within("recordings_at_once", self.recordings_at_once, _MOST, least=1)
        if self.price is None:
            return
        check_within("price", self.price, _MOST, least=0)
        if self.streams is None and self.hours_per_day is None:
            raise InputError("price needs something to be paid for: give streams or hours_per_day")


@dataclass(frozen=True, slots=True)
class Need:
    """The machines that the wanted work needs."""

    machines: int
    memory_bytes_each: float
    """Bytes in use on each machine."""
    processes_each: int
    """Processes on each machine, at least: see `Plan.processes`."""
    machine_hours_per_day: float
    cost_per_day: float | None
    """What the machines cost a day, in the currency of the price; None if no price is given."""
    basis: Basis


@dataclass(frozen=True, slots=True)
class Plan:
    """How much fits, why, and how many machines are needed."""

    model: str
    hardware: Hardware
    options: PlanOptions
    """The options, with the types that were chosen."""
    fixed_bytes: Figure
    """Bytes of the weights; if measured, those of the program too."""
    stream_bytes: Figure
    """Bytes that each stream takes."""
    by_memory: Figure | None
    """Live streams that the memory holds; None where its size is not known."""
    by_time: Figure
    """Live streams whose steps are within `p99_ms`."""
    at_most: int
    """Live streams that memory and time would allow with an efficiency of 1."""
    streams: Figure
    """Live streams: the smaller of `by_memory` and `by_time`."""
    processes: int
    """Processes of `kiku serve` that so many streams need at least, as each uses one core for its
    own work; 0 where no stream fits."""
    step_ms: Figure | None
    """The p99 of a step of that many streams, in milliseconds; None where no stream fits."""
    timed_kv_dtype: str | None
    """The type that keys and values had where the times were measured, if it is another than that
    of `options`; else None."""
    recordings: Figure | None
    """Seconds of recordings that are transcribed in a second; None where the model does not fit."""
    recordings_at_once: int
    problem: str | None
    """Why no stream fits; None if one does."""
    live_need: Need | None
    recordings_need: Need | None
    published: tuple[known.Beside, ...]
    """What others have published of this model on this GPU."""
    measured: tuple[known.Measured, ...]
    """What the benchmarks found for this model and type, on whatever processor."""
    assumptions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return {**asdict(self), "hardware": self.hardware.to_dict()}


_USUAL, _NOTHING = PlanOptions(), Wanted()


def model_of(name: str) -> tuple[str, ModelConfig]:
    """A model's name and numbers; of an unknown repository only small files are fetched.

    Args:
        name: "1b", "2.6b", "demo", a repository, a folder with a checkpoint or a converted model.

    Raises:
        CheckpointError: there is no such model.
    """
    if name.lower() in SHAPES:
        return name.lower(), SHAPES[name.lower()]
    if is_converted(name):
        opened = open_converted(name)
        return opened.name, opened.config
    local = is_local(name)
    if not local and name in {repo.repo_id for repo in KNOWN_REPOS}:
        return name, next(config for shape, config in SHAPES.items() if f"stt-{shape}-" in name)
    return name, read_config(find(name, weights=local))


def _measured_here(
    measured: Sequence[known.Measured], machine: str | None, options: PlanOptions
) -> known.Measured | None:
    """What was measured on this very machine with keys of the wanted type. If no step was timed
    with keys of 8 bits, it has the times and the `kv_dtype` of 16, but their memory never."""
    here = {one.kv_dtype: one for one in measured if one.machine == machine}
    own, half = here.get(str(options.kv_dtype)), here.get("float16")
    if options.kv_dtype != "int8" or half is None or (own is not None and own.live):
        return own
    # Keys of 8 bits are read faster, so as many streams are in time.
    own = own or known.Measured(half.machine)
    return replace(
        half, fixed_bytes=own.fixed_bytes, stream_bytes=own.stream_bytes, speed=own.speed
    )


def _other_keys(
    own: known.Measured | None, options: PlanOptions, *times: Figure | None
) -> str | None:
    """The type of the keys with which these times were measured, if it is not the wanted one."""
    if own is None or own.kv_dtype == options.kv_dtype:
        return None
    told = any(one is not None and one.basis == "measured" for one in times)
    return own.kv_dtype if told else None


def plan(
    model: str | ModelConfig,
    hardware: Hardware,
    options: PlanOptions = _USUAL,
    wanted: Wanted = _NOTHING,
    *,
    machine: str | None = None,
) -> Plan:
    """Find how many live streams fit, how fast recordings go, and how many machines are needed.

    Args:
        model: as `model_of` takes it, or a model's numbers.
        hardware: see `hardware.gpu`, `hardware.cpu` and `hardware.cpu_of`.
        options: types of numbers, how long a step may take, and other assumptions.
        wanted: streams or hours, for which machines are counted.
        machine: `hardware` as `known.described` names it: what the benchmarks measured there takes
            the place of estimates.

    Raises:
        CheckpointError: there is no such model.
        InputError: a step may take longer than a frame is, or no engine has these types there.
    """
    name, config = model_of(model) if isinstance(model, str) else ("a model", model)
    _check_in_time(options, config)
    options = options.chosen(hardware, config)
    shape = known.shape_name(config)
    measured = () if hardware.kind == "gpu" else known.measured(shape, str(options.dtype))
    own = _measured_here(measured, machine, options)
    fits = Fits(config, hardware, options, own)
    by_memory, by_time = fits.by_memory(), fits.by_time()
    streams = by_time if by_memory is None else min(by_time, by_memory, key=lambda one: one.value)
    step = fits.step(int(streams.value)) if streams.value else None
    timed_kv = _other_keys(own, options, by_time, step)
    room = int(by_time.value if by_memory is None else by_memory.value)
    recordings, at_once = None, 0
    if room or by_memory is None:
        recordings, at_once = fits.recordings(max(1, room), wanted.recordings_at_once)
    return Plan(
        model=name,
        hardware=hardware,
        options=options,
        fixed_bytes=fits.fixed,
        stream_bytes=fits.stream,
        by_memory=by_memory,
        by_time=by_time,
        at_most=fits.at_best() if by_memory is None else min(fits.at_best(), room),
        streams=streams,
        processes=fits.processes(streams.value),
        step_ms=step,
        timed_kv_dtype=timed_kv,
        recordings=recordings,
        recordings_at_once=at_once,
        problem=None if streams.value else fits.problem(),
        live_need=_live_need(wanted, streams, fits),
        recordings_need=_recordings_need(wanted, recordings, at_once, fits),
        published=known.published(shape, hardware, fits.parts),
        measured=measured,
        assumptions=assumptions(config, hardware, options, fits.parts, timed_kv),
    )


def _check_in_time(options: PlanOptions, config: ModelConfig) -> None:
    frame_ms = 1000 / config.frame_rate
    if options.p99_ms > frame_ms:
        raise InputError(
            f"p99_ms must be at most {frame_ms:g}, the length of a frame, or live streams fall "
            f"behind; it is {options.p99_ms:g}"
        )


def _live_need(wanted: Wanted, streams: Figure, fits: Fits) -> Need | None:
    if wanted.streams is None or not streams.value:
        return None
    machines = -(-wanted.streams // int(streams.value))
    each = -(-wanted.streams // machines)
    processes = fits.processes(each)
    hours = 24.0 * machines
    cost = _cost(wanted, hours)
    return Need(machines, fits.bytes_of(each), processes, hours, cost, streams.basis)


def _recordings_need(wanted: Wanted, speed: Figure | None, at_once: int, fits: Fits) -> Need | None:
    if wanted.hours_per_day is None or speed is None:
        return None
    hours = wanted.hours_per_day / speed.value
    machines, cost = math.ceil(hours / 24), _cost(wanted, hours)
    return Need(machines, fits.bytes_of(at_once), 1, hours, cost, speed.basis)


def _cost(wanted: Wanted, hours: float) -> float | None:
    return None if wanted.price is None else hours * wanted.price
