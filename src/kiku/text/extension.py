"""Extending a vocabulary with new pieces, or training a vocabulary from texts alone.

Old ids keep their pieces. By default each new piece has a letter that is in no old piece. So every
text that the vocabulary could spell is cut as before, and a model can still write every text that
it has learned to write.
"""

import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from kiku.errors import VocabularyError
from kiku.text import sentencepiece_model, tokenizer_json
from kiku.text.sentencepiece_model import BPE_MODEL, NORMAL, ScoredPiece, read_sentencepiece_model
from kiku.text.vocabulary import SPACE, Vocabulary

VocabularyKind = Literal["bpe", "unigram"]

_LONGEST = 16
"""A joined piece has at most this many letters."""
_SELDOM = 2
"""A pair of pieces that occurs less often than this does not become a piece."""

_Pair = tuple[str, str]
_New = tuple[str, _Pair | None]
"""A new piece, and the two pieces that it was joined from; None for a letter."""


@dataclass(frozen=True, slots=True)
class Extension:
    """An extended vocabulary and its new pieces."""

    vocabulary: Vocabulary
    letters: tuple[str, ...]
    """Letters that the old vocabulary lacked, the most frequent first."""
    pieces: tuple[str, ...]
    """All new pieces, letters first, in the order of their ids."""
    recut: tuple[str, ...]
    """Words that the old vocabulary could spell and the new one cuts into other pieces."""


def extended(
    vocabulary: Vocabulary, words: Mapping[str, int], *, most: int, any_letters: bool = False
) -> Extension:
    """Extend a vocabulary with the letters that words lack in it, and with frequent joined pieces.

    Pieces are joined as byte-pair encoding joins them, beginning with the pieces into which the
    words are cut once the letters are there.

    Args:
        vocabulary: the vocabulary to extend.
        words: how often each word occurs.
        most: largest number of new pieces, letters included; all letters are added in any case.
        any_letters: also join pieces of letters that the vocabulary has. Words that it could spell
            may then be cut into other pieces.

    Raises:
        VocabularyError: new pieces would move old ids, or the file is of a kind that cannot grow.
    """
    normalise = _normaliser(vocabulary)
    lacking = Counter[str]()
    for word, count in words.items():
        for letter in normalise("".join(vocabulary.lacking(word))):
            lacking[letter] += count
    letters = tuple(sorted(lacking, key=lambda letter: (-lacking[letter], letter)))
    new: list[_New] = [(letter, None) for letter in letters]
    known = _grown(vocabulary, new)
    old = "".join(vocabulary.piece(i) for i in range(len(vocabulary)))
    foreign = frozenset(letters).difference(old)
    cuts = Counter[tuple[str, ...]]()
    for word, count in words.items():
        cut = tuple(map(known.piece, known.encode(word)))
        if any_letters or not foreign.isdisjoint("".join(cut)):
            cuts[cut] += count

    def wanted(piece: str) -> bool:
        return len(piece) <= _LONGEST and (any_letters or not foreign.isdisjoint(piece))

    there = {known.piece(i) for i in range(len(known))}
    new += _joined(cuts, there, most - len(letters), wanted)
    grown = _grown(vocabulary, new)
    recut = tuple(
        word
        for word in words
        if not vocabulary.lacking(word) and vocabulary.encode(word) != grown.encode(word)
    )
    return Extension(grown, letters, tuple(piece for piece, _ in new), recut)


def trained(texts: Sequence[str], *, size: int, kind: VocabularyKind) -> Vocabulary:
    """A SentencePiece vocabulary of some texts, whose first ids are those of Kyutai's.

    Args:
        texts: the texts that the vocabulary has to spell.
        size: largest number of ids, the four special ones included.
        kind: how pieces are found.

    Raises:
        VocabularyError: `size` ids do not suffice for the letters of the texts.
    """
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
            sentence_iterator=iter(texts), model_writer=model, model_type=kind, vocab_size=size,
            hard_vocab_limit=False, normalization_rule_name="identity", character_coverage=1.0,
            unk_id=0, bos_id=1, eos_id=2, pad_id=3, minloglevel=2, num_threads=1,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        letters = {letter for text in texts for letter in text}
        raise VocabularyError(
            f"{size} pieces cannot be made from these texts, which have {len(letters)} letters: "
            f"ask for more of them, or give more text ({str(error).strip().splitlines()[-1]})"
        ) from error
    return Vocabulary.from_bytes(model.getvalue())


def _joined(
    cuts: Mapping[tuple[str, ...], int], there: set[str], most: int, wanted: Callable[[str], bool]
) -> list[_New]:
    """New pieces, made by joining the most frequent pair of neighbours, again and again."""
    held = [(list(cut), count) for cut, count in cuts.items()]
    found: list[_New] = []
    while len(found) < most:
        pairs = Counter[_Pair]()
        for cut, count in held:
            for pair in pairwise(cut):
                pairs[pair] += count
        best = max(
            (pair for pair, count in pairs.items()
             if count >= _SELDOM and "".join(pair) not in there and wanted("".join(pair))),
            key=lambda pair: (pairs[pair], pair), default=None,
        )  # fmt: skip
        if best is None:
            break
        found.append(("".join(best), best))
        there.add("".join(best))
        for cut, _ in held:
            _join(cut, best)
    return found


def _join(cut: list[str], pair: _Pair) -> None:
    at = 0
    while at + 1 < len(cut):
        if (cut[at], cut[at + 1]) == pair:
            cut[at : at + 2] = ["".join(pair)]
        at += 1


def _grown(vocabulary: Vocabulary, new: Sequence[_New]) -> Vocabulary:
    """The vocabulary with these pieces after its own, once it is checked that ids kept theirs."""
    old = [vocabulary.piece(i) for i in range(len(vocabulary))]
    if vocabulary.is_sentencepiece:
        model = read_sentencepiece_model(vocabulary.source)
        scores = {piece.text: piece.score for piece in model.pieces if piece.kind == NORMAL}
        pieces = _scored(new, scores, ranked=model.model_type == BPE_MODEL)
        data = sentencepiece_model.model_with_pieces(vocabulary.source, pieces)
    else:
        scores, ranked = _scores(vocabulary)
        merges = [pair for _, pair in new if pair is not None]
        pieces = _scored(new, scores, ranked=ranked)
        data = tokenizer_json.tokenizer_with_pieces(vocabulary.source, pieces, merges)
    grown = Vocabulary.from_bytes(data)
    wanted = old + [piece for piece, _ in new]
    for i, piece in enumerate(wanted):
        if i >= len(grown) or grown.piece(i) != piece:
            raise VocabularyError(
                f"the piece {piece!r} would not get the id {i}: this vocabulary cannot be "
                "extended; make a new one"
            )
    return grown


def _scored(new: Sequence[_New], known: Mapping[str, float], *, ranked: bool) -> list[ScoredPiece]:
    """New pieces with their scores. In a BPE model they rank after all others. In a unigram model
    a joined piece is likelier than its two parts together, so it is preferred to them."""
    scores, pieces = dict(known), list[ScoredPiece]()
    least = min(scores.values(), default=-1.0)
    for text, pair in new:
        if ranked:
            least -= 1
            score = least
        else:
            score = least if pair is None else min(scores[pair[0]], scores[pair[1]])
        scores[text] = score
        pieces.append(ScoredPiece(text, score, NORMAL))
    return pieces


def _scores(vocabulary: Vocabulary) -> tuple[dict[str, float], bool]:
    """The scores of the pieces in a tokenizer.json, and whether it ranks them by merges instead."""
    vocab: Any = json.loads(vocabulary.source)["model"]["vocab"]
    if isinstance(vocab, dict):
        return {}, True
    return {str(piece): float(score) for piece, score in cast("list[tuple[str, float]]", vocab)}, (
        False
    )


def _normaliser(vocabulary: Vocabulary) -> Callable[[str], str]:
    """The normalisation that a vocabulary applies to a text before it cuts it; spaces removed."""
    if vocabulary.is_sentencepiece:
        processor = SentencePieceProcessor(model_proto=vocabulary.source)
        return lambda text: cast(str, processor.normalize(text)).replace(SPACE, "")  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
    normaliser = tokenizer_json.read_tokenizer_json(vocabulary.source).normalizer
    if normaliser is None:
        return lambda text: text
    return lambda text: normaliser.normalize_str(text).replace(SPACE, "")
