"""Reads checkpoints from the hub, a folder or the package into config, tensors and vocabulary, and
writes them.

    hub.py                  where files come from: a folder, a repository, the demo
    hub_errors.py           the messages for when the hub does not give them
    layout.py               which layout they have, and which of them are needed
    config_native.py        Kyutai's config.json <-> ModelConfig
    config_transformers.py  transformers' config.json <-> ModelConfig
    supported.py            the values that kiku builds, and no others
    corrections.py          what the published files lack or state wrongly, in one table
    headers.py              names and shapes in safetensors files
    names.py                upstream tensor names <-> kiku's, one table per layout
    transforms.py           what is done to the numbers on the way
    tensor_shapes.py        the names and shapes of our tensors
    model_shapes.py         the published models without their weights, for measuring
    reading.py              the config, and which tensor of the files is which of ours
    identity.py             what distinguishes a checkpoint from any other
    integrity.py            checks whether a checkpoint is whole
    upload.py               a folder to a repository

With numpy:
    arrays.py, weights.py   tensors one at a time

With PyTorch:
    mapped.py               tensors as they lie in the files
    loading.py, saving.py   whole checkpoints, in both directions
    mimi_decoder.py         the weights of Mimi's decoder, carried along unread

Only this room downloads and uploads, and only it knows the names that others use.
"""

from typing import TYPE_CHECKING, Any

from kiku.checkpoint.hub import DEMO, KNOWN_REPOS, KnownRepo, is_local
from kiku.checkpoint.layout import Files, find

if TYPE_CHECKING:
    from kiku.checkpoint.corrections import CorrectedValue
    from kiku.checkpoint.integrity import Finding, verify
    from kiku.checkpoint.loading import Loaded, load
    from kiku.checkpoint.mimi_decoder import read_mimi_decoder
    from kiku.checkpoint.reading import read_config
    from kiku.checkpoint.saving import save_native, save_transformers, to_native, to_transformers
    from kiku.checkpoint.weights import weights_of

# Imported on first use: a list of models or a download needs none of these, and some need PyTorch.
_LATER = {
    "CorrectedValue": "corrections", "Finding": "integrity", "Loaded": "loading",
    "load": "loading", "read_config": "reading", "read_mimi_decoder": "mimi_decoder",
    "save_native": "saving", "save_transformers": "saving", "to_native": "saving",
    "to_transformers": "saving", "verify": "integrity", "weights_of": "weights",
}  # fmt: skip

__all__ = [
    "DEMO", "KNOWN_REPOS", "CorrectedValue", "Files", "Finding", "KnownRepo", "Loaded", "find",
    "is_local", "load", "read_config", "read_mimi_decoder", "save_native", "save_transformers",
    "to_native", "to_transformers", "verify", "weights_of",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
