"""Codes and the last text token to the next text token."""

from kiku.lm.model import LM, LMOutput, LMState
from kiku.lm.sampling import Sampler

__all__ = ["LM", "LMOutput", "LMState", "Sampler"]
