"""kiku's driver around networks that somebody else owns."""

from kiku.codec import MimiEncoder
from kiku.engine import SlotEngine
from kiku.engine.torch import TorchBackend
from kiku.lm import LM


def engine_around(
    codec: MimiEncoder, lm: LM, *, slots: int, longest: int, keep_logits: bool
) -> SlotEngine:
    """An engine that leaves the networks in the mode that they were in, with room for recordings of
    `longest` frames at most."""
    modes = [(one, one.training) for one in (codec, lm)]
    device = str(lm.out_norm.weight.device)
    backend = TorchBackend(codec, lm, slots=slots, device=device, longest=longest)
    for one, was_training in modes:
        one.train(was_training)
    return SlotEngine(backend, keep_logits=keep_logits)
