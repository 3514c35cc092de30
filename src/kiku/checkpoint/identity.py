"""The identity of a checkpoint: what distinguishes it from any other, wherever its files are."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kiku.checkpoint.headers import read_header
from kiku.checkpoint.hub import commit_of
from kiku.checkpoint.layout import Files
from kiku.config import ModelConfig
from kiku.errors import CheckpointError

# A file of weights up to this size goes whole into the identity; of a larger one this many pieces
# do, and the ends and the middle of each tensor.
_SMALL_FILE = 64 * 2**20
_NUM_PIECES, _PIECE_BYTES = 64, 16 * 1024
_TENSOR_BYTES = 4 * 1024


def identity_of(files: Files, config: ModelConfig) -> str:
    """A digest that distinguishes a checkpoint from any other, wherever its files are.

    Raises:
        CheckpointError: a file cannot be read.
    """
    try:
        described: dict[str, Any] = {
            "config": config.to_dict(),
            "vocabulary": files.vocabulary and sha256_of(files.vocabulary),
            "weights": [_weights(path) for path in files.weights],
        }
    except OSError as e:
        raise CheckpointError(f"{e.filename} cannot be read: {e.strerror or e}") from e
    return digest_of(described)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a whole file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(values: Any) -> str:
    """The SHA-256 of anything that JSON can hold, whatever the order of its keys."""
    plain = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def _weights(path: Path) -> Mapping[str, Any]:
    """What identifies a file of weights. A small one: all of its bytes. A big one, which would take
    seconds: its tensors' names and places, pieces of the whole and of each tensor, and the time of
    the last change (or the commit). Some stores give all files the same time (Nix, Bazel): there
    only the pieces distinguish them.
    """
    size = path.stat().st_size
    if size <= _SMALL_FILE:
        return {"sha256": sha256_of(path)}
    tensors = read_header(path)
    header = {name: [one.dtype, one.shape, one.start] for name, one in tensors.items()}
    pieces = [
        ((size - _PIECE_BYTES) * i // (_NUM_PIECES - 1), _PIECE_BYTES) for i in range(_NUM_PIECES)
    ]
    for one in tensors.values():
        length = min(_TENSOR_BYTES, one.num_bytes)
        rest = one.num_bytes - length
        pieces += [(one.start + at, length) for at in (0, rest // 2, rest)]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for at, length in sorted(pieces):  # in the order of the file, for the sake of disks
            file.seek(at)
            digest.update(file.read(length))
    when = commit_of(path) or path.stat().st_mtime_ns
    return {"header": header, "size": size, "pieces": digest.hexdigest(), "when": when}
