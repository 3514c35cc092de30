# pyright: basic
# It takes and gives what transformers does, of any type.
"""`pipeline("automatic-speech-recognition")` for these models.

transformers' own cannot run them: it asks their feature extractor for a mask that it does not know,
and hands sound to `generate` as if it were ids.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from transformers.pipelines.automatic_speech_recognition import AutomaticSpeechRecognitionPipeline

from kiku.errors import InputError
from kiku.hf.auto.processing import KyutaiSpeechToTextProcessor
from kiku.hf.processing import recordings

_NOT_NEEDED = ("chunk_length_s", "stride_length_s", "ignore_warning", "return_language")
"""Arguments for cutting long sound into chunks, which these models do not need."""


class KyutaiSpeechToTextPipeline(AutomaticSpeechRecognitionPipeline):
    """Turns recordings of any length into {"text"}; `return_timestamps` adds {"chunks"}."""

    _default_generation_config = None

    def _sanitize_parameters(
        self, return_timestamps: Any = None, generate_kwargs: Any = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if return_timestamps not in (None, False, True, "word"):
            raise InputError(
                f"return_timestamps must be True or 'word', not {return_timestamps!r}: these "
                "models have times of words"
            )
        for key in _NOT_NEEDED:
            kwargs.pop(key, None)
        after = {} if return_timestamps is None else {"return_timestamps": return_timestamps}
        return {}, {**kwargs, **(generate_kwargs or {})}, after

    @property
    def network(self) -> Any:
        """The model."""
        return self.model

    def preprocess(self, inputs: Any) -> Iterator[dict[str, Any]]:
        """Samples, a path, the bytes of a file, or a row of a dataset -> what `generate` takes."""
        extractor: Any = self.feature_extractor
        rate = extractor.sampling_rate
        if isinstance(inputs, bytes):
            inputs = {"bytes": inputs}
        (samples,) = recordings(inputs, rate)
        batch = extractor(samples, sampling_rate=rate, return_tensors="pt")
        # [1, L]: only in this shape can transformers batch recordings of different lengths.
        yield {"is_last": True, **batch, "input_values": batch["input_values"][:, 0]}

    def _forward(self, model_inputs: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        is_last = model_inputs.pop("is_last")
        samples = model_inputs.pop("input_values").unsqueeze(1)
        tokens = self.network.generate(input_values=samples, **model_inputs, **kwargs)
        return {"is_last": is_last, "tokens": getattr(tokens, "sequences", tokens)}

    def postprocess(
        self, model_outputs: Any, return_timestamps: bool | str | None = None
    ) -> dict[str, Any]:
        """The text, and the words with their times."""
        (out,) = model_outputs
        tokens = np.asarray(out["tokens"])
        tokenizer: Any = self.tokenizer
        text = tokenizer.decode(tokens[0], skip_special_tokens=True)
        if not return_timestamps:
            return {"text": text}
        processor = KyutaiSpeechToTextProcessor(self.feature_extractor, self.tokenizer)
        codec = self.network.config.codec_config
        processor.frame_rate = codec.sampling_rate / codec.frame_size
        (words,) = processor.words(tokens)
        chunks = [
            {"text": " " + w.text, "timestamp": (round(w.start, 3), round(w.end, 3))} for w in words
        ]
        return {"text": text, "chunks": chunks}
