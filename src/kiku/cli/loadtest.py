"""`kiku loadtest`: how many clients a service can transcribe at once."""

import asyncio
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiku.cli import terminal
from kiku.cli.inputs import Recording, find_recordings
from kiku.cli.themes import themed
from kiku.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The clients, what they say, and to which service."""

    streams: Annotated[
        int,
        typer.Option("--streams", metavar="N", min=1, help="Number of clients that speak at once."),
    ] = 1
    audio: Annotated[
        list[str] | None,
        typer.Option(
            "--audio",
            metavar="PATH",
            help="Recording, or folder of recordings, for the clients to speak. Can be repeated.",
        ),
    ] = None
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Address of the service.")] = (
        "ws://127.0.0.1:8080"
    )
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", metavar="NAME", help="Protocol of the clients: kiku, kyutai or deepgram."
        ),
    ] = "kiku"
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", metavar="SECONDS", min=1.0, help="Shortest duration of the test."
        ),
    ] = 30.0
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", envvar="KIKU_API_KEY", help="API key of the service."),
    ] = None
    find: Annotated[
        bool,
        typer.Option(
            "--find", help="Find how many clients the service serves in real time, up to --streams."
        ),
    ] = False
    come_back: Annotated[
        bool,
        typer.Option(
            "--come-back", help="Reconnect clients that were cut off, and compare their texts."
        ),
    ] = False
    most_s: Annotated[
        float,
        typer.Option(
            "--most-s", metavar="SECONDS", help="Use at most this much of each recording."
        ),
    ] = 60.0

    def refuse(self, rate: int) -> None:
        """Raise ConfigError for what makes no sense; `rate` is that of the clients' sound."""
        if self.come_back and (self.find or self.protocol != "kiku"):
            raise ConfigError(
                "--come-back needs --protocol kiku and excludes --find; leave one of them out"
            )
        for name, value in (("--most-s", self.most_s), ("--seconds", self.seconds)):
            if not (math.isfinite(value) and value * rate >= 1):
                raise ConfigError(f"{name} must be a number of seconds above 0, not {value:g}")

    @property
    def one_key(self) -> str | None:
        """The key of the clients: the first one if the environment names several."""
        if self.key is None or self.key != os.environ.get("KIKU_API_KEY"):
            return self.key
        return next((one.strip() for one in self.key.split(",") if one.strip()), None)


@themed
def loadtest(options: LoadOptions) -> int:
    """Let clients speak to a service in real time, and measure how long their words take.

    Prints JSON: words, refusals, errors, and percentiles of the latency of words (from the end of
    a word's sound until the word arrives, with the model's own delay) and of the lag of frames.
    --come-back is for a service whose replicas are restarted during the test. It prints how many
    sessions there were, and how many of them were cut off, were lost, or got another text than a
    client alone.
    """
    try:
        from kiku.serve.loadtest import RATE, Load
        from kiku.serve.loadtest_sessions import SessionLoad
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kiku"):
            raise
        raise MissingExtra("kiku loadtest", "serve") from error
    options.refuse(RATE)
    streams, seconds = options.streams, options.seconds
    sounds = _sounds(options.audio or [], RATE, options.most_s)
    if options.come_back:
        sessions = SessionLoad(options.url, sounds, options.one_key)
        back = asyncio.run(sessions.run(streams, seconds))
        terminal.echo(json.dumps(back.to_dict(), indent=2) + "\n")
        return 1 if back.lost or back.different else 0
    load = Load(options.url, options.protocol, sounds, options.one_key)
    if options.find:
        good, reports = asyncio.run(load.find(seconds, streams))
        told = {"in_real_time": good, "runs": [one.to_dict() for one in reports]}
        terminal.echo(json.dumps(told, indent=2) + "\n")
        return 0
    report = asyncio.run(load.run(streams, seconds))
    terminal.echo(json.dumps(report.to_dict(), indent=2) + "\n")
    return 1 if report.errors or report.busy else 0


def _sounds(paths: Sequence[str], rate: int, most_s: float) -> "list[NDArray[np.float32]]":
    """The recordings [S] that are named or are in folders, at most `most_s` seconds of each."""
    import numpy as np

    from kiku.audio import read_chunks

    if not paths:
        raise ConfigError(
            "the clients have nothing to speak; name recordings or a folder with --audio"
        )
    sounds: list[NDArray[np.float32]] = []
    for one in find_recordings([str(Path(path)) for path in paths], recursive=True):
        if not isinstance(one, Recording):
            raise one
        samples = np.concatenate(list(read_chunks(one.source, rate)))
        sounds.append(samples[: int(most_s * rate)])
    return sounds
