"""Rules of an FSMN-VAD by FunASR's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from paraformer.checkpoint.funasr_detector import renamed
from paraformer.segment.endpoints import EndpointConfig
from paraformer.segment.fsmn import FsmnVad
from paraformer.settings import from_mapping


def changed(vad: FsmnVad, options: Mapping[str, Any]) -> FsmnVad:
    """The same with other rules. Raises ConfigError for what is none of them."""
    values = {**asdict(vad.endpoints), **renamed(options)}
    return replace(vad, endpoints=from_mapping(EndpointConfig, values, "vad"))
