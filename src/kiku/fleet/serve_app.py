"""`kiku serve` on Ray Serve: the same application, in replicas that Ray starts, counts and ends.

    RAY_SERVE_ENABLE_HA_PROXY=1 serve run kiku.fleet.serve_app:app \\
        model=kyutai/stt-1b-en_fr-candle device=cuda slots=64 gpus=1 \\
        min_replicas=2 max_replicas=8 api_keys_file=/etc/kiku/keys

    client -> HAProxy, which Ray runs on each node -> a replica's own port -> kiku.serve.app.App

Sockets never pass through Ray's Python proxy. Each replica has its own slots, and itself refuses
clients for whom it has none. When Ray ends a replica, HAProxy sends it nothing new; its sockets go
on for RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S and are then closed with 1012. docs/fleet.md
says what else must be set.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from kiku.errors import ConfigError
from kiku.fleet.quiet_ray import import_ray
from kiku.fleet.settings import absolute_model

if TYPE_CHECKING:
    from kiku.serve.app import App
    from kiku.serve.settings import Settings

_DIRECT = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_ENABLE_DIRECT_INGRESS")
"""Variables, one of which must be 1, so that sound does not pass through Ray's Python proxy."""

_DRAIN, _DRAIN_S = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", 30.0
"""The variable with the seconds for which sockets of an ending replica go on; Ray's default."""

_GOODBYES_S = 15.0
"""Seconds between the end of the last socket and the end of the process."""

_SURPLUS = 64
"""Requests of a replica in addition to those that hold slots. A request that waits at Ray's own
limit gets no answer, and a limit without a queue refuses everything: so kiku refuses requests
itself, at once, before Ray's limit is reached."""

_WITHOUT_MEANING = {
    "host": "where Ray says on which addresses it listens",
    "port": "where Ray says on which port it listens",
    "wyoming_port": "whose proxy speaks only HTTP",
    "header_s": "whose own server waits for the head of a request",
    "drain_s": f"where {_DRAIN} says how long sockets go on",
    "log_level": "where Ray writes the log",
    "log_format": "where Ray writes the log",
}
"""Settings that would have no effect, and what has instead."""

_BUSY = 0.7
"""Share of the slots that is held when another replica is started."""

_UP_S, _DOWN_S = 10.0, 900.0
"""Seconds for which slots must be too few, or too many, before replicas are started, or ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How many replicas there are, and what each has."""

    min_replicas: int = 1
    max_replicas: int = 1
    """More than `min_replicas` lets Ray start and end replicas by the slots that are held."""
    gpus: float | None = None
    """GPUs of one replica, 0, 1 or more; None is 1 if the settings ask for a GPU, else 0."""
    cpus: float = 1.0
    """CPUs of one replica, as Ray counts them; the number of threads is a separate setting."""

    def __post_init__(self) -> None:
        """Raise ConfigError for invalid values."""
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ConfigError(
                f"min_replicas={self.min_replicas} and max_replicas={self.max_replicas} are not "
                "possible: give at least 1, and max_replicas at least as large as min_replicas"
            )
        if self.cpus < 0:
            raise ConfigError("cpus of a replica must be at least 0")
        if self.gpus is not None and (self.gpus < 0 or self.gpus % 1):
            raise ConfigError(
                f"gpus of a replica must be 0 or a whole number, not {self.gpus:g}: replicas that "
                "share a GPU keep each other waiting"
            )

    def gpus_for(self, settings: "Settings") -> float:
        """GPUs of one replica with these settings.

        Raises:
            ConfigError: it needs one and gets none, or one is named by its number.
        """
        if settings.device is not None and settings.device.startswith("cuda:"):
            raise ConfigError(
                f"device={settings.device} names one GPU of a machine, and each replica sees only "
                "the one that Ray gives it: give device=cuda"
            )
        needs = "cuda" in (settings.device, settings.engine)
        if self.gpus is None:
            return 1.0 if needs else 0.0
        if needs and self.gpus < 1:
            raise ConfigError(
                f"device={settings.device} with engine={settings.engine} needs a GPU, and gpus=0 "
                "gives a replica none: leave gpus out, or give gpus=1"
            )
        return self.gpus


def app(args: Mapping[str, Any]) -> Any:
    """The application, which Ray Serve imports as `kiku.fleet.serve_app:app`.

    Args:
        args: settings of `kiku serve` and fields of `Scale`, by name. Missing settings are taken
            from the environment (`KIKU_SLOTS`).

    Raises:
        ConfigError: an unknown name, an invalid value, or Ray runs in another mode.
        MissingExtra: Ray Serve is not installed.
    """
    settings, scale = read_arguments(args, os.environ)
    return application(settings, scale)


def application(settings: "Settings", scale: Scale) -> Any:
    """A `ray.serve.Application`, for `ray.serve.run`.

    Raises:
        ConfigError: `slots` is missing, no key would be needed, a setting means nothing there, or
            Ray runs in another mode.
        MissingExtra: Ray Serve is not installed.
    """
    check_ingress(os.environ)
    _refuse_without_meaning(settings)
    settings = for_replicas(settings)
    settings.keys()
    if settings.slots is None:
        raise ConfigError("Ray counts replicas by their slots: give slots=N")
    scale = replace(scale, gpus=scale.gpus_for(settings))
    serve = import_ray("kiku.fleet.serve_app", "serve")
    ingress = serve.ingress(_builder(settings))(_Replica)
    return serve.deployment(name="kiku", **deployment_options(settings.slots, scale, os.environ))(
        ingress
    ).bind()


def _refuse_without_meaning(settings: "Settings") -> None:
    defaults = type(settings)()
    for name, instead in _WITHOUT_MEANING.items():
        if getattr(settings, name) != getattr(defaults, name):
            raise ConfigError(
                f"{name} means nothing on Ray Serve, {instead}: leave it and KIKU_{name.upper()} "
                "out"
            )


def for_replicas(settings: "Settings") -> "Settings":
    """The settings for processes that Ray starts, in another working folder."""
    keys, store = settings.api_keys_file, settings.session_store
    calibration = settings.calibration
    return replace(
        settings,
        host="0.0.0.0",  # Ray's ports are open on all addresses of its nodes
        drain_s=0.0,  # Ray drains sockets before kiku could
        model=absolute_model(settings.model),
        api_keys_file=None if keys is None else keys.absolute(),
        calibration=None if calibration is None else calibration.absolute(),
        session_store=os.path.abspath(store) if store and "://" not in store else store,
    )


class _Replica:
    """The class of Ray's replicas; all behaviour is in the ASGI application."""


def _builder(settings: "Settings") -> "Callable[[], App]":
    def build() -> "App":
        return build_app(settings)

    return build


def build_app(settings: "Settings") -> "App":
    """The application with its model; called when a replica starts, and takes a while.

    Raises:
        KikuError: the model cannot be loaded, or the node runs Ray in another mode.
    """
    from kiku.serve.app import App
    from kiku.serve.service import Service

    check_ingress(os.environ)
    service = Service(settings)
    service.load()
    return App(service)


def deployment_options(slots: int, scale: Scale, environment: Mapping[str, str]) -> dict[str, Any]:
    """The options of the deployment."""
    found: dict[str, Any] = {
        "max_ongoing_requests": slots + _SURPLUS,
        "max_queued_requests": 1,
        "ray_actor_options": {"num_gpus": scale.gpus or 0.0, "num_cpus": scale.cpus},
        "graceful_shutdown_timeout_s": drain_s(environment) + _GOODBYES_S,
        "graceful_shutdown_wait_loop_s": 0.5,
    }
    if scale.min_replicas == scale.max_replicas:
        return {**found, "num_replicas": scale.min_replicas}
    autoscaling = {
        "min_replicas": scale.min_replicas, "max_replicas": scale.max_replicas,
        "target_ongoing_requests": _BUSY * slots,
        "upscale_delay_s": _UP_S, "downscale_delay_s": _DOWN_S,
    }  # fmt: skip
    return {**found, "autoscaling_config": autoscaling}


def drain_s(environment: Mapping[str, str]) -> float:
    """Seconds for which sockets of an ending replica may go on.

    Raises:
        ConfigError: the variable of the environment is no number.
    """
    text = environment.get(_DRAIN, str(_DRAIN_S))
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{_DRAIN} must be a number of seconds, not {text!r}") from None


def check_ingress(environment: Mapping[str, str]) -> None:
    """Check that sound will not pass through Ray's Python proxy.

    Raises:
        ConfigError: it would.
    """
    if not any(environment.get(name) == "1" for name in _DIRECT):
        raise ConfigError(
            "Ray Serve would send every frame through its Python proxy, which costs more than "
            f"transcribing it: set {_DIRECT[0]}=1 where Ray is started, and here"
        )


def read_arguments(
    args: Mapping[str, Any], environment: Mapping[str, str]
) -> "tuple[Settings, Scale]":
    """Settings and scale from arguments, which are strings on a command line.

    Raises:
        ConfigError: an unknown name, or an invalid value.
    """
    from kiku.serve.settings import PREFIX, Settings

    texts = {name.replace("-", "_"): _text(value) for name, value in args.items()}
    ours = {one.name: one.type for one in fields(Scale)}
    known = {one.name for one in fields(Settings)} | ours.keys()
    for name in texts:
        if name not in known:
            raise ConfigError(f"{name} is not known: choose from {', '.join(sorted(known))}")
    numbers: dict[str, Any] = {}
    for name, kind in ours.items():
        if name in texts:
            numbers[name] = _number(name, texts.pop(name), whole=kind is int)
    given = {PREFIX + name.upper(): text for name, text in texts.items()}
    return Settings.gathered({}, {**environment, **given}), Scale(**numbers)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(str(one) for one in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(name: str, text: str, *, whole: bool) -> float:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        what = "a whole number" if whole else "a number"
        raise ConfigError(f"{name} must be {what}, not {text!r}") from None
