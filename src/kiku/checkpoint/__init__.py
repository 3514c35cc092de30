"""Hub, folder or the packaged demo -> config, tensors and vocabulary; and back.

    hub.py                  where files come from: a folder, a repository, the demo
    layout.py               which layout they have, and which of them are needed
    config_native.py        Kyutai's config.json <-> ModelConfig
    config_transformers.py  transformers' config.json <-> ModelConfig
    fixed.py                values that kiku builds and no others
    corrections.py          what the published files lack or state wrongly, in one table
    headers.py              names and shapes in safetensors files
    names.py                upstream tensor names <-> kiku's, one table per layout
    conversions.py          what is done to the numbers on the way
    expected.py             the names and shapes of our tensors
    shapes.py               the published models without their weights, for measuring
    reading.py              the config, and which tensor of the files is which of ours
    integrity.py            is this checkpoint whole?

With numpy:
    arrays.py, weights.py   tensors one at a time
    converted.py            the model as ONNX graphs in a folder: made once, then only opened
    build.py, manifest.py   their making, and what is written beside them
    cache.py, lock.py       where they are kept, and one process at a time

With PyTorch:
    mapped.py               tensors as they lie in the files
    loading.py, saving.py   all of it together, in both directions
    other_half.py           the codec's half that makes sound, carried along unread

Only this room downloads, and only it knows what others call things.
"""

from typing import TYPE_CHECKING, Any

from kiku.checkpoint.hub import DEMO, KNOWN_REPOS, KnownRepo
from kiku.checkpoint.layout import Files, find

if TYPE_CHECKING:
    from kiku.checkpoint.converted import ConvertedModel, convert, is_converted, open_converted
    from kiku.checkpoint.corrections import CorrectedValue
    from kiku.checkpoint.integrity import Finding, verify
    from kiku.checkpoint.loading import Loaded, load
    from kiku.checkpoint.other_half import read_other_half
    from kiku.checkpoint.reading import read_config
    from kiku.checkpoint.saving import save_native, save_transformers, to_native, to_transformers
    from kiku.checkpoint.weights import weights_of

# A list of models or a download needs none of these, and some need PyTorch.
_LATER = {
    "ConvertedModel": "converted", "CorrectedValue": "corrections", "Finding": "integrity",
    "Loaded": "loading", "convert": "converted", "is_converted": "converted", "load": "loading",
    "open_converted": "converted", "read_config": "reading", "read_other_half": "other_half",
    "save_native": "saving", "save_transformers": "saving", "to_native": "saving",
    "to_transformers": "saving", "verify": "integrity", "weights_of": "weights",
}  # fmt: skip

__all__ = [
    "DEMO", "KNOWN_REPOS", "ConvertedModel", "CorrectedValue", "Files", "Finding", "KnownRepo",
    "Loaded", "convert", "find", "is_converted", "load", "open_converted", "read_config",
    "read_other_half", "save_native", "save_transformers", "to_native", "to_transformers", "verify",
    "weights_of",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
