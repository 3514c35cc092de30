"""Hub, folder or the packaged demo -> config, tensors and vocabulary; and back.

    hub.py                  where files come from: a folder, a repository, the demo
    layout.py               which layout they have, and which of them are needed
    config_native.py        Kyutai's config.json <-> ModelConfig
    config_transformers.py  transformers' config.json <-> ModelConfig
    fixed.py                values that kiku builds and no others
    corrections.py          what the published files lack or state wrongly, in one table
    headers.py              names and shapes in safetensors files, and the mapped tensors
    names.py                upstream tensor names <-> kiku's, one table per layout
    conversions.py          what is done to the numbers on the way
    loading.py, saving.py   all of it together, in both directions
    other_half.py           the codec's half that makes sound, carried along unread
    integrity.py            is this checkpoint whole?

Only this room downloads, and only it knows what others call things.
"""

from typing import TYPE_CHECKING, Any

from kiku.checkpoint.hub import DEMO, KNOWN_REPOS, KnownRepo
from kiku.checkpoint.layout import Files, find

if TYPE_CHECKING:
    from kiku.checkpoint.corrections import CorrectedValue
    from kiku.checkpoint.integrity import Finding, verify
    from kiku.checkpoint.loading import Loaded, load, read_config
    from kiku.checkpoint.other_half import read_other_half
    from kiku.checkpoint.saving import save_native, save_transformers, to_native, to_transformers

# These need torch, which a list of models or a download does not.
_LATER = {
    "CorrectedValue": "corrections", "Finding": "integrity", "Loaded": "loading", "load": "loading",
    "read_config": "loading", "read_other_half": "other_half", "save_native": "saving",
    "save_transformers": "saving", "to_native": "saving", "to_transformers": "saving",
    "verify": "integrity",
}  # fmt: skip

__all__ = [
    "DEMO", "KNOWN_REPOS", "CorrectedValue", "Files", "Finding", "KnownRepo", "Loaded", "find",
    "load", "read_config", "read_other_half", "save_native", "save_transformers", "to_native",
    "to_transformers", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
