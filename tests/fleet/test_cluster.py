"""Which cluster a batch goes to, and what is said of one that cannot be used; without Ray."""

import os
import socket
import sys
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from kiku import fleet
from kiku.errors import InputError
from kiku.fleet import on_ray
from kiku.fleet.cluster import cluster_of, refuse_unanswered
from kiku.fleet.settings import BatchRequest, ModelSettings

HEAD = "127.0.0.1:6379"


@pytest.mark.parametrize(
    ("named", "environment", "found"),
    [
        (None, None, "local"),
        (None, "", "local"),
        (None, HEAD, HEAD),
        (None, "local", "local"),
        ("auto", None, "auto"),
        ("auto", HEAD, HEAD),
        ("local", HEAD, "local"),
        ("other:6379", HEAD, "other:6379"),
    ],
)
def test_the_address_is_the_one_that_is_named_or_rays_own(
    monkeypatch: pytest.MonkeyPatch, named: str | None, environment: str | None, found: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    assert cluster_of(named) == found


def test_ray_client_is_refused_with_what_to_use_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    says = (
        "ray://head:10001 is an address of Ray Client, .* does not work with it: give .*HOST:6379.*"
    )
    with pytest.raises(InputError, match=says + "ray job submit .* kiku transcribe --ray auto"):
        fleet.Run("ray://head:10001")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(InputError, match=says):
        cluster_of("auto")


class _Ray:
    """Ray, as far as a connection goes."""

    def __init__(self, *, initialized: bool = False, client: bool = False) -> None:
        self._initialized = initialized
        stub = SimpleNamespace(is_connected=lambda: client)
        self.util = SimpleNamespace(client=SimpleNamespace(ray=stub))
        self.exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))
        self.fails: Exception | None = None
        self.asked: list[dict[str, Any]] = []
        self.saw: dict[str, str] = {}

    def is_initialized(self) -> bool:
        return self._initialized

    def init(self, **options: Any) -> None:
        self.asked.append(options)
        self.saw = dict(os.environ)
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`use(ray, address)`: as far as a batch gets with it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def go(ray: _Ray, address: str | None) -> None:
        monkeypatch.setitem(sys.modules, "ray", cast("ModuleType", ray))
        with on_ray.on_ray(BatchRequest(ModelSettings()), fleet.Run(address)):
            pass

    return go


def test_a_program_that_is_connected_through_ray_client_is_told(use: Any) -> None:
    with pytest.raises(InputError, match="which this program is connected to, is an address of"):
        use(_Ray(initialized=True, client=True), None)


@pytest.mark.parametrize("kind", ["ours", "Ray's"])
def test_a_cluster_that_lets_nobody_in_is_one_sentence(use: Any, kind: str) -> None:
    ray = _Ray()
    why = "no token was found\nmore of it"
    ray.fails = RuntimeError(why) if kind == "ours" else ray.exceptions.RayError(why)
    says = r"on this machine \(no token was found\): .* needs RAY_AUTH_MODE=token here"
    with pytest.raises(InputError, match=says):
        use(ray, "auto")
    assert ray.asked[0]["address"] == "auto"
    assert "num_cpus" not in ray.asked[0]  # which only a new one may be told


def test_a_new_one_is_told_how_many_processors_it_has(use: Any) -> None:
    ray = _Ray()
    ray.fails = RuntimeError("it goes no further")
    with pytest.raises(InputError):
        use(ray, None)
    assert ray.asked[0]["address"] == "local"
    assert ray.asked[0]["num_cpus"] >= 1


METRICS, TASKS = "RAY_enable_metrics_collection", "RAY_task_events_report_interval_ms"


def test_a_new_one_notes_nothing_of_itself_unless_the_environment_wants_it(
    use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(METRICS, raising=False)
    monkeypatch.setenv(TASKS, "500")
    ray = _Ray()
    ray.fails = RuntimeError("it goes no further")
    with pytest.raises(InputError):
        use(ray, "local")
    assert (ray.saw[METRICS], ray.saw["RAY_event_stats"], ray.saw[TASKS]) == ("0", "0", "500")
    assert METRICS not in os.environ  # a Ray that the program starts later has what is Ray's own
    assert os.environ[TASKS] == "500"


def test_a_cluster_of_others_notes_what_it_likes(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(METRICS, raising=False)
    ray = _Ray()
    ray.fails = RuntimeError("it goes no further")
    with pytest.raises(InputError):
        use(ray, "auto")
    assert METRICS not in ray.saw


def test_where_nobody_listens_ray_is_not_asked(use: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refuse_unanswered(f"127.0.0.1:{port}")
    ray = _Ray()
    with pytest.raises(InputError, match=rf"nothing answers at 127.0.0.1:{port} \("):
        use(ray, f"127.0.0.1:{port}")
    assert not ray.asked
    with pytest.raises(InputError, match=r"nothing answers at 127\.0\.0\.1:99999"):
        refuse_unanswered("127.0.0.1:99999")
