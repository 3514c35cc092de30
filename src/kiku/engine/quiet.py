"""ONNX Runtime, loaded with its telemetry off: no device id, no database, no request.

ONNX Runtime reads an environment variable while it is loaded; the variable is put back afterwards.
If other code has loaded it before, its own switch must do. (Telemetry would also start a thread
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
