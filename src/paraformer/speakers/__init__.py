"""Who speaks when: CAM++ voices, and turns made of them."""

from __future__ import annotations

from paraformer.speakers.campplus import CamppConfig, VoiceEncoder
from paraformer.speakers.clusters import cluster
from paraformer.speakers.turns import Turn, speaker_of, turns, windows

__all__ = ["CamppConfig", "Turn", "VoiceEncoder", "cluster", "speaker_of", "turns", "windows"]
