"""What becomes an actor of Ray, and how many there are; Ray itself is not needed for it."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

import kiku
from kiku.converted.manifest import MANIFEST
from kiku.errors import CheckpointError, InputError
from kiku.fleet import on_ray
from kiku.fleet.batch import Round, Run
from kiku.fleet.on_ray import _Actor, _held, _reason  # pyright: ignore[reportPrivateUsage]
from kiku.fleet.resources import room_for, wait_for_room, why_no_gpu
from kiku.fleet.settings import BatchRequest, ModelSettings
from kiku.fleet.sources import Item
from tests.cli.simple import SimpleBackend, simple_recognizer
from tests.fleet.conftest import MakeSpeech

BIG, SMALL, HEAD = {"CPU": 16.0}, {"CPU": 6.0, "memory": 1e9}, {"object_store_memory": 1.0}
GPUS = {"CPU": 32.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("settings", "nodes", "each", "count"),
    [
        ({}, [BIG, SMALL, HEAD], {"num_cpus": 4}, 5),
        ({}, [{"CPU": 2.0}], {"num_cpus": 2}, 1),
        ({"threads": 1}, [{"CPU": 2.0}], {"num_cpus": 1}, 2),
        ({"threads": 8}, [BIG, SMALL], {"num_cpus": 8}, 2),
        ({}, [GPUS, BIG], {"num_gpus": 1, "num_cpus": 1}, 4),
        ({"device": "cuda"}, [GPUS], {"num_gpus": 1, "num_cpus": 1}, 4),
        ({"engine": "cuda"}, [GPUS], {"num_gpus": 1, "num_cpus": 1}, 4),
        ({}, [{"CPU": 2.0, "GPU": 4.0}, GPUS], {"num_gpus": 1, "num_cpus": 1}, 6),
        ({}, [{"GPU": 4.0}, BIG], {"num_cpus": 4}, 4),
        ({"device": "cpu"}, [GPUS], {"num_cpus": 4}, 8),
        ({"device": "auto"}, [GPUS], {"num_gpus": 1, "num_cpus": 1}, 4),
        ({"engine": "onnx"}, [GPUS], {"num_cpus": 4}, 8),
        ({"dtype": "int8"}, [GPUS], {"num_cpus": 4}, 8),
        ({"dtype": "int4"}, [GPUS], {"num_cpus": 4}, 8),
        ({"dtype": "float32"}, [GPUS], {"num_gpus": 1, "num_cpus": 1}, 4),
    ],
)
def test_an_actor_has_a_gpu_or_some_processors(
    settings: dict[str, Any], nodes: list[dict[str, float]], each: dict[str, float], count: int
) -> None:
    assert room_for(nodes, ModelSettings(**settings), list) == (each, count)


def test_a_converted_model_has_processors(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).touch()
    assert room_for([GPUS], ModelSettings(str(tmp_path)), list) == ({"num_cpus": 4}, 8)


def test_no_machine_has_so_many_processors() -> None:
    with pytest.raises(InputError, match="has 20 processors, the largest has 16"):
        room_for([BIG, SMALL], ModelSettings(threads=20), list)


@pytest.mark.parametrize("settings", [{}, {"engine": "torch"}])
def test_gpus_that_machines_cannot_use_are_left_alone(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    problems = ["on one PyTorch is not installed", "on two it is built for processors"]
    found = room_for([GPUS, BIG], ModelSettings(**settings), lambda: problems)
    assert found == ({"num_cpus": 4}, 12)
    assert "not used: on one PyTorch is not installed; on two it is built" in caplog.text


@pytest.mark.parametrize("settings", [{"device": "cuda"}, {"engine": "cuda"}])
def test_a_gpu_that_is_wanted_and_is_not_there_is_told_before_anything_waits(
    settings: dict[str, Any],
) -> None:
    (name,) = settings
    with pytest.raises(InputError, match=f"{name}='cuda' needs a GPU: no machine of the cluster"):
        room_for([BIG, {"GPU": 1.0}], ModelSettings(**settings), list)
    with pytest.raises(InputError, match=f"{name}='cuda' needs a GPU: on one there is none"):
        room_for([GPUS], ModelSettings(**settings), lambda: ["on one there is none"])


def test_a_gpu_has_no_number_on_a_cluster() -> None:
    with pytest.raises(InputError, match="give device='cuda'"):
        room_for([GPUS], ModelSettings(device="cuda:1"), list)


class _Rest:
    """What is free, look by look, and how often one waits in between."""

    def __init__(self, *free: dict[str, float]) -> None:
        self._free, self.pauses = list(free), 0

    def look(self) -> dict[str, float]:
        return self._free.pop(0) if len(self._free) > 1 else self._free[0]

    def pause(self, _: float) -> None:
        self.pauses += 1


EACH = {"num_gpus": 1, "num_cpus": 1}


def test_what_is_free_soon_is_waited_for_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    rest = _Rest({"CPU": 8.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 2.0}, GPUS)
    wait_for_room(2, EACH, rest.look, lambda: ["somebody"], rest.pause)
    assert rest.pauses == 3
    assert not caplog.text


def test_what_is_waited_for_and_who_holds_it_is_told_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rest = _Rest({"CPU": 8.0, "GPU": 1.0})
    held = ["LLM of job 02 holds GPU: 3", "Web of job 03 holds CPU: 1"]
    wait_for_room(4, EACH, rest.look, lambda: held, rest.pause)
    assert [one.getMessage() for one in caplog.records] == [
        "3 of 4 actors are waiting for room (each needs GPU: 1 and CPU: 1; free are GPU: 1, CPU: "
        "8): LLM of job 02 holds GPU: 3; Web of job 03 holds CPU: 1"
    ]
    assert rest.pauses > 1
    caplog.clear()
    wait_for_room(4, {"num_cpus": 4}, rest.look, list, rest.pause)
    assert "2 of 4 actors are waiting" in caplog.text
    assert "'ray status' on the head says what is held" in caplog.text


def test_who_holds_something_is_asked_of_the_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(job: str, resources: dict[str, float] | None, **names: str) -> SimpleNamespace:
        return SimpleNamespace(job_id=job, required_resources=resources, **names)

    actors = [one("02", {"GPU": 1.0, "CPU": 1.0}, class_name="LLM", name="named")] * 2
    actors += [one("01", {"CPU": 1.0}, class_name="Ours"), one("03", None, class_name="Idle")]
    tasks = [one("03", {"CPU": 2.0}, name="busy")]
    asked: list[Any] = []

    def answer(found: list[Any], *, filters: Any, **_: Any) -> list[Any]:
        asked.append(filters)
        return found

    state = SimpleNamespace(list_actors=partial(answer, actors), list_tasks=partial(answer, tasks))
    monkeypatch.setitem(sys.modules, "ray.util.state", cast("ModuleType", state))
    context = SimpleNamespace(get_job_id=lambda: "01")
    ray = SimpleNamespace(get_runtime_context=lambda: context)
    assert _held(ray) == [
        "LLM of job 02 holds GPU: 2",
        "LLM of job 02 holds CPU: 2",
        "busy of job 03 holds CPU: 2",
    ]
    assert asked == [[("state", "=", "ALIVE")], [("state", "=", "RUNNING")]]
    del state.list_tasks
    assert _held(ray) == []


class FakeData:
    """`ray.data`: notes what is asked of it, and answers that each recording is done."""

    def __init__(self) -> None:
        self.pools: list[dict[str, Any]] = []
        self.maps: list[dict[str, Any]] = []
        names = ("enable_progress_bars", "print_on_execution_start", "max_errored_blocks",
                 "max_consecutive_actor_init_deaths", "target_max_block_size")  # fmt: skip
        self.context = SimpleNamespace(**dict.fromkeys(names))
        self.DataContext = SimpleNamespace(get_current=lambda: self.context)

    def ActorPoolStrategy(self, **given: Any) -> None:
        self.pools.append(given)

    def from_items(self, rows: list[dict[str, str]], *, override_num_blocks: int) -> Any:
        assert override_num_blocks == len(rows)  # else blocks would be handed out together
        items = [item for row in rows for item in json.loads(row["block"])["items"]]
        done = [{"path": item["path"], "rows": []} for item in items]
        sent = [json.dumps(done[:2]), json.dumps(done[2:])]

        def map_batches(actor: Any, **given: Any) -> Any:
            assert actor is _Actor
            self.maps.append({**given, "survives": self.context.max_errored_blocks})
            return SimpleNamespace(iter_batches=lambda **_: iter([{"result": sent}]))

        return SimpleNamespace(map_batches=map_batches)


def test_what_is_asked_of_ray_data(monkeypatch: pytest.MonkeyPatch) -> None:
    data = FakeData()
    monkeypatch.setattr(on_ray, "import_ray", lambda *_: data)
    ray = SimpleNamespace(
        nodes=lambda: [{"Alive": True, "Resources": SMALL}, {"Alive": False, "Resources": BIG}],
        available_resources=lambda: SMALL,
        exceptions=SimpleNamespace(RayError=RuntimeError),
    )
    request = BatchRequest(ModelSettings("simple", threads=3))
    workers = on_ray._OnRay(ray, request, Run())  # pyright: ignore[reportPrivateUsage]
    assert (workers.lanes, workers.slots) == (6, 8)  # two actors of three processors
    blocks = [[Item(f"/{name}.wav", 1)] for name in "abc"]
    for stage in Round:
        done = [one.path for one in workers.transcribe(blocks, stage)]
        assert done == ["/a.wav", "/b.wav", "/c.wav"]
    # In the first round an actor's slots stay full over the end of a block, and the next one is
    # there; later a death takes nothing else with it.
    many = [[Item(f"/{name}.wav", 1)] for name in "abcdefg"]
    assert len(list(workers.transcribe(many, Round.LARGE_BLOCKS))) == 7
    # Where there are few blocks, no actor takes another's.
    for pool, lanes, there in zip(data.pools, [2, 1, 1, 3], [2, 1, 1, 4], strict=True):
        assert pool == {
            "size": 2, "enable_true_multi_threading": True,
            "max_concurrent_calls_per_actor": lanes, "max_tasks_in_flight_per_actor": there,
        }  # fmt: skip
    for given in data.maps:
        (sent,) = given["fn_constructor_args"]
        assert (sent.settings.slots, sent.settings.threads) == (8, 3)
        # An actor that dies is started again, and Ray tries none of its tasks again.
        assert (given["max_restarts"], given["max_task_retries"]) == (-1, 0)
        assert (given["batch_size"], given["num_cpus"], given["survives"]) == (1, 3, -1)
    assert data.context.max_errored_blocks is None  # as it was before


def test_why_pytorch_can_use_no_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, why in (("12.8", ""), (None, "PyTorch 3.0 is built for processors")):
        version = SimpleNamespace(cuda=cuda, hip=None)
        torch = SimpleNamespace(version=version, __version__="3.0")
        monkeypatch.setitem(sys.modules, "torch", torch)
        assert why_no_gpu() == why
    monkeypatch.setitem(sys.modules, "torch", None)
    assert why_no_gpu().startswith("PyTorch is not installed")


def test_what_ray_says_is_told_by_what_is_at_its_bottom() -> None:
    raised = (
        "The actor died because of an error raised in its creation task, \x1b[36mray::MapWorker()"
        "\x1b[39m (pid=1)\nTraceback (most recent call last):\n  File ...\n"
        "ModuleNotFoundError: No module named 'kiku'"
    )
    assert _reason(RuntimeError(raised)) == "ModuleNotFoundError: No module named 'kiku'"
    died = "The actor died unexpectedly before finishing this task.\n\tclass_name: MapWorker"
    assert _reason(RuntimeError(died)) == died.splitlines()[0]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> SimpleBackend:
    """Of the model that actors load."""
    backend = SimpleBackend(2)

    def load(model: str, **_: Any) -> kiku.Recognizer:
        return simple_recognizer(backend, model)

    monkeypatch.setattr(kiku, "load", load)
    return backend


@pytest.fixture
def batch(speech: MakeSpeech, tmp_path: Path) -> Callable[[str], dict[str, list[str]]]:
    """`batch(stage)`: a block with two recordings, as Ray hands it over."""
    items = [
        {"path": str(speech(tmp_path / f"{number}.wav", 0.8 + number)), "size": 1}
        for number in range(2)
    ]
    return lambda stage: {"block": [json.dumps({"stage": stage, "items": items})]}


@pytest.mark.usefixtures("backend")
def test_a_block_becomes_rows(batch: Callable[[str], dict[str, list[str]]]) -> None:
    actor = _Actor(BatchRequest(ModelSettings("simple")))
    heard = [json.loads(text) for one in actor(batch("many")) for text in one["result"]]
    said = [[one["rows"][0]["text"] for one in some] for some in heard]
    assert said == [["zero"], ["zero one two"]]


def test_without_its_model_it_says_why(
    batch: Callable[[str], dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(model: str, **_: Any) -> kiku.Recognizer:
        raise CheckpointError(f"{model} is not here")

    monkeypatch.setattr(kiku, "load", load)
    (said,) = _Actor(BatchRequest(ModelSettings("simple")))(batch("many"))
    assert said == {"result": ['[{"cannot": "simple is not here"}]']}


def test_it_ends_where_something_unexpected_happens_unless_it_is_the_last_time(
    backend: SimpleBackend,
    batch: Callable[[str], dict[str, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(on_ray.os, "_exit", end)
    actor = _Actor(BatchRequest(ModelSettings("simple")))
    backend.break_at = 5
    with pytest.raises(Ended):
        list(actor(batch("few")))
    problems = [
        done["rows"][0]["problem"]
        for one in actor(batch("alone"))
        for text in one["result"]
        for done in json.loads(text)
    ]
    assert problems == ["unexpected RuntimeError: the device fell off the table"] * 2
