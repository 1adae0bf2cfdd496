"""Where sentences of a live stream begin and end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paraformer.audio import SAMPLE_RATE, LiveResampler
from paraformer.segment import SegmentConfig, VoiceSegmenter
from paraformer.serve.protocol import Packet, StreamOptions

_HEARD_TOGETHER = 8
"""Windows of 32 ms in which a stream is searched for pauses: a sentence ends at most a quarter of a second late."""
_SETTLED_S = 0.6
"""Of silence: longer than what is heard together and what a sentence has of silence before it."""


@dataclass(frozen=True)
class Cut:
    """Speech between two pauses, or only its beginning (no samples)."""

    start_s: float
    samples: Packet | None


class Pauses:
    """Where sentences of a stream begin and end."""

    def __init__(self, options: StreamOptions, start_s: float = 0.0, heard: bytes = b"") -> None:
        """start_s: where the first sample that will be pushed lies in the stream; heard: `recent` elsewhere."""
        pause = max(0.1, options.pause_s)
        config = SegmentConfig(min_s=0.0, min_silence_s=pause, join_s=pause, pad_s=min(0.2, pause / 2))
        self._listening = VoiceSegmenter(config).open(_HEARD_TOGETHER)
        self._resampler = LiveResampler(options.rate)
        self._incoming = self._resampler.init_state()
        self._recent = np.frombuffer(heard, np.float32)
        self._start_s, self._quiet_s = start_s - len(self._recent) / SAMPLE_RATE, 0.0
        self._told: float | None = None
        self._listening.push(self._recent)

    @property
    def settled(self) -> bool:
        """Whether nothing that was heard belongs to a sentence that is still to come."""
        return self._quiet_s > _SETTLED_S

    @property
    def recent(self) -> bytes:
        """What was pushed last: a sentence may begin in it that has not been noticed yet."""
        return self._recent.tobytes()

    def push(self, samples: Packet) -> list[Cut]:
        """Take in samples at the stream's rate."""
        return self._heard(samples, final=False)

    def finish(self) -> list[Cut]:
        """No more samples come."""
        cuts = self._heard(np.zeros(0, np.float32), final=True)
        return [*cuts, *(self._placed(cut) for cut in self._listening.finish())]

    def _heard(self, samples: Packet, *, final: bool) -> list[Cut]:
        at_16k, self._incoming = self._resampler.step(samples, self._incoming, final=final)
        cuts = [self._placed(cut) for cut in self._listening.push(at_16k)]
        self._recent = np.concatenate([self._recent, at_16k])[-int(_SETTLED_S * SAMPLE_RATE) :]
        since = self._listening.speaking_since_s
        self._quiet_s = self._quiet_s + len(at_16k) / SAMPLE_RATE if since is None else 0.0
        if since is not None and since != self._told:
            self._told = since
            cuts.append(Cut(self._start_s + since, None))
        return cuts

    def _placed(self, cut: tuple[float, Packet]) -> Cut:
        return Cut(self._start_s + cut[0], cut[1])
