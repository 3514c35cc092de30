"""Checkpoints as ONNX graphs in folders: made once per checkpoint and precision, then only opened.

    conversion.py  convert: what exists already is used, everything else is made
    build.py       makes a model in a folder that gets its final name once it is complete
    model.py       finds out whether a folder holds a converted model, and opens it
    manifest.py    what a folder states of its model, and whether that is true
    integrity.py   checks whether a model is whole, one line for each file
    cache.py       where converted models are kept, and under which names
    lock.py        lets one process at a time make a model

A folder holds all that is needed to run the model, so it can be copied to a machine that has
neither the checkpoint nor PyTorch. Reads checkpoints through `kiku.checkpoint`, writes graphs
through `kiku.graph`; nothing here imports torch.
"""

from kiku.converted.cache import Entry, cache_folder, entries, entries_of, name_of, remove
from kiku.converted.conversion import convert, default_precision
from kiku.converted.integrity import verify_converted
from kiku.converted.model import ConvertedModel, is_converted, open_converted

__all__ = [
    "ConvertedModel",
    "Entry",
    "cache_folder",
    "convert",
    "default_precision",
    "entries",
    "entries_of",
    "is_converted",
    "name_of",
    "open_converted",
    "remove",
    "verify_converted",
]
