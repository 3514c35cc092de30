"""Checks whether a checkpoint is whole. One line for each thing that was checked."""

import warnings
from dataclasses import dataclass
from pathlib import Path

from kiku.checkpoint.headers import read_header
from kiku.checkpoint.identity import sha256_of
from kiku.checkpoint.layout import Files, find
from kiku.checkpoint.reading import open_files, shortened
from kiku.errors import KikuError
from kiku.text import Vocabulary

# The checksums of files that Kyutai published under these names.
_KNOWN_SHA256 = {
    "mimi-pytorch-e351c8d8@125.safetensors": (
        "09b782f0629851a271227fb9d36db65c041790365f11bbe5d3d59369cf863f50"
    ),
    "tokenizer_en_fr_audio_8000.model": (
        "cd87dd5d17169151782ac700280ec057e5d658a9afbe238a048ea5ff318cce69"
    ),
    "tokenizer_en_audio_4000.model": (
        "d461765ae179566678c93091c5fa6f2984c31bbe990bf1aa62d92c64d91bc3f6"
    ),
}

# Many checkpoints have a model.safetensors: that one is recognised by its size.
_KNOWN_BY_SIZE = {
    5_234_275_128: (
        "stt-2.6b-en",
        "2471add7da1fdb2d5dc4561e88a9069376333d992760d55d29d1db46c52849b2",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one thing that was checked."""

    what: str
    ok: bool
    detail: str


def verify(
    source: str | Path, *, revision: str | None = None, checksums: bool = True
) -> list[Finding]:
    """Check everything that can be checked without running the model.

    Args:
        source: "demo", a folder or a repository id. (For converted models: `verify_converted`.)
        revision: of a repository.
        checksums: false to skip reading whole files for those whose checksum is known.

    Returns:
        What was found; all is well if every `ok` is true. Whatever is wrong is a finding, not an
        exception.
    """
    try:
        files = find(source, revision=revision)
    except KikuError as e:
        return [Finding("files", False, str(e))]
    findings = [Finding("files", True, f"{files.layout} layout")]
    for path in files.weights:
        try:
            stored = read_header(path)
            findings.append(
                Finding(path.name, True, f"{len(stored)} tensors, {path.stat().st_size:,} bytes")
            )
        except KikuError as e:
            findings.append(Finding(path.name, False, str(e)))
    assert files.vocabulary is not None, "find() insists on one"
    findings += [*_tensors(files), vocabulary_finding(files.vocabulary)]
    if checksums:
        findings += _checksums(files)
    return findings


def _tensors(files: Files) -> list[Finding]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            problems = open_files(files).problems()
        except KikuError as e:
            return [Finding("tensors", False, str(e))]
    notes = [Finding("config", True, f"corrected: {w.message}") for w in caught]
    if problems:
        return [*notes, *(Finding("tensors", False, problem) for problem in shortened(problems))]
    return [*notes, Finding("tensors", True, "complete, with the right shapes")]


def vocabulary_finding(path: Path) -> Finding:
    """Whether a vocabulary can be read."""
    try:
        return Finding(path.name, True, f"{len(Vocabulary.load(path))} pieces")
    except KikuError as e:
        return Finding(path.name, False, str(e))


def _checksums(files: Files) -> list[Finding]:
    findings: list[Finding] = []
    for path in (*files.weights, files.vocabulary):
        assert path is not None
        known = _KNOWN_SHA256.get(path.name)
        if path.stat().st_size in _KNOWN_BY_SIZE:
            known = _KNOWN_BY_SIZE[path.stat().st_size][1]
        if known is None:
            continue
        found = sha256_of(path)
        if found == known:
            findings.append(Finding(path.name, True, "the checksum of the published file"))
        else:
            findings.append(
                Finding(path.name, False, f"its sha256 is {found}, not the published {known}")
            )
    return findings
