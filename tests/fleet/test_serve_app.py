"""The Ray Serve adapter: what becomes of arguments, and how it refuses. Without Ray."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from kiku.converted.manifest import MANIFEST
from kiku.engine import choice
from kiku.errors import ConfigError, MissingExtra
from kiku.fleet import serve_app
from kiku.fleet.serve_app import (
    Scale,
    app,
    application,
    build_app,
    check_ingress,
    deployment_options,
    for_replicas,
    read_arguments,
)
from kiku.serve.app import App
from kiku.serve.service import _default_slots  # pyright: ignore[reportPrivateUsage]
from kiku.serve.settings import Settings

MODE = {"RAY_SERVE_ENABLE_HA_PROXY": "1"}


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")


def test_arguments_are_settings_and_the_scale():
    settings, scale = read_arguments(
        {"model": "demo", "slots": "4", "gpus": 1, "max-replicas": "3", "insecure": True,
         "languages": ["en", "fr"]},
        {"KIKU_SLOTS": "9", "KIKU_THREADS": "2"},
    )  # fmt: skip
    assert (settings.model, settings.slots, settings.threads) == ("demo", 4, 2)
    assert settings.insecure is True
    assert settings.languages == ("en", "fr")
    assert scale == Scale(min_replicas=1, max_replicas=3, gpus=1.0, cpus=1.0)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"slot": 4}, "slot is not known"),
        ({"slots": "four"}, "whole number"),
        ({"gpus": "one"}, "gpus must be a number"),
        ({"min_replicas": 1.5}, "min_replicas must be a whole number"),
        ({"min_replicas": 3}, "max_replicas=1"),
        ({"cpus": -1}, "at least 0"),
        ({"gpus": 0.5}, "gpus of a replica must be 0 or a whole number, not 0.5"),
        ({"gpus": -1}, "gpus of a replica must be"),
    ],
)
def test_arguments_that_cannot_be_are_told(args: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        read_arguments(args, {})


def test_a_replica_has_many_slots_where_its_model_runs_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(choice, "_has_torch_device", lambda: True)
    (tmp_path / MANIFEST).touch()
    assert _default_slots(Settings(model="demo")) == 64
    assert _default_slots(Settings(model=str(tmp_path))) == 8  # converted, for ONNX Runtime
    assert _default_slots(Settings(model="demo", dtype="int8")) == 8


def test_other_modes_of_ray_are_refused(monkeypatch: pytest.MonkeyPatch):
    for name in (*MODE, "RAY_SERVE_ENABLE_DIRECT_INGRESS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="RAY_SERVE_ENABLE_HA_PROXY=1"):
        app({"slots": 4, "insecure": "true"})
    with pytest.raises(ConfigError, match="Python proxy"):
        build_app(Settings(slots=1, threads=1))
    check_ingress(MODE)
    check_ingress({"RAY_SERVE_ENABLE_DIRECT_INGRESS": "1"})


@pytest.mark.usefixtures("direct")
def test_without_keys_or_slots_it_is_refused():
    with pytest.raises(ConfigError, match="--insecure"):
        application(Settings(slots=4), Scale())
    with pytest.raises(ConfigError, match="slots=N"):
        application(Settings(insecure=True), Scale())


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"port": 9000}, "port means nothing on Ray Serve"),
        ({"host": "10.0.0.1"}, "host means nothing"),
        ({"wyoming_port": 10300}, "whose proxy speaks only HTTP: leave it and KIKU_WYOMING_PORT"),
        ({"header_s": 3}, "header_s means nothing"),
        ({"drain_s": 300}, "where RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S says"),
        ({"log_level": "debug"}, "log_level means nothing"),
        ({"log_format": "json"}, "log_format means nothing"),
        ({"device": "cuda", "gpus": 0}, "needs a GPU, and gpus=0"),
        ({"engine": "cuda", "gpus": 0}, "needs a GPU, and gpus=0"),
        ({"device": "cuda:1"}, "give device=cuda"),
    ],
)
def test_what_means_nothing_on_ray_is_refused(args: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        app({"slots": 4, "insecure": True, **args})


def test_a_replica_on_a_gpu_has_one_of_its_own():
    assert Scale().gpus_for(Settings()) == 0
    assert Scale().gpus_for(Settings(engine="cuda")) == 1
    assert Scale(gpus=1).gpus_for(Settings()) == 1
    assert Scale(gpus=2).gpus_for(Settings(device="cuda")) == 2


@pytest.mark.usefixtures("direct")
def test_the_deployment_has_the_settings_of_the_replicas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Serve:
        """What is asked of Ray Serve."""

        options: ClassVar[dict[str, Any]] = {}
        build: Any = None

        def ingress(self, build: Any) -> Any:
            self.build = build
            return lambda one: one

        def deployment(self, **options: Any) -> Any:
            self.options.update(options)
            return lambda one: SimpleNamespace(bind=lambda: one)

    serve, built = Serve(), list[Settings]()
    monkeypatch.setattr(serve_app, "import_ray", lambda *_: serve)
    monkeypatch.setattr(serve_app, "build_app", built.append)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "keys").write_text("secret\n")
    given = {
        "model": "mine", "api_keys_file": "keys", "session_store": "sessions",
        "calibration": "calibration.json",
    }  # fmt: skip
    app({"slots": 4, "device": "cuda", **given})
    assert serve.options["ray_actor_options"]["num_gpus"] == 1
    serve.build()
    (settings,) = built
    # Replicas work in another folder.
    assert settings.model == str(tmp_path / "mine")
    assert settings.api_keys_file == tmp_path / "keys"
    assert settings.session_store == str(tmp_path / "sessions")
    assert settings.calibration == tmp_path / "calibration.json"
    assert (settings.host, settings.drain_s) == ("0.0.0.0", 0.0)
    for store in ("redis://sessions:6379/0", None):
        assert for_replicas(Settings(session_store=store)).session_store == store


@pytest.mark.usefixtures("direct")
def test_without_its_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with pytest.raises(MissingExtra, match=r"'\.\[fleet\]"):
        app({"slots": 4, "insecure": "true"})
    import os

    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"  # before the import


def test_the_deployment_leaves_refusing_to_kiku_and_draining_its_time():
    found = deployment_options(8, Scale(min_replicas=2, max_replicas=2, gpus=1.0, cpus=4.0), {})
    assert found["max_ongoing_requests"] > 8
    assert found["num_replicas"] == 2
    assert "autoscaling_config" not in found
    assert found["ray_actor_options"] == {"num_gpus": 1.0, "num_cpus": 4.0}
    assert found["graceful_shutdown_timeout_s"] > 30
    longer = deployment_options(
        8, Scale(), {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "600"}
    )
    assert longer["graceful_shutdown_timeout_s"] > 600
    with pytest.raises(ConfigError, match="number of seconds"):
        deployment_options(8, Scale(), {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "long"})


def test_replicas_are_counted_by_their_slots():
    found = deployment_options(10, Scale(min_replicas=1, max_replicas=5), {})
    autoscaling = found["autoscaling_config"]
    assert (autoscaling["min_replicas"], autoscaling["max_replicas"]) == (1, 5)
    assert autoscaling["target_ongoing_requests"] == pytest.approx(7.0)
    assert autoscaling["downscale_delay_s"] > 600
    assert "num_replicas" not in found


@pytest.mark.usefixtures("direct")
def test_a_replica_begins_with_its_model():
    made = build_app(Settings(model="demo", slots=2, threads=1))
    assert isinstance(made, App)
    assert made.service.why_not_ready is None
    assert made.service.admission.num_slots == 2
