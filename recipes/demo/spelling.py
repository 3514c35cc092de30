"""How the words of the vocabulary are spelled in pieces."""

import io
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from kiku.writing import in_place_of
from recipes.demo.corpus import VOCABULARY

_SIZE = 56


@dataclass(frozen=True, slots=True)
class Spelling:
    """A SentencePiece model of few pieces: words that begin alike share their first piece.

    So the decoder can write the beginning of a word before it knows which word it is.
    """

    pieces: list[list[int]]
    size: int

    @classmethod
    def made(cls, path: Path) -> "Spelling":
        """Train the model, or read it from `path` if that exists."""
        if not path.exists():
            # Written through a buffer: given a path, the model would hold it for ever.
            model = io.BytesIO()
            sentencepiece.SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
                sentence_iterator=iter(VOCABULARY * 3),
                model_writer=model,
                normalization_rule_name="identity",
                vocab_size=_SIZE,
                model_type="bpe",
                character_coverage=1.0,
                unk_id=0,
                bos_id=1,
                eos_id=2,
                pad_id=3,
                add_dummy_prefix=True,
                minloglevel=2,
                num_threads=1,
            )
            with in_place_of(path) as part:
                part.write_bytes(model.getvalue())
        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))  # pyright: ignore[reportCallIssue]
        return cls([processor.encode(word) for word in VOCABULARY], len(processor))
