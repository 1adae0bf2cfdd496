"""Where sentences of a live stream begin and end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paraformer.audio import LiveResampler
from paraformer.segment import SegmentConfig, VoiceSegmenter
from paraformer.serve.protocol import Packet, StreamOptions

_HEARD_TOGETHER = 8
"""Windows of 32 ms in which a stream is searched for pauses: a sentence ends at most a quarter of a second late."""


@dataclass(frozen=True)
class Cut:
    """Speech between two pauses, or only its beginning (no samples)."""

    start_s: float
    samples: Packet | None


class Pauses:
    """Where sentences of a stream begin and end."""

    def __init__(self, options: StreamOptions) -> None:
        pause = max(0.1, options.pause_s)
        config = SegmentConfig(min_s=0.0, min_silence_s=pause, join_s=pause, pad_s=min(0.2, pause / 2))
        self._listening = VoiceSegmenter(config).open(_HEARD_TOGETHER)
        self._resampler = LiveResampler(options.rate)
        self._incoming = self._resampler.init_state()
        self._told: float | None = None

    def push(self, samples: Packet) -> list[Cut]:
        """Take in samples at the stream's rate."""
        return self._heard(samples, final=False)

    def finish(self) -> list[Cut]:
        """No more samples come."""
        cuts = self._heard(np.zeros(0, np.float32), final=True)
        return [*cuts, *(Cut(*cut) for cut in self._listening.finish())]

    def _heard(self, samples: Packet, *, final: bool) -> list[Cut]:
        at_16k, self._incoming = self._resampler.step(samples, self._incoming, final=final)
        cuts = [Cut(*cut) for cut in self._listening.push(at_16k)]
        since = self._listening.speaking_since_s
        if since is not None and since != self._told:
            self._told = since
            cuts.append(Cut(since, None))
        return cuts
