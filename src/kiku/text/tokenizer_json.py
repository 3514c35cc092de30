"""`tokenizer.json`, the vocabulary file of transformers' checkpoints: read, extended and made.

Knows how to express a SentencePiece model in the terms of the `tokenizers` library. A file made
here is decoded by kiku's own rule (see `vocabulary`), if special pieces are left out.
"""

import base64
import binascii
import json
import struct
from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram

from kiku.errors import VocabularyError
from kiku.text.sentencepiece_model import (
    BPE_MODEL,
    CONTROL,
    UNIGRAM_MODEL,
    UNKNOWN,
    USER_DEFINED,
    ScoredPiece,
    SentencePieceModel,
)


def read_tokenizer_json(data: bytes) -> Tokenizer:
    """The tokenizer that a `tokenizer.json` describes.

    Raises:
        VocabularyError: `data` is cut short, damaged, or of another format.
    """
    try:
        # Checked first: tokenizers panics on some files that are not JSON, and ends the process if
        # the file names a length for which there is no memory.
        json.loads(data, object_pairs_hook=_checked)
        tokenizer = Tokenizer.from_str(data.decode())
        # The file may ask to pad and cut to lengths of any size; kiku does neither.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in tokenizers is no Exception
        raise VocabularyError(
            f"not a tokenizer.json, or a damaged one ({error}); fetch the file again"
        ) from error


def _checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One JSON object of the file, after a check that its normalisation rules have their length."""
    for name, value in pairs:  # not as a dict: a name may occur twice, and the library reads both
        if name == "precompiled_charsmap" and isinstance(value, str):
            try:
                _check_charsmap(base64.b64decode(value, validate=True))
            except binascii.Error as error:
                raise ValueError(f"its precompiled_charsmap is not base64: {error}") from error
    return dict(pairs)


def _check_charsmap(charsmap: bytes) -> None:
    """Raise ValueError if the index of normalisation rules is longer than the data.

    The library allocates as much memory as the first four bytes state, and aborts if that fails.
    """
    size = struct.unpack("<I", charsmap[:4])[0] if len(charsmap) >= 4 else 0
    if len(charsmap) < 4 or size > len(charsmap) - 4:
        raise ValueError(
            f"its precompiled_charsmap says that {size} bytes of index follow, but there are "
            f"{max(0, len(charsmap) - 4)}"
        )


def tokenizer_json(model: SentencePieceModel) -> str:
    """The `tokenizer.json` that cuts and joins text as `model` does.

    Control pieces and the unknown piece (Kyutai's word-start marker) become special tokens, which
    `skip_special_tokens=True` leaves out.

    Raises:
        VocabularyError: the model is neither unigram nor BPE, or its parts do not fit together.
    """
    if model.model_type not in (UNIGRAM_MODEL, BPE_MODEL):
        raise VocabularyError(
            f"a SentencePiece model of type {model.model_type} cannot be written as a "
            f"tokenizer.json; only unigram ({UNIGRAM_MODEL}) and BPE ({BPE_MODEL}) models can"
        )
    try:
        return _tokenizer(model).to_str(pretty=True)
    except VocabularyError:
        raise
    except Exception as error:  # tokenizers raises bare Exceptions
        raise VocabularyError(
            f"this vocabulary cannot be written as a tokenizer.json: {error}"
        ) from error


def tokenizer_with_pieces(
    data: bytes, pieces: Sequence[ScoredPiece], merges: Sequence[tuple[str, str]]
) -> bytes:
    """A `tokenizer.json` with more pieces after its own; nothing else is changed.

    Args:
        data: the file.
        pieces: the new pieces; only a unigram model uses their scores.
        merges: for a BPE model, the pairs of pieces from which longer new pieces are joined.

    Raises:
        VocabularyError: the file has tokens of other kinds after its pieces, whose ids the new
            pieces would take; or it is neither unigram nor BPE.
    """
    values: dict[str, Any] = json.loads(data)
    model: dict[str, Any] = values["model"]
    vocab: Any = model["vocab"]
    first = len(vocab)
    others: list[str] = [
        str(token["content"]) for token in values.get("added_tokens") or () if token["id"] >= first
    ]
    if others:
        raise VocabularyError(
            f"this tokenizer.json has tokens after its {first:,} pieces, {', '.join(others[:5])}: "
            "new pieces would take their ids; make a new vocabulary, or take these tokens out"
        )
    if isinstance(vocab, list):
        vocab += [[piece.text, piece.score] for piece in pieces]  # pyright: ignore[reportUnknownVariableType]
    elif model.get("type") == "BPE":
        vocab.update({piece.text: first + i for i, piece in enumerate(pieces)})
        held: list[Any] = model["merges"]
        as_text = bool(held) and isinstance(held[0], str)
        held += [" ".join(pair) if as_text else list(pair) for pair in merges]
    else:
        raise VocabularyError(
            f"a tokenizer.json of type {model.get('type')!r} cannot be extended; only unigram and "
            "BPE models can"
        )
    return json.dumps(values, ensure_ascii=False, indent=2).encode()


def _tokenizer(model: SentencePieceModel) -> Tokenizer:
    tokenizer = Tokenizer(_bpe(model) if model.model_type == BPE_MODEL else _unigram(model))
    tokenizer.add_tokens(  # pyright: ignore[reportUnknownMemberType] its stub says bare list
        [
            AddedToken(piece.text, normalized=False, special=piece.kind != USER_DEFINED)
            for piece in model.pieces
            if piece.kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ]
    )
    steps: list[normalizers.Normalizer] = [normalizers.Replace(" ", "▁")]
    if model.charsmap:
        _check_charsmap(model.charsmap)
        steps.insert(0, normalizers.Precompiled(model.charsmap))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="first", split=False
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return tokenizer


def _unigram(model: SentencePieceModel) -> Unigram:
    scored = [(piece.text, piece.score) for piece in model.pieces]
    return Unigram(scored, unk_id=model.unknown_id, byte_fallback=model.byte_fallback)


def _bpe(model: SentencePieceModel) -> BPE:
    ids = {piece.text: i for i, piece in enumerate(model.pieces)}
    if not 0 <= model.unknown_id < len(model.pieces):
        raise VocabularyError(f"the unknown piece is number {model.unknown_id} of {len(ids)}")
    return BPE(
        ids,
        _merges(model.pieces, ids),
        unk_token=model.pieces[model.unknown_id].text,
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )


def _merges(pieces: Sequence[ScoredPiece], ids: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs of pieces that are joined, best first: every split of a piece into two others."""
    ranked: list[tuple[float, int, int, int, tuple[str, str]]] = []
    for whole, piece in enumerate(pieces):
        if piece.kind in (UNKNOWN, CONTROL, USER_DEFINED):
            continue
        for cut in range(1, len(piece.text)):
            left, right = piece.text[:cut], piece.text[cut:]
            if left in ids and right in ids:
                ranked.append((-piece.score, whole, ids[left], ids[right], (left, right)))
    return [pair for *_, pair in sorted(ranked)]
