# pyright: basic
# It takes and gives what transformers does, of any type.
"""transformers' feature extractor and processor, giving the same input as kiku's."""

from tempfile import TemporaryDirectory
from typing import Any

from transformers import BatchFeature
from transformers import KyutaiSpeechToTextFeatureExtractor as TheirExtractor
from transformers import KyutaiSpeechToTextProcessor as TheirProcessor

from kiku.hf.auto.folders import LOCATING, layout_of_checkpoint
from kiku.hf.features import KyutaiSpeechToTextFeatureExtractor as PlainExtractor
from kiku.hf.processing import KyutaiSpeechToTextProcessor as PlainProcessor
from kiku.hf.processing import recordings
from kiku.text import Word


def _load_plain(plain: Any, source: Any, arguments: dict[str, Any]) -> Any:
    """The checkpoint's `plain` object, delay and silence corrected; None if kiku cannot read it."""
    if layout_of_checkpoint(source, arguments) is None:
        return None
    access = {key: arguments.pop(key) for key in LOCATING if key in arguments}
    return plain.from_pretrained(source, **access)


class KyutaiSpeechToTextFeatureExtractor(TheirExtractor):
    """Turns recordings into one padded batch, with silence before and the delay after each."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; also reads the checkpoints of other layouts that kiku reads."""
        read = _load_plain(PlainExtractor, pretrained_model_name_or_path, kwargs)
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
            padding: to which length recordings are padded.
            truncation: cut at `max_length`.
            max_length: length in samples.
            return_tensors: "pt", "np" or None.
            sampling_rate: rate of `raw_audio`; checked, never converted.
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
        """As in transformers; also reads the checkpoints of other layouts that kiku reads."""
        read = _load_plain(PlainProcessor, pretrained_model_name_or_path, kwargs)
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
        """Combine the two."""
        if type(feature_extractor) is TheirExtractor:  # as transformers loads it
            values = feature_extractor.to_dict()
            feature_extractor = KyutaiSpeechToTextFeatureExtractor(**values)
        super().__init__(feature_extractor, tokenizer, **kwargs)

    def __call__(self, audio: Any = None, text: Any = None, **kwargs: Any) -> BatchFeature:
        """Make the input of `generate`; see `kiku.hf.KyutaiSpeechToTextProcessor`.

        Args:
            audio: one recording or several, samples in [-1, 1] or paths.
            text: a transcript, whose ids are given as well.
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
            sequences: [B, 1 + N] ids from `generate`.
            logits: N of [B, vocab_size], for the words' probabilities.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            plain = PlainProcessor.from_pretrained(folder)
        plain.frame_rate = self.frame_rate
        return plain.words(sequences, logits)
