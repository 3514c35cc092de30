"""What stands in a SentencePiece `.model` file.

The file is one protobuf message of which kiku needs a handful of fields. Reading them here keeps
protobuf (a package that many others pin) out of the requirements, and finds damage before native
code meets it.
Knows the file; does not know how text is encoded or decoded.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kiku.errors import VocabularyError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
"""Kinds of piece that kiku tells apart (`type` in the file)."""
UNIGRAM_MODEL, BPE_MODEL = 1, 2
"""Kinds of model that can be turned into a `tokenizer.json` (`model_type` in the file)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary."""

    text: str
    """Its spelling, "▁" for a space."""
    score: float
    """Log-probability (unigram) or minus the rank (BPE)."""
    kind: int


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """The fields of a `.model` file that decide how text is cut into pieces and joined again."""

    pieces: tuple[Piece, ...]
    model_type: int = UNIGRAM_MODEL
    unknown_id: int = 0
    byte_fallback: bool = False
    charsmap: bytes = b""
    """Compiled normalisation rules; empty when text is taken as it is."""


def read_sentencepiece_model(data: bytes) -> SentencePieceModel:
    """The contents of a `.model` file.

    Raises:
        VocabularyError: `data` is cut short, damaged, or something else altogether.
    """
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(_as_bytes(value)))
        elif number == 2:
            trainer = dict(_fields(_as_bytes(value)))
        elif number == 3:
            normalizer = dict(_fields(_as_bytes(value)))
    if not pieces:
        raise VocabularyError(
            "damaged SentencePiece model: it holds no pieces; fetch the file again"
        )
    return SentencePieceModel(
        tuple(pieces),
        model_type=_as_int(trainer.get(3, UNIGRAM_MODEL)),
        unknown_id=_as_int(trainer.get(40, 0)),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=_as_bytes(normalizer.get(2, b"")),
    )


def _piece(data: bytes) -> Piece:
    fields = dict(_fields(data))
    score = _as_bytes(fields.get(2, b"\0\0\0\0"))
    try:
        text = _as_bytes(fields.get(1, b"")).decode()
        return Piece(text, struct.unpack("<f", score)[0], _as_int(fields.get(3, NORMAL)))
    except (UnicodeDecodeError, struct.error) as error:
        raise _damaged(f"a piece cannot be read ({error})") from error


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field of one message; fixed-size numbers come as their bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in _FIXED_SIZES:
            size = _FIXED_SIZES[wire]
        else:
            raise _damaged(f"unknown kind of field {wire} at byte {at}")
        if at + size > len(data):
            raise _damaged(f"a field of {size} bytes begins {len(data) - at} bytes before the end")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _damaged("it ends in the middle of a number")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise _damaged(f"a number without end before byte {at}")


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise _damaged(f"the number {value} stands where text should")
    return value


def _as_int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise _damaged("text stands where a number should")
    return value - (1 << 64) if value >> 63 else value


def _damaged(what: str) -> VocabularyError:
    return VocabularyError(
        f"not a SentencePiece model, or a damaged one: {what}; fetch the file again"
    )
