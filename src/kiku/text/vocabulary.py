"""Text tokens and the pieces of text that they stand for.

One class reads both files in use: a SentencePiece `.model` (native checkpoints, as Kyutai lays them
out) and a `tokenizer.json` (transformers' checkpoints). Text is cut into tokens by the library that
defines the file, `sentencepiece` or `tokenizers`: neither reads the other's file, and a converted
file cuts some texts into other tokens than the model was trained with. The decoding rule is kiku's
own, and the same for both:

* ids 0 to 3, control pieces and ids outside the vocabulary give nothing (0 is the word-start
  marker, 3 is PAD);
* the other pieces are joined; byte pieces such as `<0xC3>` become the UTF-8 text they spell;
* "▁" becomes a space, and one space at the very beginning is dropped.

Knows pieces; does not know times or words.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self, cast

from sentencepiece import SentencePieceProcessor

from kiku.errors import VocabularyError
from kiku.text.sentencepiece_model import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    ScoredPiece,
    SentencePieceModel,
    read_sentencepiece_model,
)
from kiku.text.tokenizer_json import read_tokenizer_json, tokenizer_json

SPACE = "▁"
"""How a piece spells a space (U+2581)."""
MAX_ID = 2**22
"""All ids of a vocabulary are below this, so that a damaged file cannot cost more memory."""
NUM_SPECIAL = 4
"""The first ids, which never are text: `<unk>` (the word-start marker), `<s>`, `</s>`, `<pad>`."""

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Vocabulary:
    """Pieces of text by token id, made by `load`, `from_bytes` or `from_pieces`."""

    def __init__(
        self,
        pieces: Iterable[str],
        control_ids: Iterable[int],
        encoder: Callable[[str], list[int]],
        source: bytes,
    ) -> None:
        """Make a vocabulary of the parts that a class method has read from a file.

        Args:
            pieces: the spelling of each id, in order.
            control_ids: ids that are never text, besides 0 to 3.
            encoder: cuts text into ids.
            source: the file, byte for byte.
        """
        self._pieces = tuple(pieces)
        self._not_text = frozenset(control_ids) | frozenset(range(NUM_SPECIAL))
        # The text of each piece; None for a byte, which has a meaning only with those next to it.
        self._texts = tuple(
            None if _BYTE_PIECE.fullmatch(piece) else piece.replace(SPACE, " ")
            for piece in self._pieces
        )
        self._encoder = encoder
        self.source = source
        """The vocabulary file as it was read, byte for byte."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a SentencePiece `.model` or a `tokenizer.json`; its contents show which it is.

        Raises:
            VocabularyError: the file is missing, damaged or something else.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise VocabularyError(
                f"cannot read the vocabulary {path}: {error.strerror or error}; "
                "give a SentencePiece .model or a tokenizer.json"
            ) from error
        try:
            return cls.from_bytes(data)
        except VocabularyError as error:
            raise VocabularyError(f"{path}: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The vocabulary in the contents of a SentencePiece `.model` or a `tokenizer.json`.

        Raises:
            VocabularyError: the contents are damaged, or of another format.
        """
        if not data:
            raise VocabularyError("the vocabulary file is empty; fetch it again")
        if data.startswith(b"version https://git-lfs"):
            raise VocabularyError(
                "this is a Git LFS pointer, not the vocabulary itself; run  git lfs pull"
            )
        if data.lstrip()[:1] == b"{":
            return cls._from_tokenizer_json(data)
        return cls._from_sentencepiece(data)

    @classmethod
    def from_pieces(cls, pieces: Sequence[str]) -> Self:
        """A vocabulary of these pieces; text is cut into as few of them as possible.

        Args:
            pieces: the spelling of each id, "▁" for a space; the first four are the special ones
                (`<unk>`, `<s>`, `</s>`, `<pad>`).

        Raises:
            VocabularyError: a piece is empty or occurs twice, or there are fewer than five.
        """
        if len(pieces) <= NUM_SPECIAL:
            raise VocabularyError(
                "a vocabulary needs four special pieces and at least one of text, not "
                f"{len(pieces)} pieces"
            )
        if "" in pieces or len(set(pieces)) < len(pieces):
            wrong = next(piece for piece in pieces if not piece or pieces.count(piece) > 1)
            raise VocabularyError(
                f"the piece {wrong!r} is empty or occurs {pieces.count(wrong)} times in the list"
            )
        kinds = [UNKNOWN] + [CONTROL] * (NUM_SPECIAL - 1) + [NORMAL] * (len(pieces) - NUM_SPECIAL)
        # Equal scores make the likeliest cut the one with the fewest pieces.
        scored = tuple(
            ScoredPiece(text, -1.0, kind) for text, kind in zip(pieces, kinds, strict=True)
        )
        fallback = sum(_BYTE_PIECE.fullmatch(piece) is not None for piece in pieces) == 256
        model = SentencePieceModel(scored, byte_fallback=fallback)
        return cls._from_tokenizer_json(tokenizer_json(model).encode())

    @classmethod
    def _from_sentencepiece(cls, data: bytes) -> Self:
        model = read_sentencepiece_model(data)
        try:
            processor = SentencePieceProcessor(model_proto=data)
        except (RuntimeError, ValueError) as error:
            raise VocabularyError(
                f"not a SentencePiece model, or a damaged one ({error}); fetch the file again"
            ) from error

        def encode(text: str) -> list[int]:
            return cast(list[int], processor.encode(text, out_type=int))

        control = (i for i, p in enumerate(model.pieces) if p.kind in (UNKNOWN, CONTROL))
        return cls((p.text for p in model.pieces), control, encode, data)

    @classmethod
    def _from_tokenizer_json(cls, data: bytes) -> Self:
        tokenizer = read_tokenizer_json(data)
        ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        if not ids:
            raise VocabularyError("this tokenizer.json contains no pieces; fetch it again")
        spelled = {i: piece for piece, i in ids.items()}
        if max(spelled) >= MAX_ID:
            raise VocabularyError(
                f"this tokenizer.json has a piece with id {max(spelled)}, but ids are below "
                f"{MAX_ID}; fetch it again"
            )
        pieces = [spelled.get(i, "") for i in range(max(spelled) + 1)]
        added = tokenizer.get_added_tokens_decoder()
        control = {i for i, token in added.items() if token.special}

        def encode(text: str) -> list[int]:
            return tokenizer.encode(text, add_special_tokens=False).ids

        return cls(pieces, control, encode, data)

    def __reduce__(self) -> tuple[Callable[[bytes], Self], tuple[bytes]]:
        # The encoder belongs to a library, so it is not pickled but made again from the file.
        return type(self).from_bytes, (self.source,)

    def __len__(self) -> int:
        """How many ids there are, the special ones counted."""
        return len(self._pieces)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} pieces)"

    @property
    def is_sentencepiece(self) -> bool:
        """Whether `source` is a SentencePiece `.model`; otherwise it is a `tokenizer.json`."""
        return self.source.lstrip()[:1] != b"{"

    def to_tokenizer_json(self) -> str:
        """The contents of a `tokenizer.json` with the same pieces under the same ids.

        Raises:
            VocabularyError: the SentencePiece model is of a kind that cannot be written so.
        """
        if self.is_sentencepiece:
            return tokenizer_json(read_sentencepiece_model(self.source))
        return self.source.decode()

    def is_text(self, token: int) -> bool:
        """Whether `token` stands for text: neither special nor outside the vocabulary."""
        return 0 <= token < len(self._pieces) and token not in self._not_text

    def piece(self, token: int) -> str:
        """The spelling of `token`, "▁" for a space.

        Raises:
            VocabularyError: there is no such id.
        """
        if not 0 <= token < len(self._pieces):
            raise VocabularyError(f"there is no token {token}: ids go from 0 to {len(self) - 1}")
        return self._pieces[token]

    def starts_word(self, token: int) -> bool:
        """Whether `token` stands for text that begins with a space."""
        return self.is_text(token) and self._pieces[token].startswith(SPACE)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, by the rule at the head of this file. Any integers are accepted.

        Each byte that is not valid UTF-8 becomes U+FFFD.
        """
        text, run = "", bytearray()
        for token in tokens:
            if not self.is_text(token):
                continue
            written = self._texts[token]
            if written is None:
                run.append(int(self._pieces[token][3:5], 16))
                continue
            if run:
                text += _utf8(bytes(run))
                run.clear()
            text += written
        return (text + _utf8(bytes(run)) if run else text).removeprefix(" ")

    def lacking(self, text: str) -> tuple[str, ...]:
        """The letters of `text` that no piece spells, each once; byte pieces are not counted."""
        if self._spells(text):
            return ()
        letters = dict.fromkeys(_composed("".join(text.split())))
        return tuple(letter for letter in letters if not self._spells(letter))

    def _spells(self, text: str) -> bool:
        """Whether pieces of text spell all of `text`, without byte pieces."""
        tokens = self._encoder(_composed(text))
        return all(self.is_text(token) and self._texts[token] is not None for token in tokens)

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`; all of them stand for text. Any run of white space is one space.
        An accent or a jamo is first joined to its letter (NFC), as it is in the pieces; some
        systems and keyboards write it separately.

        Raises:
            VocabularyError: the vocabulary has no pieces for a part of `text`.
        """
        tokens = self._encoder(_composed(text))
        if not all(map(self.is_text, tokens)):
            letters = ", ".join(map(repr, self.lacking(text)))
            why = f"has no piece for {letters}" if letters else "has no pieces that join to it"
            raise VocabularyError(f"the vocabulary cannot spell {text!r}: it {why}")
        return tokens


def _composed(text: str) -> str:
    """`text` in NFC, with single spaces between words."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _utf8(data: bytes) -> str:
    """`data` as text, one U+FFFD for each wrong byte as in SentencePiece; Python merges several."""
    text = ""
    while True:
        try:
            return text + data.decode()
        except UnicodeDecodeError as error:
            text += data[: error.start].decode() + "\ufffd"
            data = data[error.start + 1 :]
