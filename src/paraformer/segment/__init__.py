"""Long audio, in flat memory: where somebody speaks (`silero`; `fsmn`, `endpoints`), and cutting at pauses (`cut`)."""

from __future__ import annotations

from paraformer.segment.cut import Listening, SegmentConfig, VoiceSegmenter, split
from paraformer.segment.endpoints import EndpointConfig
from paraformer.segment.fsmn import FsmnVad
from paraformer.segment.silero import VoiceDetector, VoiceState

__all__ = [
    "EndpointConfig",
    "FsmnVad",
    "Listening",
    "SegmentConfig",
    "VoiceDetector",
    "VoiceSegmenter",
    "VoiceState",
    "split",
]
