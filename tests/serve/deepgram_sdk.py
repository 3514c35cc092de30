"""Deepgram's SDK, which imports names that websockets calls deprecated."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from deepgram import AsyncDeepgramClient, DeepgramClient
    from deepgram.core.api_error import ApiError
    from deepgram.environment import DeepgramClientEnvironment
    from deepgram.listen.v1.client import V1Client
    from deepgram.listen.v1.media.client import MediaClient
    from deepgram.listen.v1.socket_client import V1SocketClientResponse
    from deepgram.listen.v2.client import V2Client
    from deepgram.listen.v2.socket_client import V2SocketClientResponse
    from deepgram.types import ListenV1Response

__all__ = [
    "ApiError",
    "AsyncDeepgramClient",
    "DeepgramClient",
    "DeepgramClientEnvironment",
    "ListenV1Response",
    "MediaClient",
    "V1Client",
    "V1SocketClientResponse",
    "V2Client",
    "V2SocketClientResponse",
]
