"""Checks whether a converted model is whole, with one line for each file."""

from pathlib import Path

from kiku.checkpoint.integrity import Finding, vocabulary_finding
from kiku.converted.manifest import MANIFEST, read_manifest
from kiku.converted.model import expanded
from kiku.errors import KikuError


def verify_converted(folder: str | Path, *, checksums: bool = True) -> list[Finding]:
    """Check everything that can be checked without running the model.

    Args:
        folder: the one with the graphs.
        checksums: false to check only the size of big files.

    Returns:
        What was found; all is well if every `ok` is true. Whatever is wrong is a finding, not an
        exception.
    """
    from kiku.graph import FORMAT

    try:
        folder = expanded(folder)
        manifest = read_manifest(folder / MANIFEST, format=FORMAT)
    except KikuError as e:
        return [Finding(MANIFEST, False, str(e))]
    made = f"{manifest.name} in {manifest.precision}, made by kiku {manifest.kiku}"
    findings = [Finding(MANIFEST, True, made)]
    for name, problem in manifest.problems(folder, checksums=checksums):
        size = f"{manifest.files[name].num_bytes:,} bytes"
        findings.append(Finding(name, problem is None, problem or size))
    if manifest.vocabulary is not None:
        findings.append(vocabulary_finding(folder / manifest.vocabulary))
    return findings
