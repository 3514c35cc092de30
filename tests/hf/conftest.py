"""transformers' own classes on tiny random checkpoints: what kiku.hf is held against."""

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from kiku.hf import KyutaiSpeechToTextForConditionalGeneration, KyutaiSpeechToTextProcessor
from kiku.text import Vocabulary
from tests.checkpoint.cached_repo import fake_hub as fake_hub
from tests.hf.tiny_checkpoint import CONFIG, PIECES, RATE, randomise


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """The oracle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("transformers")
        module.utils.logging.disable_progress_bar()
        # Loaded here, where warnings are no errors: transformers imports its classes late.
        _ = module.KyutaiSpeechToTextForConditionalGeneration, module.KyutaiSpeechToTextProcessor
    return module


@pytest.fixture(autouse=True)
def _quiet_oracle() -> Any:
    """transformers warns a lot; its warnings are not ours to fix."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"transformers(\..*)?")
        yield


@pytest.fixture(scope="session")
def theirs(transformers: ModuleType) -> Any:
    """transformers' model."""
    # What `randomise` leaves alone is drawn here.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        config = transformers.KyutaiSpeechToTextConfig(**CONFIG)
        model = transformers.KyutaiSpeechToTextForConditionalGeneration(config).eval()
    randomise(model)
    return model


@pytest.fixture(scope="session")
def their_processor(transformers: ModuleType) -> Any:
    """transformers' processor, with half a second of delay and a tenth of silence."""
    from tokenizers import Tokenizer

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(Vocabulary.from_pieces(PIECES).to_tokenizer_json()),
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    extractor = transformers.KyutaiSpeechToTextFeatureExtractor(
        sampling_rate=RATE, audio_delay_seconds=0.5, audio_silence_prefix_seconds=0.1
    )
    return transformers.KyutaiSpeechToTextProcessor(extractor, tokenizer)


@pytest.fixture(scope="session")
def saved(theirs: Any, their_processor: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that transformers wrote."""
    folder = tmp_path_factory.mktemp("theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(folder)
        their_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ours(saved: Path) -> KyutaiSpeechToTextForConditionalGeneration:
    """The same checkpoint in kiku; not to be changed."""
    return KyutaiSpeechToTextForConditionalGeneration.from_pretrained(saved)


@pytest.fixture(scope="session")
def processor(saved: Path) -> KyutaiSpeechToTextProcessor:
    """Its processor in kiku."""
    return KyutaiSpeechToTextProcessor.from_pretrained(saved)
