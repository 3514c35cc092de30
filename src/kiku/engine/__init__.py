"""The engine: B slots and their state, stepped together on a device. Torch and ONNX Runtime are
imported only with the backend that needs them (`kiku.engine.torch`, `kiku.engine.onnx`)."""

from kiku.decoding import Picker, SamplingParams
from kiku.engine.backend import Backend, Said, StepOutput
from kiku.engine.core import SlotEngine
from kiku.engine.saved_slot import SavedSlot, SlotCopy

__all__ = [
    "Backend",
    "Picker",
    "Said",
    "SamplingParams",
    "SavedSlot",
    "SlotCopy",
    "SlotEngine",
    "StepOutput",
]
