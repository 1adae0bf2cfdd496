"""Where speech begins and ends, from the probability of silence and the level of each frame of 10 ms: FSMN-VAD's rules.

A window over the last frames turns them into speech or silence that lasts; a segment then begins some time before that
was noticed and ends some time after. All of it is decided frame by frame, so that how frames arrive changes nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from paraformer.errors import ConfigError
from paraformer.settings import Between, Size, check_ranges

FRAME_MS = 10
Milliseconds = Annotated[int, Between(0, 1 << 24)]
Decibels = Annotated[float, Between(-1000.0, 1000.0)]
_UNHEARD = -100.0
"""Level of the noise before any was heard."""


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """The published settings. Times in milliseconds, levels in dB of the sum of squares of a frame of 25 ms."""

    end_silence_ms: Milliseconds = 800
    """Silence that ends a segment, including `to_silence_ms` of it."""
    start_silence_ms: Milliseconds = 3000
    """Silence without speech after which `single` gives up."""
    window_ms: Annotated[int, Between(10, 100_000)] = 200
    to_speech_ms: Milliseconds = 150
    """So much of the window must be speech for silence to end, and no more than `to_silence_ms` for speech to."""
    to_silence_ms: Milliseconds = 150
    extend: bool = True
    """Segments reach further than speech was noticed, by what follows."""
    before_ms: Milliseconds = 200
    after_ms: Milliseconds = 100
    longest_ms: Annotated[int, Between(100, 1 << 24)] = 60_000
    """A segment is cut here."""
    threshold: Annotated[float, Between(-1.0, 1.0)] = 0.6
    """By so much must speech be likelier than silence."""
    noise_ratio: Annotated[float, Between(0.0, 100.0)] = 1.0
    """Power of the probability of silence in that comparison."""
    snr_db: Decibels = -100.0
    level_db: Decibels = -100.0
    """What is softer is silence; speech must be louder than the noise by `snr_db`."""
    noise_frames: Size = 100
    """Over which the level of noise is averaged."""
    single: bool = False
    """One segment, not many."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if max(self.to_speech_ms, self.to_silence_ms) > self.window_ms:
            raise ConfigError("to_speech_ms and to_silence_ms must fit into window_ms")


@dataclass(frozen=True)
class Span:
    """A segment in milliseconds; an open one ends where speech was last heard."""

    start_ms: int
    end_ms: int
    closed: bool


@dataclass(frozen=True)
class EndpointState:
    """What is carried from frame to frame. Frames are counted from the beginning of the stream.

    recent: the last frames of the window, speech or not; speaking: by the window; noise_db: its level; since: frames of
    silence; start, voiced: of the open segment its first frame and the last that is in it; free: the first frame that a
    new segment may begin with; ended: how many times a segment ended, or was given up.
    """

    frame: int = 0
    recent: tuple[bool, ...] = ()
    speaking: bool = False
    noise_db: float = _UNHEARD
    since: int = 0
    phase: Literal["waiting", "inside", "over"] = "waiting"
    start: int = -1
    voiced: int = 0
    free: int = 0
    ended: int = 0
    open: Span | None = None


@dataclass
class Endpointer:
    """The rules on one stream. `spans` fills with segments that have ended, in order."""

    config: EndpointConfig
    state: EndpointState = field(default_factory=EndpointState)
    spans: list[Span] = field(default_factory=list)

    def push(self, silence: float, level_db: float, *, last: bool = False) -> None:
        """Take in one frame: its probability of silence, its level, and whether it is the last of all."""
        s, c = self.state, self.config
        if s.phase == "over":
            self.state = replace(s, frame=s.frame + 1)
            return
        heard, noise_db = self._is_speech(silence, level_db)
        recent = deque(s.recent, maxlen=c.window_ms // FRAME_MS)
        recent.append(heard)
        count, before = sum(recent), s.speaking
        speaking = count > c.to_silence_ms // FRAME_MS if before else count >= c.to_speech_ms // FRAME_MS
        since = s.since + 1 if not before and not speaking else 0
        self.state = replace(s, recent=tuple(recent), speaking=speaking, noise_db=noise_db, since=since)
        self._decide(before, speaking, last)
        self.state = replace(self.state, frame=s.frame + 1)

    def _is_speech(self, silence: float, level_db: float) -> tuple[bool, float]:
        """Whether a frame is speech, and the level of noise after it."""
        c, noise_db = self.config, self.state.noise_db
        if level_db < c.level_db:
            return False, noise_db
        if 1.0 - silence >= silence**c.noise_ratio + c.threshold:
            return level_db - noise_db >= c.snr_db, noise_db
        if noise_db <= _UNHEARD + 0.1:
            return False, level_db
        return False, (level_db + noise_db * (c.noise_frames - 1)) / c.noise_frames

    def _decide(self, before: bool, speaking: bool, last: bool) -> None:
        t, inside = self.state.frame, self.state.phase == "inside"
        if not before and not speaking:
            self._silence(t, last)
        elif not before and not inside:
            self._begin(t)
        elif inside:
            if not before:
                self._voice_up_to(t - 1)
            self._go_on(t, last)

    def _silence(self, t: int, last: bool) -> None:
        s, c = self.state, self.config
        if s.phase == "waiting":
            if (c.single and s.since * FRAME_MS > c.start_silence_ms) or (last and s.ended == 0):
                self.state = replace(s, ended=s.ended + 1, phase="over" if c.single else "waiting")
                if not c.single:
                    self._forget()
            elif t >= self._reach:
                self.state = replace(s, free=max(s.free, t - self._reach))
            return
        most = max(c.end_silence_ms - c.to_silence_ms, 0)
        if s.since * FRAME_MS >= most:
            back = most // FRAME_MS
            self._end(t - (max(0, back - c.after_ms // FRAME_MS - 1) if c.extend else back))
        elif self._too_long(t) or last:
            self._end(t)
        elif c.extend and s.since <= c.after_ms // FRAME_MS:
            self._voice(t)

    @property
    def _reach(self) -> int:
        """Frames by which a segment begins before the window noticed speech."""
        c = self.config
        return (c.window_ms + (c.before_ms if c.extend else 0)) // FRAME_MS

    def _too_long(self, t: int) -> bool:
        return t - self.state.start + 1 > self.config.longest_ms / FRAME_MS

    def _begin(self, t: int) -> None:
        first = max(self.state.free, t - self._reach)
        self.state = replace(self.state, phase="inside", start=first, free=max(self.state.free, first) + 1)
        self.state = replace(self.state, open=Span(first * FRAME_MS, (first + 1) * FRAME_MS, closed=False))
        for frame in range(first + 1, t + 1):
            self._voice(frame)

    def _go_on(self, t: int, last: bool) -> None:
        if self._too_long(t) or last:
            self._end(t)
        else:
            self._voice(t)

    def _voice_up_to(self, last: int) -> None:
        for frame in range(self.state.voiced + 1, last + 1):
            self._voice(frame)

    def _voice(self, frame: int) -> None:
        """The frame is in the open segment."""
        s = self.state
        assert s.open is not None
        reached = replace(s.open, end_ms=(frame + 1) * FRAME_MS)
        self.state = replace(s, voiced=frame, free=max(s.free, frame) + 1, open=reached)

    def _end(self, frame: int) -> None:
        """The open segment ends with this frame, which may come before others that were in it."""
        self._voice_up_to(frame - 1)
        s = self.state
        assert s.open is not None
        self.spans.append(replace(s.open, end_ms=(frame + 1) * FRAME_MS, closed=True))
        over = self.config.single
        self.state = replace(s, free=max(s.free, frame) + 1, ended=s.ended + 1, open=None, phase="over")
        if not over:
            self._forget()

    def _forget(self) -> None:
        """As at the beginning, but for what was heard of the noise and where the last segment ended."""
        blank = EndpointState()
        kept = {name: getattr(self.state, name) for name in ("frame", "noise_db", "free", "ended")}
        self.state = replace(blank, **kept)
