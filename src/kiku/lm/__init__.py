"""Codes and the last text token to the next text token."""

from kiku.lm.model import LM, LMOutput, LMState

__all__ = ["LM", "LMOutput", "LMState"]
