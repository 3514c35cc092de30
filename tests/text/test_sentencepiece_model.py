"""The reader of `.model` files sees what SentencePiece's own description of the format says."""

import contextlib
import struct

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.errors import VocabularyError
from kiku.text.sentencepiece_model import (
    BPE_MODEL,
    CONTROL,
    UNIGRAM_MODEL,
    UNKNOWN,
    ScoredPiece,
    read_sentencepiece_model,
)


def field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes([number << 3 | 2, len(value)]) + value


PIECE = field(1, b"a") + b"\x15" + struct.pack("<f", -1.5)


def test_pieces_scores_and_kinds(model_bytes: bytes) -> None:
    model = read_sentencepiece_model(model_bytes)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model_bytes)
    assert len(model.pieces) == processor.get_piece_size()
    for i, piece in enumerate(model.pieces):
        assert piece.text == processor.id_to_piece(i)
        assert piece.score == pytest.approx(processor.get_score(i))
        assert (piece.kind == CONTROL) == processor.is_control(i)
        assert (piece.kind == UNKNOWN) == processor.is_unknown(i)
    assert model.model_type in (UNIGRAM_MODEL, BPE_MODEL)
    assert model.unknown_id == 0
    assert model.byte_fallback
    assert model.charsmap


def test_defaults_of_absent_fields_and_fields_of_no_interest() -> None:
    fixed64 = b"\x21" + bytes(8)
    model = read_sentencepiece_model(fixed64 + field(1, PIECE))
    assert model.pieces == (ScoredPiece("a", -1.5, 1),)
    assert (model.model_type, model.unknown_id, model.byte_fallback) == (1, 0, False)


def test_negative_numbers() -> None:
    minus_one = b"\xc0\x02" + b"\xff" * 9 + b"\x01"
    assert read_sentencepiece_model(field(1, PIECE) + field(2, minus_one)).unknown_id == -1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (field(2, b""), "no pieces"),
        (field(1, PIECE)[:-1], "not a SentencePiece model"),
        (b"\x0a", "not a SentencePiece model"),
        (b"\x80" * 12, "not a SentencePiece model"),
        (b"\x0b", "not a SentencePiece model"),
        (b"\x08\x01", "no pieces"),
        (field(1, PIECE) + field(1, field(1, b"\xff")), "piece 1 cannot be read"),
        (field(1, field(3, b"abc")), "piece 0 has no text"),
        (field(1, field(1, b"")), "piece 0 has no text"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(VocabularyError, match=f"{message}.*fetch the file again"):
        read_sentencepiece_model(data)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_damage_is_a_vocabulary_error_or_harmless(
    unigram_model: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(unigram_model) - 1))
    damaged = bytearray(unigram_model)
    damaged[at] ^= data.draw(st.integers(1, 255))
    for one in (bytes(damaged), unigram_model[:at], unigram_model[at:]):
        with contextlib.suppress(VocabularyError):
            assert read_sentencepiece_model(one).pieces
