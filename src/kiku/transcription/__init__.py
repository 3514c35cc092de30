"""Recordings: sound in as it is needed, words out as they are decided.

transcript.py     Transcript: what was said in a recording, in plain values
sources.py        what a caller gives as a recording -> its sound
sound.py          RecordingSound: that sound, read no further than it is wanted
recording.py      RecordingTask: one recording on its way through its slots
progress.py       how far all recordings of a call are, reported to its callback
batch.py          RecordingBatch: the recordings of a call, side by side in the free slots
transcription.py  Transcription: one of them, as its caller sees it
"""

from kiku.transcription.batch import RecordingBatch
from kiku.transcription.progress import OnProgress
from kiku.transcription.recording import PartialTranscript, RecordingTask
from kiku.transcription.sound import RecordingSound
from kiku.transcription.transcript import IncompleteTranscript, Transcript, by_time
from kiku.transcription.transcription import Transcription, as_done

__all__ = [
    "IncompleteTranscript",
    "OnProgress",
    "PartialTranscript",
    "RecordingBatch",
    "RecordingSound",
    "RecordingTask",
    "Transcript",
    "Transcription",
    "as_done",
    "by_time",
]
