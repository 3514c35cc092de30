"""What tells a checkpoint from any other, wherever it lies."""

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

# Weights up to this size are read whole to tell them from others; of larger ones so many pieces,
# and the ends and the middle of each tensor.
_SMALL_FILE = 64 * 2**20
_NUM_PIECES, _PIECE_BYTES = 64, 16 * 1024
_TENSOR_BYTES = 4 * 1024


def identity_of(files: Files, config: ModelConfig) -> str:
    """A digest that tells a checkpoint from any other, wherever it lies.

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
    """Of a whole file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(values: Any) -> str:
    """Of anything that JSON can hold, whatever the order of its keys."""
    plain = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def _weights(path: Path) -> Mapping[str, Any]:
    """Small files by all that is in them. Big ones, which would take seconds, by their tensors'
    names and places, pieces of the whole and of each tensor, and the time of the last change (or
    the commit). Some stores give all files one time (Nix, Bazel): there the pieces count alone.
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
        for at, length in sorted(pieces):  # forwards, which disks like
            file.seek(at)
            digest.update(file.read(length))
    when = commit_of(path) or path.stat().st_mtime_ns
    return {"header": header, "size": size, "pieces": digest.hexdigest(), "when": when}
