"""A manifest, or a folder in a common layout (`kiku.corpus_folders`) -> rows to train on."""

from collections.abc import Callable
from pathlib import Path

from kiku.corpus_folders import BadCorpus, CorpusRow, read_corpus
from kiku.errors import TrainingError
from kiku.train.manifest import TimedWord, TrainingRow, read_training_manifest


def read_rows(
    source: Path, on_note: Callable[[str], None] = lambda line: None
) -> list[TrainingRow]:
    """The rows of a manifest, or of a folder in a known layout.

    Rows of a folder that cannot be used have a `fault`, and are reported when they are aligned or
    packed.

    Args:
        source: a file of JSON lines, or a folder.
        on_note: is called with a line if texts are changed.

    Raises:
        TrainingError: it is neither, or its content is invalid.
    """
    if not source.is_dir():
        return read_training_manifest(source)
    try:
        corpus = read_corpus(source)
    except BadCorpus as error:
        raise TrainingError(str(error)) from error
    for note in corpus.notes:
        on_note(note)
    return [_training_row(row) for row in corpus.rows]


def _training_row(row: CorpusRow) -> TrainingRow:
    return TrainingRow(
        row.path,
        row.text,
        None if row.words is None else tuple(TimedWord(*word) for word in row.words),
        row.start,
        row.end,
        row.language,
        row.speaker,
        row.split or "train",
        fault=row.fault,
    )
