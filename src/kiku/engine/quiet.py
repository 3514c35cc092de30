"""ONNX Runtime, loaded so that it reports to nobody: no device id, no database, no request.

It looks at a variable of the environment when it is loaded, which is put back afterwards; where
somebody else has loaded it before, its own switch must do. (What it would start besides is a thread
that keeps a forked process from ending.)
"""

import os
from typing import Any

_NAME = "ORT_DISABLE_TELEMETRY"
_before = os.environ.get(_NAME)
os.environ[_NAME] = "1"
try:
    import onnxruntime as _onnxruntime  # pyright: ignore[reportMissingTypeStubs]
finally:
    if _before is None:
        del os.environ[_NAME]
    else:
        os.environ[_NAME] = _before

onnxruntime: Any = _onnxruntime
onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime"]
