"""A model with another vocabulary: its own with more pieces at the end, or a new one.

Pieces that the model has keep their rows. In the text embedding and the text head the row of a new
piece begins as the mean of the rows of the pieces that spelled it before; that of a letter without
a piece begins as its bytes', or as that of the letter without its accent, or as the mean of all.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kiku.checkpoint import Loaded, load
from kiku.checkpoint.saving import as_stored
from kiku.config import ModelConfig
from kiku.errors import TrainingError
from kiku.text import Vocabulary
from kiku.text.extension import VocabularyKind, extended, trained
from kiku.text.vocabulary import NUM_SPECIAL
from kiku.train.manifest import TrainingRow, refuse_shared_splits
from kiku.train.model_files import write_model
from kiku.train.new_pieces import write_new_pieces
from kiku.train.places import check_model_folder, in_place_of_model, refuse_to_replace


@dataclass(frozen=True, slots=True)
class VocabOptions:
    """How a vocabulary is made."""

    pieces: int = 200
    """New pieces at most or, for a new vocabulary, all; missing letters are always added."""
    any_letters: bool = False
    """Also add pieces of letters that the model has: fewer tokens a word, but old words may be cut
    differently, and the model has to learn these again."""
    new: Literal["", "bpe", "unigram"] = ""
    """The kind of a vocabulary that replaces the model's; "" extends it."""


@dataclass(frozen=True, slots=True)
class Grown:
    """The result: a model with another vocabulary."""

    folder: Path
    vocabulary: Vocabulary
    new: range
    """Ids of the new pieces."""
    letters: tuple[str, ...]
    """Letters that the model lacked."""
    recut: tuple[str, ...]
    """Words that the model could spell, and that the new vocabulary cuts differently."""
    left_out: tuple[str, ...]
    """Tensors that the layout has no place for."""


def count_words(rows: Sequence[TrainingRow]) -> Counter[str]:
    """The words of a manifest, each with how often it occurs."""
    words = Counter[str]()
    for row in rows:
        if row.words is not None:
            words.update(word.text.strip() for word in row.words)
        else:
            words.update((row.text or "").split())
    del words[""]
    return words


def make_vocabulary(
    rows: Sequence[TrainingRow],
    model: str,
    folder: Path,
    options: VocabOptions,
    *,
    layout: Literal["native", "transformers"] = "native",
    force: bool = False,
) -> Grown:
    """Write a model that can spell a manifest.

    Args:
        rows: rows of the manifest.
        model: the model whose weights and vocabulary are used.
        folder: where the model is written: new or empty; with `force` also a model's folder.
        options: how the vocabulary is made.
        layout: layout of the files.
        force: replace a model in the folder, unless it is `model`.

    Raises:
        TrainingError: the manifest has no words or something in two splits, there is nothing to
            add, or the folder holds a model already or anything else.
        VocabularyError: the vocabulary cannot be extended, or `options.pieces` are too few to spell
            the words.
        CheckpointError: the model cannot be read, or the folder cannot be written.
    """
    refuse_shared_splits(rows)
    words = count_words(rows)
    if not words:
        raise TrainingError(
            "the manifests have no words, so no pieces can be made: give rows with words or text"
        )
    check_model_folder(folder, force=force)
    loaded = load(model, dtype=torch.float32)
    refuse_to_replace(folder, loaded.files.config.parent)
    old = loaded.vocabulary
    if options.new:
        made, letters, recut = _anew(loaded, words, options.new, options.pieces)
        new = range(NUM_SPECIAL, len(made))
    else:
        found = extended(old, words, most=options.pieces, any_letters=options.any_letters)
        made, letters, recut = found.vocabulary, found.letters, found.recut
        new = range(len(old), len(made))
        if not new:
            raise TrainingError(
                f"{model} can spell all {len(words):,} words: pack them with this model as it is; "
                "--any-letters makes longer pieces, --new another vocabulary"
            )
    config, state = grown_decoder(loaded, made, new)
    dtype = load(loaded.files, dtype="auto").lm.out_norm.weight.dtype
    with in_place_of_model(folder) as place:
        left_out = write_model(place, layout, config, as_stored(state, dtype), loaded, made)
        write_new_pieces(place, new, loaded.files.name)
    return Grown(folder, made, new, letters, recut, left_out)


def _anew(
    loaded: Loaded, words: Counter[str], kind: VocabularyKind, size: int
) -> tuple[Vocabulary, tuple[str, ...], tuple[str, ...]]:
    config, old = loaded.config, loaded.vocabulary
    last = max(config.pad_id, config.word_start_id)
    if last >= NUM_SPECIAL:
        raise TrainingError(
            f"{loaded.files.name} has PAD or the word-start marker at id {last}, where a new "
            "vocabulary has text: extend it instead, without --new"
        )
    made = trained(list(words.elements()), size=size + NUM_SPECIAL, kind=kind)
    letters = dict.fromkeys(letter for word in words for letter in old.lacking(word))
    same = [old.piece(i) for i in range(len(old))]
    recut = tuple(
        word
        for word in words
        if not old.lacking(word)
        and [same[i] for i in old.encode(word)] != [made.piece(i) for i in made.encode(word)]
    )
    return made, tuple(letters), recut


def grown_decoder(
    loaded: Loaded, vocabulary: Vocabulary, new: range
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The config and the `state_dict` of a model's decoder with a row for each piece.

    Args:
        loaded: the model.
        vocabulary: the vocabulary that it gets.
        new: ids of the pieces that it lacks; those before them keep their rows.
    """
    lm, old = loaded.config.lm, loaded.vocabulary
    # Rows without a piece are kept if pieces are added, and dropped if the vocabulary is new.
    kept = min(new.start, lm.text_vocab_size)
    size = len(vocabulary) if new.start == NUM_SPECIAL else max(len(vocabulary), lm.text_vocab_size)
    state = dict(loaded.lm.state_dict())
    embedding, head = state["text_embedding.weight"], state["text_head.weight"]
    spelling = _Spelling(old, lm.text_vocab_size)
    tables: list[list[Tensor]] = [[], []]
    for table, rows in zip((embedding, head), tables, strict=True):
        rows.append(table[:kept])
        for i in range(kept, len(vocabulary)):
            rows.append(table[spelling.ids(vocabulary.piece(i))].mean(0, keepdim=True))
        rows.append(table[len(vocabulary) : size] if size > len(vocabulary) else table[:0])
    tables[0].append(embedding[lm.initial_text_id : lm.initial_text_id + 1])
    state["text_embedding.weight"], state["text_head.weight"] = map(torch.cat, tables)
    numbers = replace(lm, text_vocab_size=size, initial_text_id=size)
    return replace(loaded.config, lm=numbers), state


class _Spelling:
    """How a vocabulary would spell a piece that it lacks."""

    def __init__(self, vocabulary: Vocabulary, size: int) -> None:
        ids = [i for i in range(min(size, len(vocabulary))) if vocabulary.is_text(i)]
        self.known = {vocabulary.piece(i): i for i in ids}
        self.all = list(self.known.values())

    def ids(self, piece: str) -> list[int]:
        """Ids of the pieces that spell it, the longest match first; all ids if none does."""
        return list(self._cut(piece)) or self.all

    def _cut(self, piece: str) -> Iterator[int]:
        at = 0
        while at < len(piece):
            end = next((e for e in range(len(piece), at, -1) if piece[at:e] in self.known), at)
            if end > at:
                yield self.known[piece[at:end]]
            else:
                end = at + 1
                yield from self._letter(piece[at])
            at = end

    def _letter(self, letter: str) -> Iterator[int]:
        """Ids for a letter without a piece: its bytes, or the letter without its accents."""
        pieces = [f"<0x{byte:02X}>" for byte in letter.encode()]
        if all(one in self.known for one in pieces):
            yield from (self.known[one] for one in pieces)
            return
        plain = unicodedata.normalize("NFD", letter)
        yield from (self.known[one] for one in plain if one in self.known and one != letter)
