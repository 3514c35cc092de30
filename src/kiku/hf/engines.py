"""kiku's driver around networks that somebody else owns."""

from kiku.codec import MimiEncoder
from kiku.engine import SlotEngine
from kiku.engine.torch import torch_engine
from kiku.lm import LM


def engine_around(codec: MimiEncoder, lm: LM, *, slots: int, keep_logits: bool) -> SlotEngine:
    """An engine that leaves the networks in the mode that they were in."""
    modes = [(one, one.training) for one in (codec, lm)]
    device = str(lm.out_norm.weight.device)
    engine = torch_engine(codec, lm, slots=slots, device=device, keep_logits=keep_logits)
    for one, was_training in modes:
        one.train(was_training)
    return engine
