# pyright: basic
# It takes and gives what transformers does, of any type.
"""transformers' Auto classes and `pipeline`, with kiku's classes for checkpoints it can read."""

from importlib import import_module
from typing import Any

import transformers

from kiku.hf.auto.configuration import KyutaiSpeechToTextConfig
from kiku.hf.auto.folders import layout_of_checkpoint
from kiku.hf.auto.modeling import (
    KyutaiSpeechToTextForConditionalGeneration,
    KyutaiSpeechToTextModel,
)
from kiku.hf.auto.processing import (
    KyutaiSpeechToTextFeatureExtractor,
    KyutaiSpeechToTextProcessor,
)
from kiku.hf.auto.recognition import KyutaiSpeechToTextPipeline

_ASR = "automatic-speech-recognition"
_pipeline: Any = transformers.pipeline


class _Prefers:
    """Base of Auto classes that first check whether kiku can read a checkpoint."""

    _ours: Any

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load by kiku's class if kiku can read the checkpoint, else by transformers'."""
        if layout_of_checkpoint(pretrained_model_name_or_path, kwargs) is None:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)  # pyright: ignore
        return cls._ours.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)


class _PrefersModel(_Prefers):
    """Base of Auto classes of models."""

    @classmethod
    def from_config(cls, config: Any, **kwargs: Any) -> Any:
        """A model with random weights."""
        if config.model_type != KyutaiSpeechToTextConfig.model_type:
            return super().from_config(config, **kwargs)  # pyright: ignore
        return cls._ours._from_config(config, **kwargs)


class AutoConfig(_Prefers, transformers.AutoConfig):
    """The config of any model."""

    _ours = KyutaiSpeechToTextConfig


class AutoFeatureExtractor(_Prefers, transformers.AutoFeatureExtractor):
    """The feature extractor of any model."""

    _ours = KyutaiSpeechToTextFeatureExtractor


class AutoProcessor(_Prefers, transformers.AutoProcessor):
    """The processor of any model."""

    _ours = KyutaiSpeechToTextProcessor


class AutoModel(_PrefersModel, transformers.AutoModel):
    """Any model without a head."""

    _ours = KyutaiSpeechToTextModel


class AutoModelForSpeechSeq2Seq(_PrefersModel, transformers.AutoModelForSpeechSeq2Seq):
    """Any model that transcribes."""

    _ours = KyutaiSpeechToTextForConditionalGeneration


def pipeline(
    task: str | None = None,
    model: Any = None,
    *,
    processor: Any = None,
    model_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """transformers' `pipeline`, which can also transcribe with these models.

    Args:
        task: "automatic-speech-recognition", or any other of transformers'.
        model: a checkpoint, or a model.
        processor: a checkpoint, or a processor; None is the model's.
        model_kwargs: for `from_pretrained`.
        **kwargs: of transformers' `pipeline`.
    """
    source = model
    if task in (None, _ASR) and layout_of_checkpoint(model, kwargs) is not None:
        wanted = {key: kwargs.pop(key) for key in _OF_LOADING if key in kwargs}
        wanted = {key: value for key, value in wanted.items() if value is not None}
        model = AutoModelForSpeechSeq2Seq.from_pretrained(
            model, **{"dtype": "auto", **wanted, **(model_kwargs or {})}
        )
        processor = source if processor is None else processor
        access = {key: wanted[key] for key in ("revision", "token") if key in wanted}
        if isinstance(processor, str):
            processor = AutoProcessor.from_pretrained(processor, **access)
    if not isinstance(model, KyutaiSpeechToTextForConditionalGeneration):
        return _pipeline(task, model, processor=processor, model_kwargs=model_kwargs, **kwargs)
    parts = {
        key: kwargs.pop(key, None) or getattr(processor, key, None)
        for key in ("tokenizer", "feature_extractor")
    }
    return _pipeline(_ASR, model, pipeline_class=KyutaiSpeechToTextPipeline, **parts, **kwargs)


_OF_LOADING = ("dtype", "torch_dtype", "device_map", "revision", "token", "trust_remote_code")


def register() -> None:
    """Replace transformers' classes by kiku's of the same names, for the whole process.

    Its Auto classes use them as well. From then on programs that import from transformers get
    kiku's classes. Only `pipeline` must still be imported from here.
    """
    config = KyutaiSpeechToTextConfig
    if transformers.KyutaiSpeechToTextConfig is config:
        return
    transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
    for auto, ours in (
        (transformers.AutoModel, KyutaiSpeechToTextModel),
        (transformers.AutoModelForSpeechSeq2Seq, KyutaiSpeechToTextForConditionalGeneration),
        (transformers.AutoModelForMultimodalLM, KyutaiSpeechToTextForConditionalGeneration),
    ):
        auto.register(config, ours, exist_ok=True)
    # transformers finds processors and their parts by name.
    for ours in (
        config,
        KyutaiSpeechToTextFeatureExtractor,
        KyutaiSpeechToTextProcessor,
        KyutaiSpeechToTextModel,
        KyutaiSpeechToTextForConditionalGeneration,
    ):
        (base,) = (one for one in ours.__mro__[1:] if one.__name__ == ours.__name__)
        for module in ("transformers", base.__module__.rpartition(".")[0], base.__module__):
            setattr(import_module(module), ours.__name__, ours)
