"""More recordings than one machine can hear: batches on Ray.

    sources.py      folders, patterns, manifests -> recordings, with their sizes; nothing is opened
    planning.py     how long they are about; what is missing; which go together
    looking.py      how long some say they are, asked in a process that may break
    settings.py     which model, on what it runs, and what of that changes the words
    batch.py        transcribe(): from the sources to the rows, whatever dies on the way
    transcriber.py  what one process does: a recognizer whose slots are kept full
    opening.py      recordings in stores, opened a little ahead
    rows.py         a transcript -> rows, and captions of these
    store.py        the folder of results: what is finished, parts written whole or not at all
    progress.py     how far it is
    places.py       folders and files wherever fsspec can reach them
    parquet.py      rows as Parquet
    resources.py    what of a cluster each actor gets
    on_ray.py       who hears: actors of Ray Data
    quiet_ray.py    Ray, imported so that it reports to nobody

All but the last two work without Ray, which is an extra, as fsspec is.
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
