"""Sound to codes: [B, 1, S] -> [B, K, T]."""

from kiku.codec.mimi import MimiEncoder, MimiState
from kiku.codec.rvq import RVQ, SplitRVQ
from kiku.codec.seanet import SEANet, as_stored

__all__ = ["RVQ", "MimiEncoder", "MimiState", "SEANet", "SplitRVQ", "as_stored"]
