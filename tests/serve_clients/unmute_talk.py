"""Runs Unmute's own `SpeechToText` as Unmute's handler does, and prints what it gives as JSON.

`python unmute_talk.py FILE`: 24 kHz float32. PYTHONPATH has a clone of Unmute, KYUTAI_STT_URL the
service.
"""

import asyncio
import json
import sys

import numpy as np
from unmute.stt.speech_to_text import SpeechToText, STTMarkerMessage

FRAME = 1_920


async def main(path: str) -> None:
    samples = np.fromfile(path, np.float32)
    stt = SpeechToText()
    await stt.start_up()
    told: list[str] = []
    marked = asyncio.Event()

    async def read() -> None:
        async for message in stt:
            if isinstance(message, STTMarkerMessage):
                marked.set()
            else:
                told.append(message.text)

    reading = asyncio.create_task(read())
    for first in range(0, len(samples), FRAME):
        await stt.send_audio(samples[first : first + FRAME])
    await stt.send_marker(7)
    marking = asyncio.create_task(marked.wait())
    await asyncio.wait({reading, marking}, return_when=asyncio.FIRST_COMPLETED)
    marking.cancel()
    await stt.shutdown()
    await reading
    print(json.dumps({"words": told, "state": stt.state()}))


asyncio.run(main(sys.argv[1]))
