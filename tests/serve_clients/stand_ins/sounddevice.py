"""Stands in for the module `sounddevice` beside Kyutai's script: its microphone plays a recording,
24 kHz float32 in the file that KIKU_MICROPHONE names, as soon as there is one, and then silence."""

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

default = SimpleNamespace(device=[0, 0])


class InputStream:
    """As much of the real one as the script uses."""

    def __init__(self, *, callback: Any, blocksize: int, samplerate: int, **options: Any) -> None:
        assert (samplerate, options) == (24_000, {"channels": 1, "dtype": "float32"})
        self._callback, self._size = callback, blocksize
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)

    def _play(self) -> None:
        path = Path(os.environ["KIKU_MICROPHONE"])
        while not path.exists():  # the script drops what comes before it is connected
            time.sleep(0.02)
        samples = np.fromfile(path, np.float32)
        at = 0
        while not self._ended.is_set():
            block = samples[at : at + self._size]
            block = np.concatenate([block, np.zeros(self._size - len(block), np.float32)])
            self._callback(block[:, None], self._size, None, None)
            at += self._size
            time.sleep(0.02)

    def __enter__(self) -> "InputStream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
