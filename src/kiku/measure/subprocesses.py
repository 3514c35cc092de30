"""Memory and start-up, each measured in a fresh process: nothing else is in its memory, and its
imports count.

As a program (`python -m kiku.measure.subprocesses JOB`) this is that process: the job comes as
JSON, the result goes to standard output as one line of it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kiku.errors import KikuError

Runner = Callable[[Sequence[str]], str]
"""Runs a command, and gives its standard output."""

_SLOTS = 4
"""Slots whose memory is compared with that of one slot."""


class ChildFailed(KikuError):
    """A process that should measure ended without a result."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes of a process that holds a model: resident, mapped files included."""

    after_load: int
    after_a_minute: int
    """Bytes when one stream has processed a minute of sound."""
    per_slot: int
    """Bytes that another stream takes, once its ring of keys and values is full."""
    libraries: int
    """Bytes before the model was loaded."""
    private: int | None = None
    """Bytes after a minute of sound, without mapped files such as the weights."""
    slots: int = 1
    """Slots of the process that was compared with a process of one slot, for `per_slot`."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class StartUp:
    """Seconds since the process was started."""

    loaded_s: float
    first_tokens_s: float
    """Seconds until the model had given output for the first sound."""
    first_word_s: float | None
    """Seconds until the first word; None if no word was recognized."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)


def run_child(command: Sequence[str]) -> str:
    """Run a command to its end.

    Raises:
        ChildFailed: it ended with an error, or was killed.
    """
    done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ChildFailed(f"measuring failed with exit code {done.returncode}: {last[0]}")
    return done.stdout


def memory(
    model: str,
    *,
    precision: str | None = None,
    threads: int | None = None,
    runner: Runner = run_child,
) -> MemoryUse | None:
    """The memory of a process that holds a model; None where the system does not tell how much
    memory a process has.

    A second process has several slots. The memory of each cannot be seen while it is filled: the
    slots' keys lie in one buffer, of which the system hands out pages of up to 2 MB, so that a slot
    gets a part of the next one's memory. Full buffers hide nothing.

    Args:
        model: what `kiku.load` takes, or the folder of a dummy model.
        precision: as `kiku.load`'s dtype.
        threads: how many threads compute.
        runner: starts the process.

    Raises:
        ChildFailed: the process failed, or gave no result.
    """
    job = {"what": "memory", "model": model, "precision": precision, "threads": threads}
    one = _ask({**job, "slots": 1}, runner)
    several = _ask({**job, "slots": _SLOTS}, runner)
    if one is None or several is None:
        return None
    per_slot = round((several.pop("full") - one.pop("full")) / (_SLOTS - 1))
    return MemoryUse(**one, per_slot=per_slot, slots=_SLOTS)


def start(
    model: str,
    sound: str | Path,
    *,
    precision: str | None = None,
    threads: int | None = None,
    runner: Runner = run_child,
) -> StartUp:
    """How long a fresh process takes until a model has recognized something.

    Args:
        model: as for `memory`.
        sound: a recording.
        precision: as `kiku.load`'s dtype.
        threads: how many threads compute.
        runner: starts the process.

    Raises:
        ChildFailed: the process failed, or gave no result.
    """
    job = {
        "what": "start", "model": model, "precision": precision, "threads": threads,
        "sound": str(sound), "began": time.time(),
    }  # fmt: skip
    found = _ask(job, runner)
    assert found is not None
    return StartUp(**found)


def _ask(job: dict[str, Any], runner: Runner) -> dict[str, Any] | None:
    said = runner([sys.executable, "-m", "kiku.measure.subprocesses", json.dumps(job)])
    try:
        return json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise ChildFailed(f"measuring gave no result but {said[-200:]!r}") from error


def _measure_memory(job: dict[str, Any]) -> dict[str, Any] | None:
    """Bytes of this process: before the model, with it, after a minute of one stream, and when the
    rings of all slots are full."""
    from kiku.measure.dummy import open_model
    from kiku.measure.machine import private_bytes, resident_bytes
    from kiku.measure.speed import Speed, full_ring

    libraries = resident_bytes()
    if libraries is None:
        return None
    count = job["slots"]
    model = open_model(
        job["model"], precision=job["precision"], slots=count, threads=job["threads"]
    )
    found = {"libraries": libraries, "after_load": resident_bytes()}
    config, engine = model.config, model.scheduler.engine
    speed = Speed(engine, config)
    slots = [engine.open(lambda _logits: config.pad_id)[0] for _ in range(count)]
    speed.fill(slots[:1], round(60 * config.frame_rate))
    found |= {"after_a_minute": resident_bytes(), "private": private_bytes()}
    for slot in slots:  # one after the other: a step of several streams would compute with more
        speed.fill([slot], full_ring(config))
    return found | {"full": private_bytes() or resident_bytes()}


def _measure_start(job: dict[str, Any]) -> dict[str, Any]:
    from kiku.audio import read_file
    from kiku.measure.dummy import open_model
    from kiku.scheduler import Member, Opening
    from kiku.stream import WordSession
    from kiku.text import Word

    began = job["began"]
    recognizer = open_model(job["model"], precision=job["precision"], threads=job["threads"])
    loaded_s = time.time() - began
    tokens_s: list[float] = []

    def on_output(_out: object) -> None:
        tokens_s.append(time.time() - began)

    session = WordSession(recognizer.config, recognizer.vocabulary)
    scheduler = recognizer.scheduler
    scheduler.open(Opening([Member(session, on_output=on_output)]))
    chunks = read_file(job["sound"])
    while not session.done:
        chunk = next(chunks, None)
        if chunk is None:
            session.close()
        else:
            session.push(chunk)
        while scheduler.step():
            if any(isinstance(session.next_event(), Word) for _ in range(len(session.events))):
                return StartUp(loaded_s, tokens_s[0], tokens_s[-1]).to_dict()
    return StartUp(loaded_s, tokens_s[0] if tokens_s else loaded_s, None).to_dict()


def main(arguments: Sequence[str]) -> None:
    """Measure what the one argument asks for."""
    job = json.loads(arguments[0])
    found = _measure_memory(job) if job["what"] == "memory" else _measure_start(job)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
