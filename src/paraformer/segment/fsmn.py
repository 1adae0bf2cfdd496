"""FSMN-VAD: FunASR's detector of speech, its network in numpy and its stream; `endpoints` has its rules.

Axes: t frames of 10 ms, d width of a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from paraformer.audio import Samples, packet
from paraformer.backends.companions import on_torch, opened_companion
from paraformer.bundle import cmvn_from_json, cmvn_to_json
from paraformer.companions import Companion, save_directory
from paraformer.companions.detector import FsmnConfig, detector_config
from paraformer.config import SAMPLE_RATE, FrontendConfig
from paraformer.errors import ConfigError, ModelError
from paraformer.frontend import Cmvn, Frontend
from paraformer.kinds import DETECTOR
from paraformer.products import product
from paraformer.segment.cut import Cut
from paraformer.segment.endpoints import FRAME_MS, EndpointConfig, Endpointer, Span
from paraformer.settings import from_mapping
from paraformer.weights import checked

FRONTEND = FrontendConfig(lfr_m=5, lfr_n=1)
_FRAME, _SHIFT = 400, 160
"""Samples of a frame, and from one to the next."""
_MS = SAMPLE_RATE // 1000
_TOGETHER = 1000 * _MS
"""Samples that a segmenter hears at a time."""
SCHEDULE = ((10, 2000), (20, 1000), (30, 800), (40, 600), (50, 400), (60, 200))
"""FunASR's latest: in speech that has gone on for up to so many seconds, so much silence in milliseconds ends it."""
_LEAST_MS = 100
_EAGER = 0.5
"""Threshold of speech that goes with the schedule."""


Past = tuple[Float32[np.ndarray, "left d"], ...]
"""Of each layer, the rows that its memory still sees."""


class FsmnNetwork:
    """Rows of features to probabilities. Read-only: streams may share one."""

    def __init__(self, config: FsmnConfig, weights: Mapping[str, np.ndarray]) -> None:
        """Raises CheckpointError unless `weights` holds exactly the tensors of the settings."""
        self.config = config
        self.weights = checked("the detector", weights, config.shapes())

    def init_state(self) -> Past:
        """Before the first row there was nothing."""
        c = self.config
        return (np.zeros(((c.left - 1) * c.stride, c.memory_dim), np.float32),) * c.layers

    def step(self, feats: Float32[np.ndarray, "t f"], past: Past) -> tuple[Float32[np.ndarray, "t o"], Past]:
        """Probabilities of every output for further rows, and what the next ones need."""
        x = np.maximum(self._affine("in_linear2", self._affine("in_linear1", feats)), 0)
        following = []
        for index, before in enumerate(past):
            rows = np.concatenate([before, product(x, self._weight(f"fsmn.{index}.linear").T)])
            following.append(rows[len(feats) :].copy())
            x = np.maximum(self._affine(f"fsmn.{index}.affine", self._remember(index, rows, len(feats))), 0)
        logits = self._affine("out_linear2", self._affine("out_linear1", x))
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True), tuple(following)

    def _remember(self, index: int, rows: np.ndarray, count: int) -> np.ndarray:
        """Rows, the past included, plus what the memory sees of those before each of the last `count`."""
        taps = self.weights[f"encoder.fsmn.{index}.fsmn_block.conv_left.weight"][:, 0, :, 0]
        remembered: np.ndarray = rows[len(rows) - count :].copy()
        for tap in range(self.config.left):
            start = tap * self.config.stride
            remembered += taps[:, tap] * rows[start : start + count]
        return remembered

    def _affine(self, name: str, x: np.ndarray) -> np.ndarray:
        y: np.ndarray = product(x, self._weight(name).T) + self.weights[f"encoder.{name}.linear.bias"]
        return y

    def _weight(self, name: str) -> np.ndarray:
        return self.weights[f"encoder.{name}.linear.weight"]


@dataclass(frozen=True)
class FsmnVad:
    """A detector: network, features and rules. `spans` for whole recordings, `stream` for live ones."""

    network: FsmnNetwork
    cmvn: Cmvn | None = None
    endpoints: EndpointConfig = field(default_factory=EndpointConfig)

    @classmethod
    def open(cls, directory: str | Path, device: str | None = None) -> FsmnVad:
        """A directory of FunASR's or of ours.

        device: compute on it by torch; None: without torch. Raises ModelNotFound, ModelError, UnsupportedModel or
        ConfigError, each saying what is wrong.
        """
        opened = opened_companion(Path(directory), DETECTOR)
        config, endpoints = opened.parsed(_parsed)
        weights = opened.weights
        with opened.naming(ModelError):
            network = FsmnNetwork(config, weights) if device is None else on_torch(DETECTOR, config, weights, device)
        return cls(network, cmvn_from_json(opened.extras["cmvn"], opened.source), endpoints)

    def save(self, directory: str | Path) -> None:
        """Write a directory that `open` reads without torch."""
        settings = {"network": asdict(self.network.config), "endpoints": asdict(self.endpoints)}
        extras = {"cmvn": None if self.cmvn is None else cmvn_to_json(self.cmvn)}
        save_directory(Companion(DETECTOR, settings, self.network.weights, extras), Path(directory))

    def with_endpoints(self, **changes: Any) -> FsmnVad:
        """The same with other rules: fields of EndpointConfig. Raises ConfigError for others."""
        return replace(self, endpoints=from_mapping(EndpointConfig, {**asdict(self.endpoints), **changes}, "endpoints"))

    def spans(self, samples: Any) -> list[tuple[float, float]]:
        """Start and end in seconds of each segment of a whole recording, one channel at 16 kHz.

        Raises AudioError for what are no samples.
        """
        stream = self.stream()
        found = [*stream.push(packet(samples)), *stream.finish()]
        return [(span.start_ms / 1000, span.end_ms / 1000) for span in found]

    def stream(self, *, dynamic_ms: int | None = None, live: bool = True) -> FsmnStream:
        """A stream, live or not. dynamic_ms: follow FunASR's schedule of silences, in pieces of so long.

        live: for the schedule, where FunASR counts anew when it tells of a segment: live also when that begins.
        """
        return FsmnStream(self, dynamic_ms, live=live)

    def __call__(self, blocks: Iterable[Samples]) -> Iterator[Cut]:
        """Segments of speech as (start in seconds, samples), as `VoiceSegmenter` gives them."""
        listening = self.open_stream()
        for block in blocks:
            yield from listening.push(block)
        yield from listening.finish()

    def open_stream(self) -> FsmnListening:
        """Cut one stream as it comes."""
        return FsmnListening(self)


def _parsed(settings: Mapping[str, Any]) -> tuple[FsmnConfig, EndpointConfig]:
    """Network and rules, of which a directory holds every setting."""
    if settings.keys() != {"network", "endpoints"}:
        raise ConfigError(f"a detector has the settings network and endpoints, not {', '.join(sorted(settings))}")
    endpoints = from_mapping(EndpointConfig, settings["endpoints"], "endpoints", optional=())
    return detector_config(settings["network"]), endpoints


class FsmnStream:
    """One stream of a detector: samples in packets of any size, segments out as they end."""

    def __init__(self, vad: FsmnVad, dynamic_ms: int | None = None, *, live: bool = True) -> None:
        """See `FsmnVad.stream`."""
        self._live = live
        self._vad, self._frontend = vad, Frontend(FRONTEND, vad.cmvn)
        self._features, self._past = self._frontend.init_state(), vad.network.init_state()
        self._rules = Endpointer(vad.endpoints)
        self._samples = np.zeros(0, np.float32)
        self._dynamic_ms, self._spoken_ms, self._in_speech = dynamic_ms, 0, False
        self._waiting = np.zeros(0, np.float32)
        self._told, self._announced = 0, -1

    @property
    def speaking_since_ms(self) -> int | None:
        """Where the segment that is being heard begins; None while nobody speaks."""
        span = self._rules.state.open
        return None if span is None else span.start_ms

    @property
    def free_ms(self) -> int:
        """No segment that is still to come begins before."""
        state = self._rules.state
        reach = state.frame - (self._vad.endpoints.window_ms + self._vad.endpoints.before_ms) // FRAME_MS
        return FRAME_MS * max(0, min(state.free, state.frame), reach)

    def push(self, samples: Samples) -> list[Span]:
        """Take in samples, any number; the segments that they end."""
        return [span for span in self.events(samples) if span.closed]

    def finish(self) -> list[Span]:
        """No more samples come: the segments that are left."""
        return [span for span in self.events(np.zeros(0, np.float32), final=True) if span.closed]

    def events(self, samples: Samples, *, final: bool = False) -> list[Span]:
        """As push and finish, with segments that begin too, which are not closed yet."""
        found: list[Span] = []
        for piece, last in self._pieces(samples, final):
            self._adapt()
            self._hear(piece, last)
            new = self._news(last)
            if any(span.closed or self._live for span in new):
                self._spoken_ms, self._in_speech = 0, False
            found += new
        return found

    def _pieces(self, samples: Samples, final: bool) -> Iterator[tuple[Samples, bool]]:
        """What is heard at once: all that came, or with a schedule pieces of one length."""
        if self._dynamic_ms is None:
            yield samples, final
            return
        size = self._dynamic_ms * _MS
        self._waiting = np.concatenate([self._waiting, samples])
        while len(self._waiting) >= size:
            piece, self._waiting = self._waiting[:size], self._waiting[size:]
            yield piece, False
        if final:
            yield self._waiting, True

    def _adapt(self) -> None:
        """The longer speech has gone on, the less silence ends it."""
        if self._dynamic_ms is None:
            return
        if self._rules.state.phase == "inside" or self._in_speech:
            self._spoken_ms, self._in_speech = self._spoken_ms + self._dynamic_ms, True
        silence = next((most for limit, most in SCHEDULE if self._spoken_ms <= limit * 1000), _LEAST_MS)
        rules = self._rules.config
        self._rules.config = replace(rules, end_silence_ms=silence, threshold=_EAGER)

    def _hear(self, samples: Samples, last: bool) -> None:
        feats, self._features = self._frontend.step(samples, self._features, final=last)
        self._samples = np.concatenate([self._samples, samples])
        if not len(feats):
            return
        probabilities, self._past = self._vad.network.step(feats, self._past)
        levels = self._levels(len(feats))
        silences = probabilities[:, list(self._vad.network.config.silence_ids)].sum(-1)
        for index, (silence, level) in enumerate(zip(silences.tolist(), levels.tolist(), strict=True)):
            self._rules.push(silence, level, last=last and index == len(feats) - 1)

    def _levels(self, count: int) -> np.ndarray:
        """dB of the next frames, whose samples are then forgotten."""
        needed = (count - 1) * _SHIFT + _FRAME
        samples = np.pad(self._samples, (0, max(0, needed - len(self._samples)))).astype(np.float64)
        frames = np.lib.stride_tricks.sliding_window_view(samples[:needed], _FRAME)[::_SHIFT]
        self._samples = self._samples[count * _SHIFT :].copy()
        # 1e-6 as the reference adds it (variants 5.4): digital silence is -60 dB.
        levels: np.ndarray = 10 * np.log10(np.square(frames).sum(-1) + 1e-6)
        return levels

    def _news(self, last: bool) -> list[Span]:
        """Segments that ended since, and the one that began."""
        rules = self._rules
        if last and rules.state.open is not None:  # speech that was noticed with the very last frame
            rules.spans.append(replace(rules.state.open, closed=True))
            rules.state = replace(rules.state, open=None)
        new, rules.spans = rules.spans, []
        self._told += len(new)
        span = rules.state.open
        if span is not None and self._announced < self._told:
            self._announced = self._told
            new = [*new, span]
        return new


class FsmnListening:
    """One stream that is cut while it comes, as `segment.Listening`."""

    def __init__(self, vad: FsmnVad) -> None:
        self._stream = vad.stream()
        self._held = np.zeros(0, np.float32)
        self._offset = 0

    @property
    def speaking_since_s(self) -> float | None:
        """Where the segment that is being heard begins; None while nobody speaks."""
        since = self._stream.speaking_since_ms
        return None if since is None else since / 1000

    def push(self, block: Samples) -> list[Cut]:
        """Take in further samples, any number; returns the segments that they complete."""
        cuts = []
        for start in range(0, len(block), _TOGETHER):
            part = block[start : start + _TOGETHER]
            self._held = np.concatenate([self._held, part])
            cuts += self._extracted(self._stream.push(part))
        return cuts

    def finish(self) -> list[Cut]:
        """No more samples come: returns what is left."""
        return self._extracted(self._stream.finish())

    def _extracted(self, spans: Iterable[Span]) -> list[Cut]:
        cuts = []
        for span in spans:
            first, last = span.start_ms * _MS - self._offset, span.end_ms * _MS - self._offset
            cuts.append((span.start_ms / 1000, self._held[first:last].copy()))
        since = self._stream.speaking_since_ms
        keep = (self._stream.free_ms if since is None else since) * _MS
        drop = max(0, min(keep - self._offset, len(self._held)))
        self._held, self._offset = self._held[drop:], self._offset + drop
        return cuts
