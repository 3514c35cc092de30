"""The same classes on top of transformers' own, where it is installed.

    from kiku.hf.auto import AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline

`kiku.hf` needs no transformers, and so has none of its machinery. Here a model is one of
transformers' models: `Trainer`, PEFT, `pipeline`, beams, assisted decoding and whatever else takes
one can use it, and its parts have transformers' names. What it computes is corrected as in
`kiku.hf`, and `generate` transcribes with kiku's networks around the same weights.

    configuration.py  the config, with the known errors of published files corrected
    modeling.py       the two model classes
    networks.py       kiku's networks around transformers' weights
    folders.py        checkpoints of other layouts as folders that transformers can load
    processing.py     feature extractor and processor
    recognition.py    `pipeline("automatic-speech-recognition")`
    choosing.py       Auto classes that use kiku's classes for these checkpoints, and `register`
"""

try:
    import transformers  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ModuleNotFoundError as error:
    from kiku.errors import UnsupportedConfig

    raise UnsupportedConfig(
        "kiku.hf.auto builds on transformers, which is not installed: run  pip install "
        "'transformers>=5.23'  or use kiku.hf, which does without"
    ) from error

from kiku.hf.auto.choosing import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    pipeline,
    register,
)
from kiku.hf.auto.configuration import KyutaiSpeechToTextConfig
from kiku.hf.auto.modeling import (
    KyutaiSpeechToTextForConditionalGeneration,
    KyutaiSpeechToTextModel,
    KyutaiSpeechToTextPreTrainedModel,
)
from kiku.hf.auto.processing import (
    KyutaiSpeechToTextFeatureExtractor,
    KyutaiSpeechToTextProcessor,
)
from kiku.hf.auto.recognition import KyutaiSpeechToTextPipeline

__all__ = [
    "AutoConfig",
    "AutoFeatureExtractor",
    "AutoModel",
    "AutoModelForSpeechSeq2Seq",
    "AutoProcessor",
    "KyutaiSpeechToTextConfig",
    "KyutaiSpeechToTextFeatureExtractor",
    "KyutaiSpeechToTextForConditionalGeneration",
    "KyutaiSpeechToTextModel",
    "KyutaiSpeechToTextPipeline",
    "KyutaiSpeechToTextPreTrainedModel",
    "KyutaiSpeechToTextProcessor",
    "pipeline",
    "register",
]
