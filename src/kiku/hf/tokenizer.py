# pyright: basic
# It takes and gives what transformers does, of any type.
"""Ids to text as transformers' fast tokenizer gives it, from either vocabulary file."""

import json
import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from tokenizers import Tokenizer

from kiku.config import PAD_ID, WORD_START_ID
from kiku.errors import InputError
from kiku.hf.batch import BatchFeature
from kiku.hf.source import small_files
from kiku.hf.values import write_text
from kiku.text import Vocabulary

# What transformers 5 writes for these checkpoints, by the names that both its versions read.
_CONFIG: dict[str, Any] = {
    "backend": "tokenizers", "clean_up_tokenization_spaces": False, "unk_token": "<unk>",
    "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 10**30,
}  # fmt: skip


class KyutaiSpeechToTextTokenizer:
    """Text pieces by id. Stands where transformers has a `PreTrainedTokenizerFast`."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        config: Mapping[str, Any] | None = None,
        *,
        pad_id: int = PAD_ID,
        word_start_id: int = WORD_START_ID,
    ) -> None:
        """Around a vocabulary.

        Args:
            vocabulary: of either kind.
            config: the values of tokenizer_config.json, kept for saving.
            pad_id: the id of a frame without text; a model's config knows it.
            word_start_id: the id that stands before most words; likewise.
        """
        self.vocabulary = vocabulary
        self.pad_id = pad_id
        self.word_start_id = word_start_id
        self.config: dict[str, Any] = {
            **_CONFIG,
            **(config or {}),
            "processor_class": "KyutaiSpeechToTextProcessor",
        }
        self._json = vocabulary.to_tokenizer_json()
        self._tokenizer: Tokenizer = Tokenizer.from_str(self._json)
        added = self._tokenizer.get_added_tokens_decoder()
        self.all_special_ids = sorted(i for i, token in added.items() if token.special)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None
    ) -> Self:
        """The tokenizer of a checkpoint of any layout, or of a folder that one was saved into.

        Raises:
            CheckpointError: it cannot be found.
            VocabularyError: it is damaged.
        """
        files = small_files(pretrained_model_name_or_path, revision)
        config, model = files.json("tokenizer_config.json"), files.model_config
        if model is None:
            return cls(Vocabulary.load(files.vocabulary), config)
        return cls(
            Vocabulary.load(files.vocabulary),
            config,
            pad_id=model.pad_id,
            word_start_id=model.word_start_id,
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> list[str]:
        """Write tokenizer.json and tokenizer_config.json; their paths are returned."""
        config = json.dumps(self.config, indent=2, sort_keys=True) + "\n"
        return [
            write_text(save_directory, "tokenizer.json", self._json),
            write_text(save_directory, "tokenizer_config.json", config),
        ]

    def __len__(self) -> int:
        """How many ids there are."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def vocab_size(self) -> int:
        """How many ids there are, without those that were added to the vocabulary."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def get_vocab(self) -> dict[str, int]:
        """Every piece and its id."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def __call__(
        self, text: str | list[str], padding: bool | str = False, return_tensors: str | None = None
    ) -> BatchFeature:
        """Ids of one text or several.

        Args:
            text: what to spell.
            padding: fill shorter rows with `pad_id`; their mask is 0 there.
            return_tensors: "pt", "np", or None for lists.

        Returns:
            `input_ids` and `attention_mask` [B, N] (lists [N] for a single text without
            `return_tensors`).

        Raises:
            InputError: not text, or rows of different lengths without padding.
        """
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            raise InputError("`text` must be a string or list of strings.")
        rows = [self._tokenizer.encode(one).ids for one in texts]
        longest = max(map(len, rows), default=0) if padding else 0
        masks = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        rows = [row + [self.pad_id] * (longest - len(row)) for row in rows]
        if return_tensors is None and isinstance(text, str):
            return BatchFeature(input_ids=rows[0], attention_mask=masks[0])
        return BatchFeature(input_ids=rows, attention_mask=masks).convert_to_tensors(return_tensors)

    def encode(self, text: str) -> list[int]:
        """Ids of one text."""
        return self._tokenizer.encode(text).ids

    def convert_ids_to_tokens(self, ids: int | list[int]) -> Any:
        """The spelling of an id, or of each of several; None for an id that there is not."""
        if isinstance(ids, int):
            return self._tokenizer.id_to_token(ids)
        return [self._tokenizer.id_to_token(int(i)) for i in ids]

    def convert_tokens_to_ids(self, tokens: str | list[str]) -> Any:
        """The id of a piece, or of each of several; that of `<unk>` for one that there is not."""
        if isinstance(tokens, str):
            found = self._tokenizer.token_to_id(tokens)
            return found if found is not None else self._tokenizer.token_to_id("<unk>")
        return [self.convert_tokens_to_ids(one) for one in tokens]

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str | list[str]:
        """Text of ids; ids outside the vocabulary give nothing.

        Args:
            token_ids: an id, a row of them, or several rows, as list, array or tensor.
            skip_special_tokens: leave out PAD, the word-start marker and the like.
            clean_up_tokenization_spaces: changes nothing: the pieces bring their own spaces.

        Returns:
            A text, or one for each row.
        """
        ids = token_ids.tolist() if isinstance(token_ids, torch.Tensor | np.ndarray) else token_ids
        if isinstance(ids, int):
            ids = [ids]
        if len(ids) and not isinstance(ids[0], int | np.integer):
            return self.batch_decode(ids, skip_special_tokens, clean_up_tokenization_spaces)
        # An id below 0 or beyond 32 bits is none that the library could be asked about.
        known = [int(i) for i in ids if 0 <= i < 2**32]
        return self._tokenizer.decode(known, skip_special_tokens=skip_special_tokens)

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """`decode` of each row."""
        rows = [
            self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in sequences
        ]
        return rows  # pyright: ignore[reportReturnType]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} pieces)"
