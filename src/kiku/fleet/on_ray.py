"""The processes that transcribe on Ray: actors of Ray Data, each with one model and full slots.

Actors receive paths, never sound. An actor transcribes several blocks at once, in threads that
share its recognizer, so that the end of one block leaves no slot idle; rows come back within a
second after their recordings are done. Ray retries no task: `kiku.fleet.batch`, which knows the
rows that came, asks again for the recordings of a dead actor.
"""

import importlib
import json
import logging
import math
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

from kiku.engine.choice import usable_threads
from kiku.errors import KikuError
from kiku.fleet.batch import Broken, Round, Run, Workers
from kiku.fleet.cluster import LOCAL, cluster_of, refuse_client, refuse_unanswered, unusable
from kiku.fleet.planning import Block
from kiku.fleet.quiet_ray import import_ray, is_connected, without_records
from kiku.fleet.resources import room_for, wait_for_room, why_no_gpu
from kiku.fleet.settings import BatchRequest
from kiku.fleet.sources import Item
from kiku.fleet.transcriber import Transcribed, Transcriber

_LANES = 3
"""Blocks that an actor transcribes at once."""
_AHEAD = 1
"""Blocks that wait at an actor, so that no slot is free while the next one is sent there."""
_ANSWER_S = 120.0
"""Seconds that a machine has to answer: it may have to import PyTorch first."""
_ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt|Exit)\b.*")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _Actor:
    """Runs in a process of Ray: takes blocks, gives rows, both as text."""

    def __init__(self, request: BatchRequest) -> None:
        self._transcriber: Transcriber | None = None
        self._problem = ""
        try:
            self._transcriber = Transcriber(request)
        except KikuError as error:  # raising would count as death, and lose the message
            self._problem = str(error)

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[str]]]:
        """Give the results of a second together: a message of Ray's costs milliseconds."""
        if self._transcriber is None:
            yield {"result": [json.dumps([{"cannot": self._problem}])]}
            return
        for text in batch["block"]:
            block = json.loads(str(text))
            items = [Item(**values) for values in block["items"]]
            try:
                for done in self._transcriber.transcribe(
                    items, alone=block["stage"] == Round.SINGLE
                ):
                    yield {"result": [json.dumps(list(map(asdict, done)))]}
            except Exception as error:
                # With a device that is gone all would fail: end, and let a new process take over.
                print(f"kiku: {type(error).__name__}: {error}; this process ends", flush=True)
                os._exit(1)


class _OnRay:
    """See `kiku.fleet.batch.Workers`."""

    def __init__(self, ray: Any, request: BatchRequest, run: Run) -> None:
        self._ray, self._data = ray, import_ray("kiku.fleet.transcribe", "data")
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        settings = request.settings
        self._remote, room = room_for(nodes, settings, lambda: _why_no_gpus(ray))
        self._actors = run.actors or room
        on_gpu = "num_gpus" in self._remote
        self.slots = settings.slots_on(gpu=on_gpu)
        threads = settings.threads if on_gpu else int(self._remote["num_cpus"])
        self._request = replace(
            request, settings=replace(settings, slots=self.slots, threads=threads)
        )
        self.lanes = self._actors * _LANES

    def transcribe(self, blocks: Sequence[Block], stage: Round) -> Iterator[Transcribed]:
        """See `Workers.transcribe`."""
        actors = min(self._actors, len(blocks))
        lanes, ahead = (_LANES, _AHEAD) if stage is Round.LARGE_BLOCKS else (1, 0)
        if len(blocks) <= actors * lanes:  # so that the first actor does not take another's
            lanes, ahead = math.ceil(len(blocks) / max(1, actors)), 0
        if stage is Round.LARGE_BLOCKS:  # in later rounds our own dead actors may still hold it
            wait_for_room(
                actors, self._remote, self._ray.available_resources, lambda: _held(self._ray)
            )
        with _settings_of(self._data):
            rows = [
                {"block": json.dumps({"stage": stage, "items": list(map(asdict, block))})}
                for block in blocks
            ]
            pool = self._data.ActorPoolStrategy(
                size=actors,
                max_concurrent_calls_per_actor=lanes,
                max_tasks_in_flight_per_actor=lanes + ahead,
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
                for values in chain.from_iterable(map(json.loads, map(str, batch["result"]))):
                    if "cannot" in values:
                        raise KikuError(values["cannot"])
                    yield Transcribed(**values)
        except self._ray.exceptions.RayError as error:
            # Actors died while they loaded, or rows were lost with a node before they were read.
            raise Broken(
                f"no process of the cluster could transcribe any more ({_reason(error)}): run the "
                "same command again; the logs of the cluster say what happened to them"
            ) from error


@contextmanager
def on_ray(request: BatchRequest, run: Run) -> Generator[Workers]:
    """Actors that transcribe, on the cluster of `run`.

    Raises:
        MissingExtra: Ray is not installed.
        InputError: the cluster does not exist or is reached through Ray Client, no machine in it
            has enough processors, or a GPU is asked for and there is none.
    """
    if is_connected():
        ray = import_ray("kiku.fleet.transcribe")
        if ray.util.client.ray.is_connected():
            refuse_client("ray://, which this program is connected to,")
        yield _OnRay(ray, request, run)
        return
    address = cluster_of(run.address)
    with without_records() if address == LOCAL else nullcontext():
        ray = import_ray("kiku.fleet.transcribe")
        _connect(ray, address)
        try:
            yield _OnRay(ray, request, run)
        finally:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    is_new = address == LOCAL
    refuse_unanswered(address)
    more = {"num_cpus": usable_threads()} if is_new else {}
    try:
        ray.init(
            address=address,
            include_dashboard=False if is_new else None,
            # kiku prints its own messages.
            logging_level=logging.ERROR,
            log_to_driver=False,
            **more,
        )
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise unusable(address, _first_line(error)) from error


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


def _held(ray: Any) -> list[str]:
    """What other programs hold of the cluster, one sentence for each; empty if the dashboard does
    not answer."""
    mine = ray.get_runtime_context().get_job_id()
    found = defaultdict[tuple[str, str, str], float](float)
    try:
        state = importlib.import_module("ray.util.state")
        actors = state.list_actors(filters=[("state", "=", "ALIVE")], detail=True, timeout=5)
        tasks = state.list_tasks(filters=[("state", "=", "RUNNING")], detail=True, timeout=5)
    except Exception:  # of any kind: a batch must not end because one line is incomplete
        return []
    for one in (*actors, *tasks):
        name = getattr(one, "class_name", None) or one.name
        wants: dict[str, float] = one.required_resources or {}
        for what in ("GPU", "CPU"):
            count = wants.get(what, 0)
            if count and one.job_id != mine:
                found[what, name, one.job_id] += count
    return [f"{name} of job {job} holds {what}: {n:g}" for (what, name, job), n in found.items()]


@contextmanager
def _settings_of(data: Any) -> Generator[None]:
    """In the block, Ray Data shows no progress bars, gives each message at once, and survives
    actors.

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
