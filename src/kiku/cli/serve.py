"""`kiku serve`: the service, as it is set on the command line, in the environment or in a file."""

import os
from pathlib import Path
from typing import Annotated

import typer

from kiku.cli import terminal
from kiku.errors import MissingExtra

_Text = str | None


def _option(name: str, metavar: str, help: str) -> typer.models.OptionInfo:
    return typer.Option(name, metavar=metavar, help=help, show_default=False)


def serve(
    config: Annotated[
        Path | None,
        _option("--config", "FILE", "Settings in TOML, named as these options; else KIKU_CONFIG."),
    ] = None,
    host: Annotated[
        _Text, _option("--host", "ADDRESS", "Listen there; else 127.0.0.1, this machine alone.")
    ] = None,
    port: Annotated[
        int | None, _option("--port", "N", "Listen there; else 8080. 0 takes a free one.")
    ] = None,
    wyoming_port: Annotated[
        int | None,
        _option("--wyoming-port", "N", "Answer Home Assistant (Wyoming) there, often 10300."),
    ] = None,
    model: Annotated[
        _Text, _option("--model", "NAME", "demo, a Hugging Face repository, or a folder.")
    ] = None,
    model_alias: Annotated[
        list[str] | None,
        _option(
            "--model-alias",
            "PATTERN",
            "A name that clients may ask for, too; else those of the vendors. Several times.",
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        _option("--language", "CODE", "What the model understands, as en. Several times."),
    ] = None,
    revision: Annotated[
        _Text, _option("--revision", "REV", "Branch, tag or commit of the repository.")
    ] = None,
    engine: Annotated[_Text, _option("--engine", "NAME", "onnx or torch; else the faster.")] = None,
    device: Annotated[
        _Text, _option("--device", "NAME", "cpu, cuda, cuda:1, mps; else the fastest.")
    ] = None,
    dtype: Annotated[
        _Text, _option("--dtype", "NAME", "int8, int4, float32, bfloat16 or float16.")
    ] = None,
    threads: Annotated[
        int | None, _option("--threads", "N", "Threads that compute; else all there are.")
    ] = None,
    slots: Annotated[
        int | None,
        _option("--slots", "N", "Streams and uploads at once; else 8, and 64 on a GPU."),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        _option("--api-key", "KEY", "A client must know one. Several times; or KIKU_API_KEY."),
    ] = None,
    api_keys_file: Annotated[
        Path | None, _option("--api-keys-file", "FILE", "Keys, one a line.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody in, from other machines, too.")
    ] = False,
    allowed_origin: Annotated[
        list[str] | None,
        _option("--allowed-origin", "URL", "Another host's pages that may use it. Several times."),
    ] = None,
    max_queue: Annotated[
        int | None, _option("--max-queue", "N", "Uploads that wait for a slot; else 32.")
    ] = None,
    max_upload_bytes: Annotated[
        int | None, _option("--max-upload-bytes", "N", "Of one upload; else 1 GiB.")
    ] = None,
    max_upload_s: Annotated[
        float | None, _option("--max-upload-s", "SECONDS", "Of one upload's sound; else 6 hours.")
    ] = None,
    idle_s: Annotated[
        float | None,
        _option("--idle-s", "SECONDS", "Close a connection that says nothing; else 15 minutes."),
    ] = None,
    drain_s: Annotated[
        float | None,
        _option("--drain-s", "SECONDS", "At the end, let what is open go on; else 30 s."),
    ] = None,
    session_store: Annotated[
        _Text,
        _option(
            "--session-store",
            "URL",
            "A folder or redis://HOST:PORT/0: other processes may go on with sessions.",
        ),
    ] = None,
    log_level: Annotated[
        _Text, _option("--log-level", "LEVEL", "debug, info, warning or error; else info.")
    ] = None,
    log_format: Annotated[
        _Text, _option("--log-format", "NAME", "text, or json: one object a line.")
    ] = None,
) -> int:
    """Answer the clients of OpenAI, Deepgram, Kyutai and Home Assistant, and a page to talk to.

    Every option, and more of them, may stand in the environment (KIKU_PORT) or in a TOML file; see
    docs/serve.md.
    """
    given = {
        "host": host, "port": port, "wyoming_port": wyoming_port, "model": model,
        "model_alias": _several(model_alias), "languages": _several(language),
        "revision": revision, "engine": engine, "device": device, "dtype": dtype,
        "threads": threads, "slots": slots, "api_key": _several(api_key),
        "api_keys_file": api_keys_file, "insecure": insecure or None,
        "allowed_origin": _several(allowed_origin), "max_queue": max_queue,
        "max_upload_bytes": max_upload_bytes, "max_upload_s": max_upload_s, "idle_s": idle_s,
        "drain_s": drain_s, "session_store": session_store, "log_level": log_level,
        "log_format": log_format,
    }  # fmt: skip
    try:
        from kiku.serve import logs, server
        from kiku.serve.settings import Settings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kiku"):
            raise
        raise MissingExtra("kiku serve", "serve") from error
    settings = Settings.gathered(given, os.environ, config)
    settings.keys()  # before the model is loaded
    logs.set_up(settings)

    def announce(address: str) -> None:
        terminal.echo(f"{settings.model} answers at {address}; Ctrl-C ends it\n")

    server.run(settings, announce)
    return 0


def _several(given: list[str] | None) -> tuple[str, ...] | None:
    return tuple(given) if given else None
