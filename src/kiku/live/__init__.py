"""Live streams: pushed to from any thread or task, stepped by the scheduler's own thread, fetched
from anywhere.

    setup.py         StreamSetup, SavedStream: what a stream is made of, and how it is written down
    sessions.py      StreamSessions: its sessions, one for each channel, used as if they were one
    open_stream.py   OpenStream: what both kinds of streams do without waiting
    live_stream.py   LiveStream: for threads
    async_stream.py  AsyncStream: for tasks of an event loop
    waiters.py       Waiters: tasks that wait for what another thread does
"""

from kiku.live.async_stream import AsyncStream
from kiku.live.live_stream import LiveStream
from kiku.live.setup import SavedStream, StreamSetup
from kiku.live.waiters import Waiters

__all__ = ["AsyncStream", "LiveStream", "SavedStream", "StreamSetup", "Waiters"]
