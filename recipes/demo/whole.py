"""Files that are there are whole: written beside, and given their name when they are finished."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Generator[Path]:
    """Where to write what is to be `path`; a stop on the way leaves nothing under that name."""
    part = path.with_name(path.name + ".part")
    yield part
    part.replace(path)
