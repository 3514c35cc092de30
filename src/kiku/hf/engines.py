"""kiku's engine around networks that the caller owns."""

from kiku.codec import MimiEncoder
from kiku.engine import SlotEngine
from kiku.engine.torch import TorchBackend
from kiku.lm import LM


def engine_around(
    codec: MimiEncoder, lm: LM, *, slots: int, longest: int, keep_logits: bool
) -> SlotEngine:
    """An engine around these networks, with room for recordings of at most `longest` frames.

    The networks stay in the mode they are in, training or evaluation.
    """
    modes = [(one, one.training) for one in (codec, lm)]
    device = str(lm.out_norm.weight.device)
    backend = TorchBackend(codec, lm, slots=slots, device=device, longest=longest)
    for one, was_training in modes:
        one.train(was_training)
    return SlotEngine(backend, keep_logits=keep_logits)
