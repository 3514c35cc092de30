"""The processes that transcribe on Ray: actors of Ray Data, each with one model and full slots.

Actors receive paths, never sound. An actor transcribes several blocks at once, in threads that
share its recognizer, so that the end of one block leaves no slot idle; a row comes back as soon as
its recording is done. Ray retries no task: `kiku.fleet.batch`, which knows the rows that came, asks
again for the recordings of a dead actor.
"""

import importlib
import json
import logging
import os
import re
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from kiku.engine.choice import usable_threads
from kiku.errors import InputError, KikuError
from kiku.fleet.batch import Broken, Run, Stage, Workers
from kiku.fleet.planning import Block
from kiku.fleet.quiet_ray import import_ray
from kiku.fleet.resources import room_for, why_no_gpu
from kiku.fleet.settings import Request
from kiku.fleet.sources import Item
from kiku.fleet.transcriber import Transcribed, Transcriber

_LANES = 3
"""Blocks that an actor transcribes at once."""
_CPU_SLOTS, _GPU_SLOTS = 8, 64
_ANSWER_S = 120.0
"""Seconds that a machine has to answer: it may have to import PyTorch first."""
_ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt|Exit)\b.*")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _Actor:
    """Runs in a process of Ray: takes blocks, gives rows, both as text."""

    def __init__(self, request: Request) -> None:
        self._transcriber: Transcriber | None = None
        self._problem = ""
        try:
            self._transcriber = Transcriber(request)
        except KikuError as error:  # raising would count as death, and lose the message
            self._problem = str(error)

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[str]]]:
        """Give each row as soon as it is there."""
        if self._transcriber is None:
            yield {"heard": [json.dumps({"cannot": self._problem})]}
            return
        for text in batch["block"]:
            block = json.loads(str(text))
            items = [Item(**values) for values in block["items"]]
            try:
                for heard in self._transcriber.transcribe(items, alone=block["stage"] == "alone"):
                    yield {"heard": [json.dumps(asdict(heard))]}
            except Exception as error:
                # With a device that is gone all would fail: end, and let a new process take over.
                print(f"kiku: {type(error).__name__}: {error}; this process ends", flush=True)
                os._exit(1)


class _OnRay:
    """See `kiku.fleet.batch.Workers`."""

    def __init__(self, ray: Any, request: Request, run: Run) -> None:
        self._ray, self._data = ray, import_ray("kiku.fleet.transcribe", "data")
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        settings = request.settings
        self._remote, room = room_for(nodes, settings, lambda: _why_no_gpus(ray))
        self._actors = run.actors or room
        on_gpu = "num_gpus" in self._remote
        self.slots = settings.slots or (_GPU_SLOTS if on_gpu else _CPU_SLOTS)
        threads = settings.threads if on_gpu else int(self._remote["num_cpus"])
        self._request = replace(
            request, settings=replace(settings, slots=self.slots, threads=threads)
        )
        self.lanes = self._actors * _LANES

    def transcribe(self, blocks: Sequence[Block], stage: Stage) -> Iterator[Transcribed]:
        """See `Workers.transcribe`."""
        lanes = _LANES if stage == "many" else 1
        with _settings_of(self._data):
            rows = [
                {"block": json.dumps({"stage": stage, "items": list(map(asdict, block))})}
                for block in blocks
            ]
            pool = self._data.ActorPoolStrategy(
                size=min(self._actors, len(rows)),
                max_concurrent_calls_per_actor=lanes,
                max_tasks_in_flight_per_actor=lanes,
                enable_true_multi_threading=True,
            )
            with warnings.catch_warnings():
                # Ray has no other way to say what becomes of the tasks of an actor that dies.
                warnings.filterwarnings("ignore", ".*`ray_remote_args` is deprecated")
                dataset = self._data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                    _Actor, fn_constructor_args=(self._request,), batch_size=1, compute=pool,
                    max_restarts=-1, max_task_retries=0, **self._remote,
                )  # fmt: skip
            yield from self._answers(dataset)

    def _answers(self, dataset: Any) -> Iterator[Transcribed]:
        try:
            for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
                for text in batch["heard"]:
                    values = json.loads(str(text))
                    if "cannot" in values:
                        raise KikuError(values["cannot"])
                    yield Transcribed(**values)
        except self._ray.exceptions.RayError as error:
            # Actors died while they loaded, or rows were lost with a node before they were read.
            raise Broken(
                f"no process of the cluster could hear anything more ({_reason(error)}): run "
                "the same command again; where the cluster keeps its logs is what became of them"
            ) from error


@contextmanager
def on_ray(request: Request, run: Run) -> Generator[Workers]:
    """Actors that transcribe, on the cluster of `run`.

    Raises:
        MissingExtra: Ray is not installed.
        InputError: the cluster does not exist, no machine in it has enough processors, or a GPU is
            asked for and there is none.
    """
    ray = import_ray("kiku.fleet.transcribe")
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(ray, run.address)
    try:
        yield _OnRay(ray, request, run)
    finally:
        if is_ours:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    more = {"num_cpus": usable_threads()} if address is None else {}
    try:
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            # kiku prints its own messages.
            logging_level=logging.ERROR,
            log_to_driver=False,
            **more,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"there is no Ray cluster at {address or 'this machine'} ({_first_line(error)}): check "
            "the address, and that this machine may reach it"
        ) from error


def _why_no_gpus(ray: Any) -> list[str]:
    """Why machines with GPUs cannot use them, a sentence for each; all are asked at once."""
    by_node = importlib.import_module(
        "ray.util.scheduling_strategies"
    ).NodeAffinitySchedulingStrategy
    asked = {
        ray.remote(why_no_gpu)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=by_node(node["NodeID"], soft=False))
        .remote(): node["NodeManagerHostname"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU")
    }
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    found = {one: f"does not answer within {_ANSWER_S:g} s" for one in late}
    for one in done:
        try:
            found[one] = ray.get(one)
        except ray.exceptions.RayError as error:
            found[one] = _reason(error)
    return [f"on {asked[one]} {why}" for one, why in found.items() if why]


@contextmanager
def _settings_of(data: Any) -> Generator[None]:
    """In the block, Ray Data shows no progress bars, gives each row at once, and survives actors.

    It goes on if an actor dies: missing recordings are asked for again.
    """
    wanted = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "max_errored_blocks": -1,
        "max_consecutive_actor_init_deaths": 3,
        "target_max_block_size": 1,
    }
    context, logger = data.DataContext.get_current(), logging.getLogger("ray.data")
    before, level = {name: getattr(context, name) for name in wanted}, logger.level
    for name, value in wanted.items():
        setattr(context, name, value)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """The cause in an error of Ray's: the last line that names an error, or the first line."""
    lines = _COLOUR.sub("", str(error)).strip().splitlines()
    named = [line for line in lines[1:] if _ERROR.match(line)]
    return named[-1] if named else _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
