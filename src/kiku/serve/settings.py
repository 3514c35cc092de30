"""Settings of a service: options of `kiku serve`, `KIKU_*` of the environment, a TOML file."""

import difflib
import ipaddress
import logging
import math
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, cast, get_args, get_origin

from kiku.errors import ConfigError

DEFAULT_ALIASES = (
    "whisper-*",
    "gpt-4o-transcribe",
    "gpt-4o-transcribe-20*",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-20*",
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
    "nova-*",
    "flux-*",
)
"""Names under which vendors' clients ask for a model by default. Those of models that tell speakers
apart (`gpt-4o-transcribe-diarize`) are not among them: their answers are of another form."""

SECRET = frozenset({"api_key", "session_key", "session_store"})
"""Settings whose values are in no error, as they may hold passwords."""

PREFIX = "KIKU_"

OTHER_NAMES = frozenset({
    "KIKU_CACHE", "KIKU_CONFIG", "KIKU_DEBUG", "KIKU_KERNELS", "KIKU_KERNELS_LIBRARY",
    "KIKU_KERNELS_NEEDED", "KIKU_KERNELS_TARGET", "KIKU_GOLDEN_CLIPS", "KIKU_GOLDEN_TOKENS",
    "KIKU_PARITY_REPORT", "KIKU_WEIGHTS",
})  # fmt: skip
"""Names in the environment that other parts of kiku, and its tests, read."""

# Kubernetes sets these in every pod, for a Service named kiku, or kiku-something.
_OF_KUBERNETES = re.compile(r"KIKU_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP|SCTP)\w*)")

# A scheme, a host and perhaps a port: browsers send nothing else of an address.
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/*@?#:\[\]]+)(?::(\d+))?/?")

_LANGUAGE = re.compile("[a-z]{2,3}")

_WITH_PORT = re.compile(r"([^:]+|\[.*\]):\d+")

_AT_LEAST_ONE = (
    "slots", "threads", "max_connections", "max_connections_per_key", "max_requests_per_minute",
    "max_message_bytes", "max_upload_bytes", "decoder_bytes",
)  # fmt: skip
_MORE_THAN_0 = ("header_s", "body_s", "max_upload_s", "read_ahead_s")

_DEFAULT_PORTS = {"http": 80, "https": 443}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, with its default."""

    host: str = "127.0.0.1"
    """Address to listen on; one that other machines can reach needs keys, or `insecure`."""
    port: int = 8080
    """Port to listen on; 0 chooses a free one."""
    wyoming_port: int | None = None
    """Port for Wyoming's clients; if None, they are not served."""

    model: str = "demo"
    """"demo", a Hugging Face repository, or a folder."""
    model_alias: tuple[str, ...] = DEFAULT_ALIASES
    """Further names of the model; `*` matches anything."""
    languages: tuple[str, ...] = ()
    """Languages that the model understands, as ISO-639-1 codes; if empty, those in its name."""
    revision: str | None = None
    """Branch, tag or commit of the repository."""
    engine: str = "auto"
    """onnx, torch or cuda; auto chooses one of the first two."""
    device: str | None = None
    """cpu, cuda, cuda:1 or mps; None chooses the fastest."""
    dtype: str | None = None
    """int8, int4, float32, int8_kv8 or int4_kv8; also bfloat16 or float16 with torch and cuda."""
    threads: int | None = None
    """Number of threads that compute, at most all available; None means all of them."""
    calibration: Path | None = None
    """File that `kiku evaluate --calibrate` wrote, which corrects the words' probabilities."""
    slots: int | None = None
    """Streams and uploads at the same time; None means 8 on a processor and 64 on a GPU."""

    api_key: tuple[str, ...] = ()
    """API keys; a client must send one of them. If empty, clients need no key."""
    api_keys_file: Path | None = None
    """A file with one API key on each line; lines that begin with # are comments."""
    insecure: bool = False
    """Listen on any address without API keys."""
    allowed_origin: tuple[str, ...] = ()
    """Other hosts whose web pages may use this service, such as https://example.org."""

    max_queue: int = 32
    """Uploads that may wait for a slot; further ones are refused."""
    queue_s: float = 60.0
    """Seconds that an upload waits for a slot before it is refused."""
    max_connections: int = 2_000
    """Sockets and uploads that are open at the same time, at most."""
    max_connections_per_key: int = 1_000
    """Most of them with one API key; without keys, from one address."""
    max_requests_per_minute: int = 6_000
    """Most requests in a minute with one API key; without a known key, from one address."""
    max_message_bytes: int = 21 * 2**20
    """Most bytes in one message on a socket; OpenAI's may be 15 MiB in base64."""
    max_upload_bytes: int = 2**30
    """Most bytes in one upload."""
    max_upload_s: float = 6 * 3600.0
    """Most seconds of sound in one upload."""
    read_ahead_s: float = 3600.0
    """Seconds of sound kept for one stream if sound arrives faster than it is processed."""
    read_ahead_bytes: int = 2**30
    """Bytes of such sound for all streams together, in the formats of their clients; one stream may
    use half of it."""
    idle_s: float = 900.0
    """Seconds without a message after which a connection is closed."""
    header_s: float = 10.0
    """Seconds within which the head of a request must arrive."""
    body_s: float = 30.0
    """Seconds within which the next piece of a request's body must arrive."""
    write_s: float = 30.0
    """Seconds within which a client must read what is sent to it."""
    decoder_bytes: int = 2**30
    """Most bytes of memory for a process that decodes a recording."""
    resume_s: float = 60.0
    """Seconds that a stream that was cut off waits for its client to come back."""
    session_store: str | None = None
    """redis://HOST:PORT/0 or a folder for sessions, so that other processes can continue them; it
    contains what people have just said. None keeps sessions only in this process."""
    session_key: str | None = None
    """Key to sign the streams that a process saves there as it ends; the same for all processes."""
    drain_s: float = 30.0
    """Seconds that open streams and uploads may go on when the service shuts down."""

    log_level: str = "info"
    """debug, info, warning or error."""
    log_format: str = "text"
    """text, or json for one object on each line."""
    log_text: bool = False
    """Write the transcribed text to the log."""

    def __post_init__(self) -> None:
        """Raise ConfigError for values that are not valid."""
        if self.api_keys_file is not None:
            self._set("api_keys_file", Path(_at_home(self.api_keys_file)))
        if self.calibration is not None:
            self._set("calibration", Path(_at_home(self.calibration)))
        if self.session_store is not None:
            self._set("session_store", _at_home(self.session_store))
        self._set("model", _at_home(self.model))
        self._set("log_level", self.log_level.lower())
        self._set("allowed_origin", tuple(map(_origin, self.allowed_origin)))
        for one in fields(self):
            value = getattr(self, one.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{_flag(one.name)} must be at least 0, not {value}")
        for name in ("port", "wyoming_port"):
            if (getattr(self, name) or 0) > 65_535:
                raise ConfigError(f"{_flag(name)} must be at most 65535, not {getattr(self, name)}")
        for name in _AT_LEAST_ONE:
            if getattr(self, name) == 0:
                raise ConfigError(f"{_flag(name)} must be at least 1, not 0")
        for name in _MORE_THAN_0:
            if getattr(self, name) == 0:
                raise ConfigError(f"{_flag(name)} must be more than 0")
        if _WITH_PORT.fullmatch(self.host):
            raise ConfigError(f"--host must have no port, not {self.host!r}: give it to --port")
        if not all(key.strip() for key in self.api_key):
            raise ConfigError("--api-key must not be empty")
        for language in self.languages:
            if not _LANGUAGE.fullmatch(language):
                raise ConfigError(
                    f"--language must be the code of a language, such as en, not {language!r}"
                )
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ConfigError(
                f"--log-level must be debug, info, warning or error, not {self.log_level!r}"
            )
        if self.log_format not in ("text", "json"):
            raise ConfigError(f"--log-format must be text or json, not {self.log_format!r}")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def keys(self) -> frozenset[str]:
        """All keys that let a client in; if empty, every client is let in.

        Raises:
            ConfigError: the file of keys cannot be read, or holds none; or every client would be
                let in from other machines.
        """
        keys = {key for key in self.api_key if key}
        if self.api_keys_file is not None:
            try:
                # Notepad begins a file with a byte order mark, which would get into the first key.
                lines = self.api_keys_file.read_text("utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"the keys in {self.api_keys_file} cannot be read: {error}"
                ) from None
            found = {line.strip() for line in lines if not line.lstrip().startswith("#")} - {""}
            if not found:
                raise ConfigError(f"{self.api_keys_file} contains no key: write one on each line")
            keys |= found
        if not keys and not self.insecure and not is_loopback(self.host):
            raise ConfigError(
                f"--host {self.host} can be reached from other machines, and there is no key: "
                "give --api-key or --api-keys-file, or --insecure to accept clients without a key"
            )
        return frozenset(keys)

    @classmethod
    def gathered(
        cls,
        given: Mapping[str, Any],
        environment: Mapping[str, str],
        file: Path | None = None,
    ) -> Self:
        """Settings from all places: what is given counts before the environment, and that before
        the file.

        Args:
            given: values by name; one that is None counts as not given.
            environment: `KIKU_PORT` and the like; lists with commas.
            file: TOML, with the names of the fields ("-" may stand for "_"), whose paths are
                relative to its folder; None is `KIKU_CONFIG`.

        Raises:
            ConfigError: a name is not known, or a value is not valid.
        """
        if file is None and environment.get(f"{PREFIX}CONFIG"):
            file = Path(environment[f"{PREFIX}CONFIG"])
        kinds = {one.name: one.type for one in fields(cls)}
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        if file is not None:
            values |= _from_file(Path(_at_home(file)), kinds)
            sources |= {name: f"{name.replace('_', '-')} in {file}" for name in values}
        for name, kind in kinds.items():
            variable = PREFIX + name.upper()
            text = environment.get(variable)
            if text is not None:
                values[name], sources[name] = _parsed(text, kind, variable), variable
        for name, value in given.items():
            if value is not None:
                values[name] = value
                sources.pop(name, None)
        if values.get("api_key") == ():  # else all clients would be let in
            raise ConfigError(f"{sources.get('api_key', '--api-key')} must not be empty")
        try:
            return cls(**values)
        except ConfigError as error:
            option, _, rest = str(error).partition(" ")
            source = {_flag(name): source for name, source in sources.items()}.get(option)
            raise error if source is None else ConfigError(f"{source} {rest}") from None


def _from_file(path: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"the settings in {path} cannot be read: {error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in kinds and isinstance(value, dict):
            raise ConfigError(f"{path} has a table [{key}]: write its lines above all tables")
        if name not in kinds:
            known = [one.replace("_", "-") for one in kinds]
            raise ConfigError(f"{path} sets {key}, which is not known; {_nearest(key, known)}")
        shown = "" if name in SECRET else f", not {value!r}"
        checked = _checked(value, kinds[name], f"{key} in {path}", shown)
        values[name] = _relative_to(path, checked) if _is_path(name, checked) else checked
    return values


_PATHS = ("api_keys_file", "calibration", "session_store")


def _is_path(name: str, value: Any) -> bool:
    """Whether a setting's value is a path; a model may also be a repository."""
    return name in _PATHS or (name == "model" and value.startswith((".", "~", "/")))


def _relative_to(file: Path, path: str | Path) -> Any:
    """A path that stands in `file`, relative to its folder; an address stays as it is."""
    if "://" in str(path) or not str(path):
        return path
    return type(path)(file.parent / _at_home(path))


def _at_home(path: str | Path) -> str:
    """A path whose ~ is replaced by the home folder, as no shell does in a file or in quotes."""
    return os.path.expanduser(path)


def _origin(given: str) -> str:
    """A page's origin as browsers name it.

    Raises:
        ConfigError: it is no origin, and would match no page.
    """
    if given == "null":  # of pages that are files, or in a sandbox
        return given
    found = _ORIGIN.fullmatch(given.lower())
    if found is None:
        example = given if re.fullmatch(r"[\w.-]+(:\d+)?", given) else "example.org"
        raise ConfigError(
            "--allowed-origin must be the scheme and the host of pages, such as "
            f"https://{example}, not {given!r}"
        )
    scheme, host, port = found.groups()
    is_told = port is not None and int(port) != _DEFAULT_PORTS.get(scheme)
    return f"{scheme}://{host}:{port}" if is_told else f"{scheme}://{host}"


def _nearest(name: str, known: Collection[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {prefix}{near[0]}?" if near else "docs/serve.md lists the settings"


def unknown_names(environment: Mapping[str, str]) -> Iterator[str]:
    """Sentences, one for each name in the environment that looks like a setting and is none."""
    known = [one.name.upper() for one in fields(Settings)]
    for name, value in sorted(environment.items()):
        bare = name.removeprefix(PREFIX)
        if not name.startswith(PREFIX) or bare in known or name in OTHER_NAMES:
            continue
        if _OF_KUBERNETES.fullmatch(name) or value.startswith(("tcp://", "udp://")):
            continue
        near = _nearest(bare, known, PREFIX)
        yield f"{name} is set, but is not a setting of kiku serve; {near}"


def warn_of_unknown_names(environment: Mapping[str, str]) -> None:
    """Log names that are set in the environment and change nothing."""
    for message in unknown_names(environment):
        _log.warning("%s", message)


def _checked(value: Any, kind: Any, what: str, shown: str) -> Any:
    """A value of TOML, as one of the kind; the error says `what` it is, and has it as `shown`."""
    wanted = _plain(kind)
    if get_origin(wanted) is tuple:
        items = cast("list[Any]", value if isinstance(value, list) else [value])
        if all(isinstance(item, str) for item in items):
            return tuple(items)
    elif wanted is Path and isinstance(value, str) and value:
        return Path(value)
    elif wanted is float and type(value) in (int, float):
        return float(value)
    elif type(value) is wanted:
        return value
    raise ConfigError(f"{what} must be {_named(wanted)}{shown}")


def _parsed(text: str, kind: Any, what: str) -> Any:
    """A text of the environment, as a value of the kind."""
    wanted = _plain(kind)
    try:
        if get_origin(wanted) is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if wanted is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False,
                    "": False}[text.strip().lower()]  # fmt: skip
        if wanted is Path and not text:  # which would be the working folder
            raise ValueError
        return wanted(text)
    except (ValueError, KeyError):
        raise ConfigError(f"{what} must be {_named(wanted)}, not {text!r}") from None


def _plain(kind: Any) -> Any:
    """`kind` without "or None"."""
    options = [one for one in get_args(kind) if one is not type(None)]
    return options[0] if options and get_origin(kind) is not tuple else kind


def _named(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "a list of texts"
    names = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}
    return names.get(kind, "a text")


def _flag(name: str) -> str:
    if name == "languages":
        return "--language"
    return "--" + name.replace("_", "-")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
