"""The interface of transformers' Kyutai Speech-To-Text classes, without transformers.

    from kiku.hf import KyutaiSpeechToTextForConditionalGeneration, KyutaiSpeechToTextProcessor

Names, arguments, outputs and files are the same; `modeling` lists where these classes follow the
native models instead. There are two additions: each row of a batch ends with its own sound, and
`processor.words` gives words with times.
"""

try:
    import torch  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ModuleNotFoundError as error:
    from kiku.errors import MissingExtra

    raise MissingExtra("kiku.hf", "torch") from error

from kiku.hf.batch import BatchFeature
from kiku.hf.configuration import KyutaiSpeechToTextConfig, MimiConfig
from kiku.hf.features import KyutaiSpeechToTextFeatureExtractor
from kiku.hf.generation_config import GenerationConfig
from kiku.hf.modeling import KyutaiSpeechToTextForConditionalGeneration, KyutaiSpeechToTextModel
from kiku.hf.outputs import KyutaiSpeechToTextCache
from kiku.hf.pretrained import KyutaiSpeechToTextPreTrainedModel
from kiku.hf.processing import KyutaiSpeechToTextProcessor
from kiku.hf.tokenizer import KyutaiSpeechToTextTokenizer

__all__ = [
    "BatchFeature",
    "GenerationConfig",
    "KyutaiSpeechToTextCache",
    "KyutaiSpeechToTextConfig",
    "KyutaiSpeechToTextFeatureExtractor",
    "KyutaiSpeechToTextForConditionalGeneration",
    "KyutaiSpeechToTextModel",
    "KyutaiSpeechToTextPreTrainedModel",
    "KyutaiSpeechToTextProcessor",
    "KyutaiSpeechToTextTokenizer",
    "MimiConfig",
]
