"""The contents of a SentencePiece `.model` file.

The file is one protobuf message, of which kiku needs a handful of fields; they are described here
and protobuf reads them. SentencePiece ships a description too (`sentencepiece_model_pb2`), but each
release of it refuses all versions of protobuf older than the one that it was generated with. kiku
gets protobuf through onnx, which accepts much older ones.
Knows the file; does not know how text is encoded or decoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from kiku.errors import VocabularyError

_MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "Model": [("pieces", 1, "Piece"), ("trainer", 2, "Trainer"), ("normalizer", 3, "Normalizer")],
    "Piece": [("text", 1, "bytes"), ("score", 2, "float"), ("kind", 3, "int32")],
    "Trainer": [
        ("type", 3, "int32"), ("size", 4, "int32"), ("byte_fallback", 35, "bool"),
        ("unknown_id", 40, "int32"),
    ],
    "Normalizer": [("charsmap", 2, "bytes")],
}  # fmt: skip
"""Name, number and type of the fields in use, by message. Other fields are skipped when a file is
read, and kept when it is written again."""

_DEFAULTS = {"kind": "1", "type": "1"}
"""Values of fields that may be absent and then are not 0: a normal piece, a unigram model."""

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
"""Kinds of pieces that kiku distinguishes (`type` in the file)."""
UNIGRAM_MODEL, BPE_MODEL = 1, 2
"""Kinds of model that can be turned into a `tokenizer.json` (`model_type` in the file)."""


@dataclass(frozen=True, slots=True)
class ScoredPiece:
    """One entry of the vocabulary."""

    text: str
    """Its spelling, "▁" for a space."""
    score: float
    """Log-probability (unigram) or minus the rank (BPE)."""
    kind: int


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """The fields of a `.model` file that decide how text is cut into pieces and joined again."""

    pieces: tuple[ScoredPiece, ...]
    model_type: int = UNIGRAM_MODEL
    unknown_id: int = 0
    byte_fallback: bool = False
    charsmap: bytes = b""
    """Compiled normalisation rules; empty when text is taken as it is."""


def read_sentencepiece_model(data: bytes) -> SentencePieceModel:
    """The contents of a `.model` file.

    Raises:
        VocabularyError: `data` is cut short, damaged, or of another format.
    """
    model = _parsed(data)
    return SentencePieceModel(
        tuple(_piece(i, piece) for i, piece in enumerate(model.pieces)),
        model_type=model.trainer.type,
        unknown_id=model.trainer.unknown_id,
        byte_fallback=model.trainer.byte_fallback,
        charsmap=model.normalizer.charsmap,
    )


def model_with_pieces(data: bytes, pieces: Sequence[ScoredPiece]) -> bytes:
    """A `.model` file with more pieces after its own; nothing else is changed.

    Raises:
        VocabularyError: `data` is damaged, or of another format.
    """
    model = _parsed(data)
    for piece in pieces:
        model.pieces.add(text=piece.text.encode(), score=piece.score, kind=piece.kind)
    model.trainer.size = len(model.pieces)
    return model.SerializeToString()


def _parsed(data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        model = _model_class().FromString(data)
    except DecodeError as error:
        raise _damaged("it is cut short, or of another format") from error
    if not model.pieces:
        raise _damaged("it contains no pieces")
    return model


def _piece(number: int, piece: Any) -> ScoredPiece:
    try:
        text = piece.text.decode()
    except UnicodeDecodeError as error:
        raise _damaged(f"piece {number} cannot be read ({error})") from error
    if not text:
        raise _damaged(f"piece {number} has no text")
    return ScoredPiece(text, piece.score, piece.kind)


@cache
def _model_class() -> Any:
    """The protobuf class of the whole message that `_MESSAGES` describes."""
    # Imported here, since protobuf is not needed where a vocabulary is a tokenizer.json.
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="kiku/sentencepiece_model.proto", package="kiku", syntax="proto2"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = field.LABEL_REPEATED if field_name == "pieces" else field.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field.type, field.type_name = field.TYPE_MESSAGE, f".kiku.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
            if field_name in _DEFAULTS:
                field.default_value = _DEFAULTS[field_name]
    # A pool of its own, since other packages may describe messages under the same names.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("kiku.Model"))


def _damaged(what: str) -> VocabularyError:
    return VocabularyError(
        f"not a SentencePiece model, or a damaged one: {what}; fetch the file again"
    )
