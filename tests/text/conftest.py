"""Small vocabularies, trained once."""

import io
from collections.abc import Callable

import pytest
import sentencepiece

SENTENCES = [
    "he tells us that at this festive season of the year",
    "with christmas and roast beef looming before us",
    "similes drawn from eating and its results",
    "occur most readily to the mind",
    "l'année 1998, 4000 francs: déjà vu",
]


def train(model_type: str, **options: object) -> bytes:
    """A SentencePiece `.model` laid out as Kyutai's: four special ids, then bytes, then pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3),
        model_writer=written,
        model_type=model_type,
        vocab_size=350,
        hard_vocab_limit=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        minloglevel=2,
        **({"byte_fallback": True} | options),
    )
    return written.getvalue()


@pytest.fixture(scope="session")
def unigram_model() -> bytes:
    return train("unigram")


@pytest.fixture(scope="session", params=["unigram", "bpe"])
def model_bytes(request: pytest.FixtureRequest) -> bytes:
    """A model of each type that checkpoints use."""
    return train(request.param)


@pytest.fixture(scope="session", name="train")
def train_() -> Callable[..., bytes]:
    """`train`, for tests that want other options."""
    return train
