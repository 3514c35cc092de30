# pyright: basic
# It takes and gives what transformers does, of any type.
"""transformers' feature extractor and processor, which hear what kiku's hear."""

from tempfile import TemporaryDirectory
from typing import Any

from transformers import BatchFeature
from transformers import KyutaiSpeechToTextFeatureExtractor as TheirExtractor
from transformers import KyutaiSpeechToTextProcessor as TheirProcessor

from kiku.hf.auto.folders import is_kikus
from kiku.hf.features import KyutaiSpeechToTextFeatureExtractor as PlainExtractor
from kiku.hf.processing import KyutaiSpeechToTextProcessor as PlainProcessor
from kiku.hf.processing import recordings
from kiku.text import Word

_ACCESS = ("revision", "cache_dir", "token", "local_files_only")


def _read(plain: Any, source: Any, arguments: dict[str, Any]) -> Any:
    """What kiku reads of a checkpoint, delay and silence corrected; None where it is none."""
    if is_kikus(source, arguments) is None:
        return None
    access = {key: arguments.pop(key) for key in _ACCESS if key in arguments}
    return plain.from_pretrained(source, **access)


class KyutaiSpeechToTextFeatureExtractor(TheirExtractor):
    """Recordings to one padded batch, with silence before and the delay after."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; and of whatever else kiku reads."""
        read = _read(PlainExtractor, pretrained_model_name_or_path, kwargs)
        if read is None:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        with TemporaryDirectory() as folder:
            read.save_pretrained(folder)
            return super().from_pretrained(folder, *args, **kwargs)

    def __call__(
        self,
        raw_audio: Any,
        padding: Any = None,
        truncation: bool | None = False,
        max_length: int | None = None,
        return_tensors: Any = None,
        sampling_rate: int | None = None,
        return_attention_mask: bool | None = None,
    ) -> BatchFeature:
        """See `kiku.hf.KyutaiSpeechToTextFeatureExtractor`.

        Args:
            raw_audio: one recording or several.
            padding: to which length.
            truncation: cut at `max_length`.
            max_length: samples.
            return_tensors: "pt", "np" or None.
            sampling_rate: is checked, never converted.
            return_attention_mask: False leaves `padding_mask` out.
        """
        batch = PlainExtractor(**self.to_dict())(
            raw_audio, padding, truncation, max_length, return_tensors, sampling_rate
        )
        if return_attention_mask is False:
            batch.pop("padding_mask", None)
        return BatchFeature(dict(batch))


class KyutaiSpeechToTextProcessor(TheirProcessor):
    """A feature extractor and a tokenizer; takes recordings positionally, paths as well."""

    frame_rate: float = PlainProcessor.published_frame_rate
    """Text ids per second."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; and of whatever else kiku reads."""
        read = _read(PlainProcessor, pretrained_model_name_or_path, kwargs)
        if read is None:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        with TemporaryDirectory() as folder:
            read.save_pretrained(folder)
            found = super().from_pretrained(folder, *args, **kwargs)
        found.frame_rate = read.frame_rate
        if found.tokenizer.pad_token is None:  # rows could not be padded
            found.tokenizer.pad_token = read.tokenizer.pad_token
        return found

    def __init__(self, feature_extractor: Any, tokenizer: Any, **kwargs: Any) -> None:
        """Put the two together."""
        if type(feature_extractor) is TheirExtractor:  # as transformers loads it
            values = feature_extractor.to_dict()
            feature_extractor = KyutaiSpeechToTextFeatureExtractor(**values)
        super().__init__(feature_extractor, tokenizer, **kwargs)

    def __call__(self, audio: Any = None, text: Any = None, **kwargs: Any) -> BatchFeature:
        """Make the input of `generate`; see `kiku.hf.KyutaiSpeechToTextProcessor`.

        Args:
            audio: one recording or several, samples in [-1, 1] or paths.
            text: also give the ids of a transcript.
            **kwargs: as in transformers.
        """
        if audio is not None:
            rate = self.feature_extractor.sampling_rate
            audio = recordings(audio, rate)
            if rate != self.audio_kwargs.get("sampling_rate") and "sampling_rate" not in kwargs:
                own = {"sampling_rate": rate, **(kwargs.get("audio_kwargs") or {})}
                kwargs = {**kwargs, "audio_kwargs": own}
        return super().__call__(text=text, audio=audio, **kwargs)

    def words(self, sequences: Any, logits: Any = None) -> list[list[Word]]:
        """See `kiku.hf.KyutaiSpeechToTextProcessor.words`.

        Args:
            sequences: [B, 1 + N] what `generate` gave.
            logits: N of [B, vocab_size], for the words' probabilities.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            plain = PlainProcessor.from_pretrained(folder)
        plain.frame_rate = self.frame_rate
        return plain.words(sequences, logits)
