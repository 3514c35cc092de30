"""`kiku serve`: the service, with settings from the command line, the environment or a file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import typer

from kiku.cli import terminal
from kiku.cli.themes import themed
from kiku.errors import ConfigError, MissingExtra


def _option(name: str, metavar: str, help: str) -> typer.models.OptionInfo:
    return typer.Option(name, metavar=metavar, help=help, show_default=False)


# Fields are named as those of `kiku.serve.settings.Settings`; None means not given.


@dataclass(frozen=True, slots=True)
class AddressOptions:
    """The addresses at which clients connect."""

    TITLE: ClassVar[str] = "Where it listens"

    host: Annotated[
        str | None, _option("--host", "ADDRESS", "Address; else 127.0.0.1, this machine alone.")
    ] = None
    port: Annotated[int | None, _option("--port", "N", "Else 8080. 0 takes a free one.")] = None
    wyoming_port: Annotated[
        int | None,
        _option("--wyoming-port", "N", "Answer Home Assistant (Wyoming) there, often 10300."),
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
            "A name that clients may ask for, too; else those of the vendors. Several times.",
        ),
    ] = None
    languages: Annotated[
        list[str] | None,
        _option("--language", "CODE", "What the model understands, as en. Several times."),
    ] = None
    revision: Annotated[
        str | None, _option("--revision", "REV", "Branch, tag or commit of the repository.")
    ] = None
    engine: Annotated[
        str | None, _option("--engine", "NAME", "onnx, torch or cuda; else one of the first two.")
    ] = None
    device: Annotated[
        str | None, _option("--device", "NAME", "cpu, cuda, cuda:1, mps; else the fastest.")
    ] = None
    dtype: Annotated[
        str | None, _option("--dtype", "NAME", "int8, int4, float32, bfloat16 or float16.")
    ] = None
    threads: Annotated[
        int | None, _option("--threads", "N", "Threads that compute; else all there are.")
    ] = None


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """Who is let in."""

    TITLE: ClassVar[str] = "Who may come in"

    api_key: Annotated[
        list[str] | None,
        _option("--api-key", "KEY", "A client must know one. Several times; or KIKU_API_KEY."),
    ] = None
    api_keys_file: Annotated[
        Path | None, _option("--api-keys-file", "FILE", "Keys, one a line.")
    ] = None
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody in, from other machines, too.")
    ] = False
    allowed_origin: Annotated[
        list[str] | None,
        _option("--allowed-origin", "URL", "Another host's pages that may use it. Several times."),
    ] = None


@dataclass(frozen=True, slots=True)
class BoundOptions:
    """How much the service takes at once."""

    TITLE: ClassVar[str] = "How much it takes"

    slots: Annotated[
        int | None,
        _option("--slots", "N", "Streams and uploads at once; else 8, and 64 on a GPU."),
    ] = None
    max_queue: Annotated[
        int | None, _option("--max-queue", "N", "Uploads that wait for a slot; else 32.")
    ] = None
    max_upload_bytes: Annotated[
        int | None, _option("--max-upload-bytes", "N", "Of one upload; else 1 GiB.")
    ] = None
    max_upload_s: Annotated[
        float | None, _option("--max-upload-s", "SECONDS", "Of one upload's sound; else 6 hours.")
    ] = None
    idle_s: Annotated[
        float | None,
        _option("--idle-s", "SECONDS", "Close a connection that says nothing; else 15 minutes."),
    ] = None
    drain_s: Annotated[
        float | None,
        _option("--drain-s", "SECONDS", "At the end, let what is open go on; else 30 s."),
    ] = None


@dataclass(frozen=True, slots=True)
class KeptOptions:
    """What is kept and logged."""

    TITLE: ClassVar[str] = "What it keeps and tells"

    session_store: Annotated[
        str | None,
        _option(
            "--session-store",
            "URL",
            "A folder or redis://HOST:PORT/0: other processes may go on with sessions.",
        ),
    ] = None
    log_level: Annotated[
        str | None, _option("--log-level", "LEVEL", "debug, info, warning or error; else info.")
    ] = None
    log_format: Annotated[
        str | None, _option("--log-format", "NAME", "text, or json: one object a line.")
    ] = None


@themed
def serve(
    address: AddressOptions,
    model: ServedModelOptions,
    access: AccessOptions,
    bounds: BoundOptions,
    kept: KeptOptions,
    config: Annotated[
        Path | None,
        _option("--config", "FILE", "Settings in TOML, named as these options; else KIKU_CONFIG."),
    ] = None,
) -> int:
    """Answer the clients of OpenAI, Deepgram, Kyutai and Home Assistant, and a page to talk to.

    Every option, and more of them, may stand in the environment (KIKU_PORT) or in a TOML file; see
    docs/serve.md.
    """
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
        terminal.echo(
            f"loading {settings.model}, which then answers at {address}; Ctrl-C ends it\n"
        )

    server.run(settings, announce)
    return 0


def _given(*themes: Any) -> Iterator[tuple[str, Any]]:
    """The options given on the command line, by the names of the settings."""
    for theme in themes:
        for one in fields(theme):
            value = getattr(theme, one.name)
            if value is None or value is False or value == []:
                continue
            yield one.name, tuple(cast("list[str]", value)) if isinstance(value, list) else value
