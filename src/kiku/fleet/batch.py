"""Run a batch from the sources to the rows, even if processes die on the way.

Missing recordings are handed out in rounds. In the first round blocks are large. Recordings without
a result, because a process died, go again in blocks of as many recordings as a process has slots;
those still without a result go once more, each alone; and one that kills its process even alone
gets a row that says so. This module does not know which processes transcribe: Ray's, or a test's.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from kiku.errors import InputError, KikuError
from kiku.fleet.cluster import refuse_client
from kiku.fleet.planning import Block, Lengths, blocks_of, lengths_of, within
from kiku.fleet.progress import Counter, Progress
from kiku.fleet.rows import row_key, row_of_problem
from kiku.fleet.settings import BatchRequest, ModelSettings
from kiku.fleet.sources import Item, Sources, find_items
from kiku.fleet.store import CAPTIONS, ROW_FORMATS, RowStore
from kiku.fleet.transcriber import Transcribed
from kiku.options import StreamOptions

OnProgress = Callable[[Progress], object]

KILLED = (
    "the process died each time that it transcribed this recording, the last time alone: the "
    "recording may be made to break decoders, or too large for the memory; convert it and run "
    "the same command with --retry-failed (`Run.retry_failed`)"
)


@dataclass(frozen=True, slots=True)
class Run:
    """Where a batch runs, and how much of it."""

    address: str | None = None
    """Address of a Ray cluster: "HOST:PORT", "auto", or "local", which starts one on this machine.
    None is the cluster that the program is connected to, or the one in RAY_ADDRESS, else "local".
    """
    actors: int | None = None
    """Processes that transcribe; None is as many as there is room for."""
    limit_hours: float | None = None
    """Hours of missing sound to transcribe; None transcribes all of it."""
    retry_failed: bool = False
    """Transcribe recordings again that failed, whole or in part. Their old rows stay until there
    are new ones."""

    def __post_init__(self) -> None:
        """Raise InputError for invalid values."""
        refuse_client(self.address)
        if self.actors is not None and self.actors < 1:
            raise InputError(f"actors must be at least 1, not {self.actors}")
        if self.limit_hours is not None and not self.limit_hours > 0:
            raise InputError(f"limit_hours must be above 0, not {self.limit_hours}")


@dataclass(frozen=True, slots=True)
class Survey:
    """The work that a batch has to do."""

    items: list[Item]
    """Recordings that are missing, within the limit."""
    lengths: Lengths
    """Lengths of these recordings."""
    files: int
    """Number of recordings that the sources name."""
    finished: int
    """How many of the named recordings are finished."""
    failed_before: int
    """How many of the finished ones failed, whole or in part."""

    @property
    def hours(self) -> float:
        """Estimated hours of sound of the missing recordings."""
        return self.lengths.total_s / 3600


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a batch."""

    survey: Survey
    progress: Progress
    """The progress at its end."""
    output: str
    killed: list[str] = field(default_factory=list[str])
    """Paths of recordings that killed their process."""


class Round(StrEnum):
    """The rounds: see the top of this file.

    From the second round on a process has one block at a time, so that no other block is lost with
    it.
    """

    LARGE_BLOCKS = "many"
    SMALL_BLOCKS = "few"
    SINGLE = "alone"


class Broken(KikuError):
    """A round ended early: the rest of it may be asked for again."""


class Workers(Protocol):
    """Processes that transcribe."""

    lanes: int
    """Blocks that all processes together transcribe at once in the first round."""
    slots: int
    """Recordings that one process transcribes at once."""

    def transcribe(self, blocks: Sequence[Block], stage: Round) -> Iterator[Transcribed]:
        """Give each recording when it is done; those of a process that died are missing.

        Raises:
            Broken: not all blocks were handed out.
            KikuError: no process can transcribe anything, for example without a model.
        """
        ...


MakeWorkers = Callable[[BatchRequest, Run], AbstractContextManager[Workers]]


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
    """Transcribe many recordings on Ray and write a row for each; a second call does the rest.

    Args:
        sources: files, folders (with all folders inside them), patterns or manifests (JSON lines
            with a path in each), on this machine or wherever fsspec reads: "s3://calls/2026".
        output: a folder, on this machine or wherever fsspec writes.
        model: as `kiku.load` takes it, or `ModelSettings`.
        options: what is transcribed, and how.
        formats: "jsonl" or "parquet" for the rows, and captions as well: "srt", "vtt", "txt",
            "tsv".
        run: on which cluster, and how much of the batch.
        on_progress: is called in this thread before Ray is reached, and whenever a recording is
            done.

    Raises:
        InputError: a source leads to no recording, or a format is unknown.
        OutputError: the folder cannot be written.
        MissingExtra: the extra `fleet` is not installed.
        KikuError: the model cannot be loaded.
    """
    from kiku.fleet.on_ray import on_ray

    settings = ModelSettings(model) if isinstance(model, str) else model
    request = BatchRequest(settings, options or StreamOptions())
    return run_batch(on_ray, sources, os.fspath(output), request, formats, run, on_progress)


def survey(
    sources: Sources,
    output: str | os.PathLike[str],
    *,
    model: str | ModelSettings = "demo",
    options: StreamOptions | None = None,
    formats: Sequence[str] = ("jsonl",),
    run: Run | None = None,
) -> Survey:
    """The work that `transcribe` would do. Nothing is transcribed or written; Ray is not needed.

    What `transcribe` refuses before it starts Ray is refused here, too.

    Raises:
        KikuError: as `transcribe`.
    """
    settings = ModelSettings(model) if isinstance(model, str) else model
    request, run = BatchRequest(settings, options or StreamOptions()), run or Run()
    _check(formats)
    request.check()
    items = find_items(sources)
    with RowStore(os.fspath(output), formats, writing=False) as store:
        return _survey(items, store, request, run)


def _survey(items: Sequence[Item], store: RowStore, request: BatchRequest, run: Run) -> Survey:
    """The work of `items`, whose captions may not replace others."""
    finished = store.finished(request)
    there = [finished.get(row_key(item, request).written) for item in items]
    done = [whole is True or (whole is False and not run.retry_failed) for whole in there]
    failed = sum(is_done and whole is False for whole, is_done in zip(there, done, strict=True))
    missing = [item for item, is_done in zip(items, done, strict=True) if not is_done]
    lengths = lengths_of(missing).between(request.options.start_s, request.options.end_s)
    count = within(lengths.seconds, None if run.limit_hours is None else run.limit_hours * 3600)
    lengths = Lengths(lengths.seconds[:count], lengths.stated)
    if count:
        _check_names(items, store)  # all items: captions of finished ones are there, too
        _check_owners(missing[:count], request, store)
    return Survey(missing[:count], lengths, len(items), sum(done), failed)


def run_batch(
    make: MakeWorkers,
    sources: Sources,
    output: str,
    request: BatchRequest,
    formats: Sequence[str] = ("jsonl",),
    run: Run | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """As `transcribe`, with the processes that `make` starts."""
    run = run or Run()
    _check(formats)
    request.check()
    items = find_items(sources)
    with RowStore(output, formats) as store:
        todo = _survey(items, store, request, run)
        counter = Counter(len(todo.items), todo.lengths.total_s)
        if not todo.items:
            return Report(todo, counter.now(), output)
        store.begin(request)
        work = _Work(todo, request, store, counter, on_progress)
        work.show()
        with make(request, run) as workers:
            work.all(workers)
        return Report(todo, counter.now(), output, work.killed)


def _check(formats: Sequence[str]) -> None:
    known = (*ROW_FORMATS, *CAPTIONS)
    for name in formats:
        if name not in known:
            raise InputError(f"{name!r} is not a format of a batch; choose from {', '.join(known)}")
    if set(ROW_FORMATS) <= set(formats):
        raise InputError(f"rows are written in one format: choose one of {', '.join(ROW_FORMATS)}")


def _check_names(items: Sequence[Item], store: RowStore) -> None:
    """Refuse captions that would replace one another."""
    taken: dict[str, Item] = {}
    for item in items if store.has_captions else ():
        other = taken.setdefault(store.normalised_name(item.name), item)
        if other is not item:
            raise InputError(
                f"the captions of {other.path} and {item.path} would both be called {item.name}: "
                "name a folder that contains both, or use two runs and two folders"
            )


def _check_owners(items: Sequence[Item], request: BatchRequest, store: RowStore) -> None:
    """Refuse captions that would replace those of another run."""
    for item in items if store.has_captions else ():
        key, owner = row_key(item, request).written, store.owner_of(item.name)
        if owner is None or owner._replace(size=key.size) == key:
            continue  # the same recording, perhaps with another size before: replace its captions
        raise InputError(
            f"the captions of {item.path} would be called {item.name}, like those of "
            f"{owner.path}, made by {owner.model} with options {owner.options}: name another "
            "folder for these, or ask only for rows"
        )


class _Work:
    """The rest of the work of one run."""

    def __init__(
        self, todo: Survey, request: BatchRequest, store: RowStore, counter: Counter,
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
        """Have all of it transcribed, in rounds; see the top of this file."""
        items = list(self._left.values())
        lengths = [self._seconds[item.path] for item in items]
        least = -(-workers.slots // 2)
        blocks = list(blocks_of(items, lengths, lanes=workers.lanes, least=least))
        self._round(workers, blocks, Round.LARGE_BLOCKS)
        self._round(workers, self._left_in(workers.slots), Round.SMALL_BLOCKS)
        self._round(workers, self._left_in(1), Round.SINGLE)
        for item in list(self._left.values()):
            self.killed.append(item.path)
            self._take(
                Transcribed(item.path, [row_of_problem(row_key(item, self._request), KILLED)])
            )

    def _left_in(self, most: int) -> list[Block]:
        left = list(self._left.values())
        return [left[first : first + most] for first in range(0, len(left), most)]

    def _round(self, workers: Workers, blocks: Sequence[Block], stage: Round) -> None:
        """Hand out all blocks; if the round breaks off, hand out the rest of them again.

        This goes on as long as each attempt finishes at least one recording.
        """
        while blocks:
            before = len(self._left)
            try:
                for result in workers.transcribe(blocks, stage):
                    self._take(result)
                return
            except Broken:
                if len(self._left) == before:
                    raise
            left = [[item for item in block if item.path in self._left] for block in blocks]
            blocks = [block for block in left if block]

    def _take(self, result: Transcribed) -> None:
        item = self._left.pop(result.path, None)
        if item is None:  # it has a result already: a recording may be handed out twice
            return
        first = result.rows[0]
        each = self._request.options.channel == "each"
        self._store.add(item.name, result.rows, each=each)
        failed = first["problem"] is not None
        self._counter.add(self._seconds[item.path], first["duration"], result.took_s, failed=failed)
        self.show()

    def show(self) -> None:
        """Report the present progress."""
        if self._on_progress is not None:
            self._on_progress(self._counter.now())
