"""B slots and their state, one step on a device. The contract is here; `torch` keeps it with
PyTorch."""

from kiku.engine.contract import Choose, Engine, StepOutput

__all__ = ["Choose", "Engine", "StepOutput"]
