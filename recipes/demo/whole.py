"""Write files under another name and rename them when finished: a file that exists is complete."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Generator[Path]:
    """The path to write to; it is renamed to `path` at the end, but not after an error."""
    part = path.with_name(path.name + ".part")
    yield part
    part.replace(path)
