"""From the sources to the rows, whatever dies on the way.

What is missing is handed out in rounds. In the first, blocks are large; what is not answered since
a process died goes again in blocks of as many recordings as there are slots; what is not answered
then goes once more, alone; and what kills its process alone is told as a row. Nobody here knows who
hears: processes of Ray, or of a test.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kiku.errors import InputError, KikuError
from kiku.fleet.planning import Block, Lengths, blocks_of, lengths_of, within
from kiku.fleet.progress import Counter, Progress
from kiku.fleet.rows import Key, key_of, row_of_problem
from kiku.fleet.settings import ModelSettings, Request
from kiku.fleet.sources import Item, Sources, find_items
from kiku.fleet.store import CAPTIONS, ROW_FORMATS, Store
from kiku.fleet.transcriber import Transcribed
from kiku.options import StreamOptions

OnProgress = Callable[[Progress], object]

KILLED = (
    "its process died each time that it was heard, at last alone: the recording may be "
    "made to break decoders, or too large for the memory; convert it and run the same command with "
    "--retry-failed (`Run.retry_failed`)"
)


@dataclass(frozen=True, slots=True)
class Run:
    """Where and how much of it."""

    address: str | None = None
    """Of a Ray cluster: "auto", "HOST:PORT", "ray://HOST:PORT"; None starts one on this machine,
    unless the program is connected to one."""
    actors: int | None = None
    """Processes that hear; None is as many as there is room for."""
    limit_hours: float | None = None
    """Of sound, of what is missing; None has all of it heard."""
    retry_failed: bool = False
    """Hear again what could not be heard whole. Its old row stays until there is a new one."""

    def __post_init__(self) -> None:
        """Raise InputError for what cannot be."""
        if self.actors is not None and self.actors < 1:
            raise InputError(f"actors must be at least 1, not {self.actors}")
        if self.limit_hours is not None and not self.limit_hours > 0:
            raise InputError(f"limit_hours must be above 0, not {self.limit_hours}")


@dataclass(frozen=True, slots=True)
class Survey:
    """What a batch has to do."""

    items: list[Item]
    """That are missing, within the limit."""
    lengths: Lengths
    """Of these."""
    files: int
    """Recordings that were named."""
    finished: int
    """Of these."""
    failed_before: int
    """Of the finished: could not be heard whole."""

    @property
    def hours(self) -> float:
        """Of sound that are missing, about."""
        return self.lengths.total_s / 3600


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a batch."""

    survey: Survey
    progress: Progress
    """At its end."""
    output: str
    killed: list[str] = field(default_factory=list[str])
    """Recordings that killed their process."""


Stage = Literal["many", "few", "alone"]
"""The rounds: see the top of this file. From the second on a process has one block at a time, so
that no other dies with it."""


class Broken(KikuError):
    """A round came to an end before its time: what is left of it may be asked for again."""


class Workers(Protocol):
    """Processes that transcribe."""

    lanes: int
    """Blocks that all of them together hear at once in the first round."""
    slots: int
    """Recordings that one of them hears at once."""

    def transcribe(self, blocks: Sequence[Block], stage: Stage) -> Iterator[Transcribed]:
        """Each recording when it is done; those of a process that died do not come.

        Raises:
            Broken: not all blocks were handed out.
            KikuError: no process can hear anything, such as without a model.
        """
        ...


MakeWorkers = Callable[[Request, Run], AbstractContextManager[Workers]]


def transcribe(
    sources: Sources,
    output: str | os.PathLike[str],
    *,
    model: str | ModelSettings = "demo",
    options: StreamOptions | None = None,
    formats: Sequence[str] = ("jsonl",),
    run: Run | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Hear many recordings on Ray, and write a row for each; a second call does what is missing.

    Args:
        sources: files, folders (with all folders inside them), patterns or manifests (JSON lines
            with a path in each), here or wherever fsspec reads: "s3://calls/2026".
        output: a folder, here or there.
        model: as `kiku.load` takes it, or `ModelSettings`.
        options: what is heard, and how.
        formats: "jsonl" or "parquet" for the rows, and captions beside: "srt", "vtt", "txt", "tsv".
        run: on which cluster, and how much of it.
        on_progress: is told whenever a recording is done, in this thread.

    Raises:
        InputError: a source leads nowhere, or a format is not known.
        OutputError: the folder cannot be written.
        MissingExtra: the extra `fleet` is not installed.
        KikuError: the model cannot be loaded.
    """
    from kiku.fleet.on_ray import on_ray

    settings = ModelSettings(model) if isinstance(model, str) else model
    request = Request(settings, options or StreamOptions())
    return heard_by(on_ray, sources, os.fspath(output), request, formats, run, on_progress)


def survey(
    sources: Sources,
    output: str | os.PathLike[str],
    *,
    model: str | ModelSettings = "demo",
    options: StreamOptions | None = None,
    run: Run | None = None,
) -> Survey:
    """What `transcribe` would have to do: nothing is heard or written, and Ray is not needed.

    Raises:
        KikuError: as `transcribe`.
    """
    settings = ModelSettings(model) if isinstance(model, str) else model
    request, run = Request(settings, options or StreamOptions()), run or Run()
    request.check()
    items = find_items(sources)
    with Store(os.fspath(output), writing=False) as store:
        return _survey(items, store.finished(request), request, run)


def _survey(
    items: Sequence[Item], finished: Mapping[Key, bool], request: Request, run: Run
) -> Survey:
    there = [finished.get(key_of(item, request).written) for item in items]
    done = [whole is True or (whole is False and not run.retry_failed) for whole in there]
    failed = sum(is_done and whole is False for whole, is_done in zip(there, done, strict=True))
    missing = [item for item, is_done in zip(items, done, strict=True) if not is_done]
    lengths = lengths_of(missing).between(request.options.start_s, request.options.end_s)
    count = within(lengths.seconds, None if run.limit_hours is None else run.limit_hours * 3600)
    lengths = Lengths(lengths.seconds[:count], lengths.stated)
    return Survey(missing[:count], lengths, len(items), sum(done), failed)


def heard_by(
    make: MakeWorkers,
    sources: Sources,
    output: str,
    request: Request,
    formats: Sequence[str] = ("jsonl",),
    run: Run | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """As `transcribe`, by whoever `make` makes."""
    run = run or Run()
    _check(formats)
    request.check()
    items = find_items(sources)
    with Store(output, formats) as store:
        todo = _survey(items, store.finished(request), request, run)
        counter = Counter(len(todo.items), todo.lengths.total_s)
        if not todo.items:
            return Report(todo, counter.now(), output)
        _check_names(items, store)  # all: those that are finished lie there, too
        _check_owners(todo.items, request, store)
        store.begin(request)
        work = _Work(todo, request, store, counter, on_progress)
        with make(request, run) as workers:
            work.all(workers)
        return Report(todo, counter.now(), output, work.killed)


def _check(formats: Sequence[str]) -> None:
    known = (*ROW_FORMATS, *CAPTIONS)
    for name in formats:
        if name not in known:
            raise InputError(f"{name!r} is no format of a batch; there are {', '.join(known)}")
    if set(ROW_FORMATS) <= set(formats):
        raise InputError(f"rows are written in one format: choose one of {', '.join(ROW_FORMATS)}")


def _check_names(items: Sequence[Item], store: Store) -> None:
    """Refuse captions that would replace one another."""
    taken: dict[str, Item] = {}
    for item in items if store.has_captions else ():
        other = taken.setdefault(store.called(item.name), item)
        if other is not item:
            raise InputError(
                f"the captions of {other.path} and {item.path} would both be called {item.name}: "
                "name a folder that holds both, or use two runs and two folders"
            )


def _check_owners(items: Sequence[Item], request: Request, store: Store) -> None:
    """Refuse captions that would replace those of another run."""
    for item in items if store.has_captions else ():
        key, owner = key_of(item, request).written, store.owner_of(item.name)
        if owner is None or owner._replace(size=key.size) == key:
            continue  # of a size that it had before they are replaced: it is the same recording
        raise InputError(
            f"the captions of {item.path} would be called {item.name}, as those of {owner.path} "
            f"are, by {owner.model} with options {owner.options}: name another folder for these, "
            "or ask for rows alone"
        )


class _Work:
    """What is left to do of one run."""

    def __init__(
        self, todo: Survey, request: Request, store: Store, counter: Counter,
        on_progress: OnProgress | None,
    ) -> None:  # fmt: skip
        self.killed: list[str] = []
        self._request, self._store = request, store
        self._counter, self._on_progress = counter, on_progress
        self._left = {item.path: item for item in todo.items}
        self._seconds = {
            item.path: seconds
            for item, seconds in zip(todo.items, todo.lengths.seconds, strict=True)
        }

    def all(self, workers: Workers) -> None:
        """Have all of it heard, in rounds; see the top of this file."""
        items = list(self._left.values())
        lengths = [self._seconds[item.path] for item in items]
        least = -(-workers.slots // 2)
        blocks = list(blocks_of(items, lengths, lanes=workers.lanes, least=least))
        self._round(workers, blocks, "many")
        self._round(workers, self._left_in(workers.slots), "few")
        self._round(workers, self._left_in(1), "alone")
        for item in list(self._left.values()):
            self.killed.append(item.path)
            self._take(
                Transcribed(item.path, [row_of_problem(key_of(item, self._request), KILLED)])
            )

    def _left_in(self, most: int) -> list[Block]:
        left = list(self._left.values())
        return [left[first : first + most] for first in range(0, len(left), most)]

    def _round(self, workers: Workers, blocks: Sequence[Block], stage: Stage) -> None:
        """Hand out all blocks; where that breaks off, what is left of them, as long as something
        is done each time."""
        while blocks:
            before = len(self._left)
            try:
                for heard in workers.transcribe(blocks, stage):
                    self._take(heard)
                return
            except Broken:
                if len(self._left) == before:
                    raise
            left = [[item for item in block if item.path in self._left] for block in blocks]
            blocks = [block for block in left if block]

    def _take(self, heard: Transcribed) -> None:
        item = self._left.pop(heard.path, None)
        if item is None:  # which was answered before: a process may be asked twice
            return
        first = heard.rows[0]
        each = self._request.options.channel == "each"
        self._store.add(item.name, heard.rows, each=each)
        failed = first["problem"] is not None
        self._counter.add(self._seconds[item.path], first["duration"], failed=failed)
        if self._on_progress is not None:
            self._on_progress(self._counter.now())
