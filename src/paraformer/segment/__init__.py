"""Long audio, in flat memory: where somebody speaks (`silero`), and cutting at the pauses (`cut`)."""

from __future__ import annotations

from paraformer.segment.cut import Listening, SegmentConfig, VoiceSegmenter, split
from paraformer.segment.silero import VoiceDetector, VoiceState

__all__ = ["Listening", "SegmentConfig", "VoiceDetector", "VoiceSegmenter", "VoiceState", "split"]
