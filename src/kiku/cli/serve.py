"""`kiku serve`: the service, with settings from the command line, the environment or a file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import typer

from kiku.cli import terminal
from kiku.cli.end_request import EndRequest
from kiku.cli.themes import themed
from kiku.errors import ConfigError, MissingExtra


def _option(name: str, metavar: str, help: str) -> typer.models.OptionInfo:
    return typer.Option(name, metavar=metavar, help=help, show_default=False)


# Fields are named as those of `kiku.serve.settings.Settings`; None means not given.


@dataclass(frozen=True, slots=True)
class AddressOptions:
    """The addresses at which clients connect."""

    TITLE: ClassVar[str] = "Addresses"

    host: Annotated[
        str | None,
        _option(
            "--host", "ADDRESS", "Address to listen on. Default: 127.0.0.1, only this machine."
        ),
    ] = None
    port: Annotated[
        int | None,
        _option("--port", "N", "Port to listen on; 0 chooses a free one. Default: 8080."),
    ] = None
    wyoming_port: Annotated[
        int | None,
        _option(
            "--wyoming-port",
            "N",
            "Also listen on this port for Home Assistant (Wyoming); often 10300.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class ServedModelOptions:
    """The model, and where it runs."""

    TITLE: ClassVar[str] = "The model"

    model: Annotated[
        str | None, _option("--model", "NAME", "demo, a Hugging Face repository, or a folder.")
    ] = None
    model_alias: Annotated[
        list[str] | None,
        _option(
            "--model-alias",
            "PATTERN",
            "Further model name that clients may ask for. Can be repeated. Default: the names "
            "that the vendors use.",
        ),
    ] = None
    languages: Annotated[
        list[str] | None,
        _option(
            "--language",
            "CODE",
            "Language that the model understands, such as en. Can be repeated.",
        ),
    ] = None
    revision: Annotated[
        str | None, _option("--revision", "REV", "Branch, tag or commit of the repository.")
    ] = None
    engine: Annotated[
        str | None,
        _option("--engine", "NAME", "onnx, torch or cuda. Default: kiku chooses onnx or torch."),
    ] = None
    device: Annotated[
        str | None, _option("--device", "NAME", "cpu, cuda, cuda:1 or mps. Default: the fastest.")
    ] = None
    dtype: Annotated[
        str | None,
        _option("--dtype", "NAME", "int8, int4, float32, int8_kv8, int4_kv8, bfloat16 or float16."),
    ] = None
    threads: Annotated[
        int | None,
        _option("--threads", "N", "Number of threads that compute. Default: all available."),
    ] = None
    calibration: Annotated[
        Path | None,
        _option(
            "--calibration",
            "FILE",
            "Correct the words' probabilities with this file, written by kiku evaluate "
            "--calibrate.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """Who is let in."""

    TITLE: ClassVar[str] = "Access"

    api_key: Annotated[
        list[str] | None,
        _option(
            "--api-key",
            "KEY",
            "Require this API key from clients. Can be repeated. KIKU_API_KEY does the same.",
        ),
    ] = None
    api_keys_file: Annotated[
        Path | None, _option("--api-keys-file", "FILE", "File of API keys, one on each line.")
    ] = None
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Accept clients without a key, also from other machines."),
    ] = False
    allowed_origin: Annotated[
        list[str] | None,
        _option(
            "--allowed-origin", "URL", "Accept web pages from this other host. Can be repeated."
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class BoundOptions:
    """How much the service takes at once."""

    TITLE: ClassVar[str] = "Limits"

    slots: Annotated[
        int | None,
        _option("--slots", "N", "Streams and uploads at once. Default: 8, or 64 on a GPU."),
    ] = None
    max_queue: Annotated[
        int | None, _option("--max-queue", "N", "Uploads that may wait for a slot. Default: 32.")
    ] = None
    max_upload_bytes: Annotated[
        int | None, _option("--max-upload-bytes", "N", "Size of an upload. Default: 1 GiB.")
    ] = None
    max_upload_s: Annotated[
        float | None,
        _option("--max-upload-s", "SECONDS", "Duration of an upload's sound. Default: 6 hours."),
    ] = None
    idle_s: Annotated[
        float | None,
        _option(
            "--idle-s",
            "SECONDS",
            "Close a connection that sends nothing for this long. Default: 15 minutes.",
        ),
    ] = None
    drain_s: Annotated[
        float | None,
        _option(
            "--drain-s",
            "SECONDS",
            "On shutdown, let open streams and uploads go on for this long. Default: 30 s.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class KeptOptions:
    """What is kept and logged."""

    TITLE: ClassVar[str] = "Sessions and logs"

    session_store: Annotated[
        str | None,
        _option(
            "--session-store",
            "URL",
            "Folder or redis://HOST:PORT/0 for sessions, so that other processes can continue "
            "them.",
        ),
    ] = None
    log_level: Annotated[
        str | None, _option("--log-level", "LEVEL", "debug, info, warning or error. Default: info.")
    ] = None
    log_format: Annotated[
        str | None,
        _option(
            "--log-format", "NAME", "text, or json for one object on each line. Default: text."
        ),
    ] = None


@themed
def serve(
    context: typer.Context,
    address: AddressOptions,
    model: ServedModelOptions,
    access: AccessOptions,
    bounds: BoundOptions,
    kept: KeptOptions,
    config: Annotated[
        Path | None,
        _option(
            "--config",
            "FILE",
            "Settings in TOML, with the names of these options. Default: the file that "
            "KIKU_CONFIG names.",
        ),
    ] = None,
) -> int:
    """Run a server for the clients of OpenAI, Deepgram, Kyutai and Home Assistant, with a page to
    talk to.

    All these options, and more, can also be set in the environment (KIKU_PORT) or in a TOML file;
    see docs/serve.md.
    """
    end_request = context.ensure_object(terminal.Context).end_request or EndRequest()
    try:
        from kiku.serve import logs, server
        from kiku.serve.settings import Settings, warn_of_unknown_names
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kiku"):
            raise
        raise MissingExtra("kiku serve", "serve") from error
    given = dict(_given(address, model, access, bounds, kept))
    try:
        # The command line is checked alone first: a mistake in a file or in the environment must
        # not be reported as one of the command line.
        Settings.gathered(given, {})
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    settings = Settings.gathered(given, os.environ, config)
    settings.keys()  # before the model is loaded
    logs.set_up(settings)
    warn_of_unknown_names(os.environ)

    def announce(address: str) -> None:
        # Clients may connect already, and wait; whether the model can be loaded is not known yet.
        terminal.echo(f"loading {settings.model}; it will answer at {address}; Ctrl-C stops it\n")

    if end_request.has_come:
        terminal.echo("shutting down before the model is loaded\n")
    else:
        server.run(settings, announce, end_request.take)
    return 0


def _given(*themes: Any) -> Iterator[tuple[str, Any]]:
    """The options given on the command line, by the names of the settings."""
    for theme in themes:
        for one in fields(theme):
            value = getattr(theme, one.name)
            if value is None or value is False or value == []:
                continue
            yield one.name, tuple(cast("list[str]", value)) if isinstance(value, list) else value
