# pyright: basic
# It takes and gives what transformers does, of any type.
"""Turn ids into text as transformers' fast tokenizer does, with either vocabulary file."""

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
from kiku.hf.padding import pad_rows
from kiku.hf.pushing import PushesToHub
from kiku.hf.source import SmallFiles, known_arguments, refuse_unknown, small_files
from kiku.hf.values import write_text
from kiku.text import Vocabulary

# What transformers 5 writes for these checkpoints, by the names that both its versions read.
_CONFIG: dict[str, Any] = {
    "backend": "tokenizers", "clean_up_tokenization_spaces": False, "unk_token": "<unk>",
    "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 10**30,
}  # fmt: skip


_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


class KyutaiSpeechToTextTokenizer(PushesToHub):
    """Text pieces by id. It takes the place of transformers' `PreTrainedTokenizerFast`."""

    model_input_names = ("input_ids", "attention_mask")
    padding_side = truncation_side = "right"
    is_fast = True

    def __init__(
        self,
        vocabulary: Vocabulary,
        config: Mapping[str, Any] | None = None,
        *,
        pad_id: int = PAD_ID,
        word_start_id: int = WORD_START_ID,
    ) -> None:
        """Wrap a vocabulary.

        Args:
            vocabulary: from either kind of file.
            config: the values of tokenizer_config.json, kept for saving.
            pad_id: the id of a frame without text, as in a model's config.
            word_start_id: the id that stands before most words, as in a model's config.
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

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """The tokenizer of a checkpoint of any layout, or of a folder that one was saved into.

        Args:
            pretrained_model_name_or_path: "demo", a folder, or a repository.
            revision: branch, tag or commit of the repository.
            **kwargs: `cache_dir`, `token` and `local_files_only` as in transformers;
                others only with values that ask for nothing.

        Raises:
            CheckpointError: it cannot be found.
            InputError: (a ValueError) an unknown argument.
            VocabularyError: it is damaged.
        """
        known_arguments(kwargs, ())
        return cls.from_files(small_files(pretrained_model_name_or_path, revision, kwargs))

    @classmethod
    def from_files(cls, files: SmallFiles) -> Self:
        """As `from_pretrained`, from files that are already open."""
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

    def get_added_vocab(self) -> dict[str, int]:
        """The pieces that were added to the vocabulary, and the special ones."""
        added = self._tokenizer.get_added_tokens_decoder()
        return {token.content: i for i, token in added.items()}

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer of the tokenizers library."""
        return self._tokenizer

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The tokens that tokenizer_config.json names."""
        named = {key: self._named(key) for key in _NAMED}
        return {key: token for key, token in named.items() if token is not None}

    @property
    def all_special_tokens(self) -> list[str]:
        """The tokens that tokenizer_config.json names, each once."""
        return list(dict.fromkeys(self.special_tokens_map.values()))

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of `all_special_tokens`. `decode` without special tokens leaves out PAD etc. too."""
        return self.convert_tokens_to_ids(self.all_special_tokens)

    def _named(self, key: str) -> str | None:
        token = self.config.get(key)
        return token.get("content") if isinstance(token, Mapping) else token

    def _named_id(self, key: str) -> int | None:
        token = self._named(key)
        return None if token is None else self.convert_tokens_to_ids(token)

    @property
    def pad_token_id(self) -> int:
        """The id that rows are filled with: the model's id of a frame without text."""
        return self.pad_id

    @property
    def pad_token(self) -> str:
        """Spelling of `pad_token_id`."""
        return self.convert_ids_to_tokens(self.pad_id)

    @property
    def unk_token(self) -> str | None:
        """The piece that stands for text that cannot be spelled."""
        return self._named("unk_token")

    @property
    def unk_token_id(self) -> int | None:
        """Id of `unk_token`."""
        return self._named_id("unk_token")

    @property
    def bos_token(self) -> str | None:
        """The token at the beginning; None unless tokenizer_config.json names one."""
        return self._named("bos_token")

    @property
    def bos_token_id(self) -> int | None:
        """Id of `bos_token`; None if there is none."""
        return self._named_id("bos_token")

    @property
    def eos_token(self) -> str | None:
        """The token at the end; None unless tokenizer_config.json names one."""
        return self._named("eos_token")

    @property
    def eos_token_id(self) -> int | None:
        """Id of `eos_token`; None if there is none."""
        return self._named_id("eos_token")

    def __call__(
        self,
        text: str | list[str],
        padding: bool | str = False,
        return_tensors: str | None = None,
        *,
        truncation: bool | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        add_special_tokens: bool = True,
        **kwargs: Any,
    ) -> BatchFeature:
        """Ids of one text or several.

        Args:
            text: the text or texts to split into pieces.
            padding: fill shorter rows with `pad_id`; their mask is 0 there. See `pad`.
            return_tensors: "pt", "np", or None for lists.
            truncation: cut at `max_length`.
            max_length: length in ids.
            pad_to_multiple_of: make the length a multiple of it.
            padding_side: "right" or "left".
            return_attention_mask: False leaves the mask out.
            add_special_tokens: changes nothing: these vocabularies add none.
            **kwargs: only None and False are allowed.

        Returns:
            `input_ids` and `attention_mask` [B, N] (lists [N] for a single text without
            `return_tensors`).

        Raises:
            InputError: not text, rows of different lengths without padding, or an unknown argument.
        """
        refuse_unknown({k: v for k, v in kwargs.items() if v is not False}, "the tokenizer")
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            raise InputError("`text` must be a string or list of strings.")
        rows = [self._tokenizer.encode(one).ids for one in texts]
        if truncation and max_length is not None:
            rows = [row[:max_length] for row in rows]
        is_single = return_tensors is None and isinstance(text, str)
        return self.pad(
            {"input_ids": rows[0] if is_single else rows},
            padding,
            max_length,
            pad_to_multiple_of,
            padding_side,
            return_attention_mask,
            return_tensors,
        )

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Bring rows of ids to one length.

        Args:
            encoded_inputs: a dict with `input_ids` (one row or several) and perhaps
                `attention_mask`, or a list of such dicts.
            padding: True or "longest", "max_length", or False for none.
            max_length: length in ids.
            pad_to_multiple_of: make the length a multiple of it.
            padding_side: "right" (None) or "left".
            return_attention_mask: False leaves the mask out.
            return_tensors: "pt", "np", or None for lists.

        Raises:
            InputError: (a ValueError) no ids, or arguments that do not fit together.
        """
        batch = pad_rows(
            encoded_inputs, self.pad_id, padding, max_length, pad_to_multiple_of, padding_side
        )
        if return_attention_mask is False:
            batch.pop("attention_mask")
        return batch.convert_to_tensors(return_tensors)

    def encode(self, text: str, return_tensors: str | None = None, **kwargs: Any) -> Any:
        """Ids of one text: a list, or with `return_tensors` [1, N]. Arguments are as in a call."""
        return self(text, return_tensors=return_tensors, **kwargs)["input_ids"]

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text; a piece that the vocabulary lacks keeps its spelling."""
        return self._tokenizer.encode(text).tokens

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of pieces."""
        decoder = self._tokenizer.decoder
        return "".join(tokens) if decoder is None else decoder.decode(tokens)

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The spelling of an id, or of each of several; None for an unknown id.

        Args:
            ids: an id, or several.
            skip_special_tokens: leave out those of `all_special_ids`.
        """
        if isinstance(ids, int):
            return self._tokenizer.id_to_token(ids)
        left_out = self.all_special_ids if skip_special_tokens else []
        return [self._tokenizer.id_to_token(int(i)) for i in ids if int(i) not in left_out]

    def _convert_id_to_token(self, index: int) -> str | None:
        """The spelling of an id; transformers calls this for stop strings."""
        return self._tokenizer.id_to_token(index)

    def convert_tokens_to_ids(self, tokens: str | list[str]) -> Any:
        """The id of a piece, or of each of several; that of `<unk>` for an unknown piece."""
        if isinstance(tokens, str):
            found = self._tokenizer.token_to_id(tokens)
            return found if found is not None else self._tokenizer.token_to_id("<unk>")
        return [self.convert_tokens_to_ids(one) for one in tokens]

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> str | list[str]:
        """Text of ids; ids outside the vocabulary give nothing.

        Args:
            token_ids: an id, a row of them, or several rows, as list, array or tensor.
            skip_special_tokens: leave out PAD, the word-start marker and the like.
            clean_up_tokenization_spaces: changes nothing: the pieces bring their own spaces.
            **kwargs: `spaces_between_special_tokens` and other arguments of transformers' slow
                tokenizers, which change nothing in its fast ones either.

        Returns:
            A text, or one for each row.
        """
        has_axes = isinstance(token_ids, torch.Tensor | np.ndarray | np.integer)
        ids = token_ids.tolist() if has_axes else token_ids
        if isinstance(ids, int):
            ids = [ids]
        if len(ids) and not isinstance(ids[0], int | np.integer):
            return self.batch_decode(ids, skip_special_tokens, clean_up_tokenization_spaces)
        # The library takes no id below 0 or beyond 32 bits.
        known = [int(i) for i in ids if 0 <= i < 2**32]
        return self._tokenizer.decode(known, skip_special_tokens=skip_special_tokens)

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """`decode` of each row."""
        rows = [
            self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in sequences
        ]
        return rows  # pyright: ignore[reportReturnType]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} pieces)"
