"""Interfaces of other speech-to-text packages around a recognizer: programs change an import.

    faster_whisper.py       WhisperModel and BatchedInferencePipeline
    whisper_arguments.py    what their arguments mean here
    whisper_functions.py    decode_audio and the package's other functions

An argument for something that these models cannot do is refused, or ignored with a warning.
"""
