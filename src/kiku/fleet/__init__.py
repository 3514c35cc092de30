"""Transcribe more recordings than one machine can: batches on Ray.

    sources.py      folders, patterns, manifests -> recordings, with their sizes; nothing is opened
    planning.py     estimated lengths, the limit of a run, and blocks of recordings
    durations.py    lengths stated by some recordings, read in a process that may crash
    settings.py     the model, what it runs on, and which of these settings change the words
    batch.py        transcribe(): from the sources to the rows, even if processes die
    transcriber.py  the work of one process: a recognizer whose slots are kept full
    opening.py      recordings in stores, opened a little ahead
    rows.py         a transcript -> rows, and captions of these
    store.py        the folder of results: what is finished, parts written whole or not at all
    progress.py     progress of a batch
    places.py       folders and files wherever fsspec can reach them
    parquet.py      rows as Parquet
    cluster.py      which cluster, and whether it can be reached
    resources.py    the resources of a cluster that each actor gets
    on_ray.py       the processes that transcribe: actors of Ray Data
    quiet_ray.py    Ray, imported so that it sends no usage reports; records that nobody reads
    serve_app.py    `kiku serve` on Ray Serve

Only on_ray.py, quiet_ray.py and serve_app.py need Ray, which is an extra, as fsspec is.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kiku.fleet.batch import Report, Run, Survey, survey, transcribe
    from kiku.fleet.progress import Progress
    from kiku.fleet.settings import ModelSettings

__all__ = ["ModelSettings", "Progress", "Report", "Run", "Survey", "survey", "transcribe"]

_ROOM_OF = {
    "ModelSettings": "settings", "Progress": "progress", "Report": "batch", "Run": "batch",
    "Survey": "batch", "survey": "batch", "transcribe": "batch",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
