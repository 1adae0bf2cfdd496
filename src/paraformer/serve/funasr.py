"""FunASR's WebSocket protocol: `offline`, `online` and `2pass`, as its servers speak it and its clients understand it.

What each client needs differs from what each server sends; the messages here satisfy all of them: always `mode`,
`text`, `wav_name` and `is_final`; exactly one `is_final: true` an utterance, its last message; `timestamp` is a string
with as many pairs as there are characters and words, or is left out; the acknowledgement only where it was asked for.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from paraformer.recordings import join_segments
from paraformer.serve.funasr_settings import Dialect, Refused, Settings, changed, parsed, resumed
from paraformer.serve.protocol import (
    BAD_DATA,
    POLICY,
    RESTART,
    Action,
    Append,
    Cancel,
    Close,
    Done,
    End,
    Failed,
    Feed,
    HandOver,
    Keep,
    Kept,
    Live,
    News,
    Open,
    OpenFile,
    Pcm16,
    Resume,
    Resumed,
    Saved,
    Send,
    Sentence,
    StreamOptions,
    said,
    unheard,
)
from paraformer.serve.sent import Sent
from paraformer.subtitles import cues
from paraformer.text import Vocabulary, words_of
from paraformer.types import Segment, Token, Transcript


@dataclass
class _Utterance:
    """What has been opened and not yet had its last message."""

    number: int
    settings: Settings
    file: bool
    pcm: Pcm16 = field(default_factory=Pcm16)
    held: Segment | None = None
    ending: bool = False
    acknowledge: bool = False
    sent: Sent | None = None
    """Where the client can go on elsewhere."""
    heard: int = 0
    heard_s: float = -math.inf
    """Where the last sentence ended that the client was told."""


class FunasrConversation:
    """One connection. Utterances follow one another; each begins with a message or samples after the last one's end."""

    def __init__(self, dialect: Dialect | None = None) -> None:
        self._dialect = dialect or Dialect()
        self._settings = Settings(self._dialect.default_mode)
        self._current: _Utterance | None = None
        self._configured = False
        self._unanswered: dict[int, _Utterance] = {}
        self._count = 0

    @property
    def idle(self) -> bool:
        """Whether no utterance waits for its last message."""
        return not self._unanswered and self._current is None

    def opened(self) -> Iterator[Action]:
        """Nothing: the client speaks first."""
        yield from ()

    def text(self, message: str) -> Iterator[Action]:
        """Settings, and perhaps the end of an utterance."""
        try:
            values = parsed(message)
        except ValueError as error:
            yield Close(BAD_DATA, str(error))
            return
        try:
            self._settings = changed(self._settings, values, self._dialect)
            earlier = resumed(values)
        except Refused as error:
            yield _error(self._settings, {"code": "invalid_request", "message": str(error)})
            yield Close(POLICY, str(error))
            return
        if earlier is not None and self._current is None:
            yield self._resume(*earlier)
        elif values.get("is_speaking") is False or values.get("is_finished") is True:
            yield from self._end(acknowledge=values.get("is_end") is True)
        else:
            self._configured = True

    def binary(self, message: bytes) -> Iterator[Action]:
        """Audio, of any length and cut anywhere."""
        if self._current is None:
            yield self._begin(message)
        utterance = self._current
        assert utterance is not None
        if utterance.file:
            yield Append(utterance.number, message)
        else:
            yield Feed(utterance.number, utterance.pcm.samples(message))

    def news(self, utterance: int, news: News) -> Iterator[Action]:
        """Text, sentences, ends."""
        one = self._unanswered.get(utterance)
        if one is None:
            return
        if isinstance(news, Resumed):
            yield from self._resumed(one, news.saved)
            return
        if isinstance(news, Kept):
            yield from self._kept(one, news.saved)
            return
        for action in self._told(one, news):
            yield one.sent.numbered(action) if one.sent and isinstance(action, Send) else action

    def _told(self, one: _Utterance, news: News) -> Iterator[Action]:
        match news:
            case Live(text) if one.settings.mode == "online" and one.ending:
                one.held = Segment((one.held.text if one.held else "") + text, 0.0, 0.0, ())
            case Live():
                fresh = unheard(news, one.heard_s)
                if fresh is not None:
                    timed = _timed(fresh.tokens, one.settings)
                    yield _message(self._dialect.online_name, fresh.text, one.settings, **timed)
            case Sentence(segment) if one.settings.mode == "2pass" and not one.file:
                one.heard_s = segment.end_s
                if one.held is not None:
                    yield _sentence(one.held, one.settings, final=False)
                one.held = segment if one.ending else None
                if not one.ending:
                    yield _sentence(segment, one.settings, final=False)
            case Done(transcript):
                yield from self._last(one, transcript.segments)
            case Failed(error):
                self._forget(one)
                problem = {"code": "recognition_failed", "message": str(error)}
                yield _error(one.settings, problem)
                yield from self._acknowledged(one, error=problem)
            case _:
                pass

    def closing(self) -> Iterator[Action]:
        """The utterance that is open ends here, with all that was said, or goes on elsewhere."""
        if self._current is not None and self._current.sent is not None:
            one, self._current = self._current, None
            yield HandOver(one.number)
        elif self._current is not None:
            yield from self._end(acknowledge=False)
        elif not self._unanswered:
            yield Close(RESTART, "the server restarts")

    # -- utterances ---------------------------------------------------------------------------------------------------

    def _begin(self, head: bytes) -> Action:
        """Open what the settings say. The page of FunASR announces samples and sends a wav file: its content tells."""
        settings = self._settings
        wav = head[:4] == b"RIFF" and head[8:12] == b"WAVE"
        file = settings.mode == "offline" or wav or not settings.pcm
        self._count += 1
        self._current = self._unanswered[self._count] = _Utterance(self._count, settings, file)
        if file:
            return OpenFile(self._count, settings.rate if settings.pcm and not wav else None, settings.hotwords)
        if settings.resumable:
            self._current.sent = Sent()
        return Open(self._count, _options(settings))

    def _forget(self, one: _Utterance) -> None:
        self._unanswered.pop(one.number, None)
        self._current = None if self._current is one else self._current

    # -- going on elsewhere -------------------------------------------------------------------------------------------

    def _resume(self, token: str, heard: int) -> Action:
        """Open what is kept; samples may come once its answer has been sent."""
        self._count += 1
        one = _Utterance(self._count, replace(self._settings, resumable=True), file=False, sent=Sent(), heard=heard)
        self._current = self._unanswered[one.number] = one
        assert one.sent is not None
        return Resume(one.number, _options(one.settings), token, one.sent.token)

    def _resumed(self, one: _Utterance, saved: Saved | None) -> Iterator[Action]:
        """Where the client is to go on, and what it has missed."""
        assert one.sent is not None
        missed = one.sent.restore(saved.notes, one.heard) if saved is not None else None
        if saved is None or missed is None:
            self._forget(one)
            yield Cancel(one.number)
            yield _message(_mode_name(one.settings), "", one.settings, resumed=False, samples=0)
            return
        where: dict[str, Any] = {"samples": saved.samples, "after": one.sent.count, "resume": one.sent.token}
        yield _message(_mode_name(one.settings), "", one.settings, resumed=True, **where)
        yield from missed

    def _kept(self, one: _Utterance, saved: Saved | None) -> Iterator[Action]:
        """Tell up to where samples need not be sent again; at the end of the server, that it is time to go."""
        if one.sent is None:
            return
        over = one is not self._current and not one.ending
        if over:
            self._forget(one)
        then: tuple[Send | Close, ...] = (Close(RESTART, "go on elsewhere"),) if over else ()
        if saved is None:
            yield from then
            return
        where: dict[str, Any] = {"kept": saved.samples, "after": one.sent.count, "resume": one.sent.token}
        told = _message(_mode_name(one.settings), "", one.settings, **where)
        yield Keep(one.sent.token, replace(saved, notes=one.sent.notes()), (told, *then))

    def _end(self, *, acknowledge: bool) -> Iterator[Action]:
        """An end without an utterance, as some clients send on leaving, is none."""
        utterance, self._current = self._current, None
        if utterance is not None:
            utterance.ending, utterance.acknowledge = True, acknowledge
            yield End(utterance.number)
        elif self._configured:
            yield _final(self._settings, "")
            if acknowledge:
                yield _acknowledgement(self._settings)
        self._configured = False

    def _last(self, one: _Utterance, segments: Sequence[Segment]) -> Iterator[Action]:
        """The one message that is final, and the acknowledgement."""
        self._forget(one)
        if one.file:
            yield _whole(segments, one.settings)
        elif one.settings.mode == "2pass" and one.held is not None:
            yield _sentence(one.held, one.settings, final=True)
        else:
            yield _final(one.settings, one.held.text if one.held else "", self._dialect.online_name)
        yield from self._acknowledged(one)

    def _acknowledged(self, one: _Utterance, **error: Any) -> Iterator[Action]:
        if one.acknowledge:
            yield _acknowledgement(one.settings, **error)


# -- what the server says --------------------------------------------------------------------------------------------


def _message(mode: str, text: str, settings: Settings, *, final: bool = False, **more: Any) -> Send:
    values = {"mode": mode, "text": text, "wav_name": settings.name, "is_final": final, **more}
    return said(values)


def _final(settings: Settings, text: str, online_name: str = "2pass-online") -> Send:
    return _message(_mode_name(settings, online_name), text, settings, final=True)


def _mode_name(settings: Settings, online_name: str = "2pass-online") -> str:
    return {"offline": "offline", "online": online_name, "2pass": "2pass-offline"}[settings.mode]


def _options(settings: Settings) -> StreamOptions:
    return StreamOptions(
        settings.rate,
        settings.chunk,
        settings.mode == "2pass",
        hotwords=settings.hotwords,
        kept=settings.resumable,
    )


def _acknowledgement(settings: Settings, **error: Any) -> Send:
    """FunASR's Python client takes one that is not final for a failure, and looks at no other message."""
    return _message(settings.mode, "", settings, final=not error, is_end=True, **error)


def _error(settings: Settings, error: Mapping[str, str]) -> Send:
    return _message(settings.mode, "", settings, final=True, error=error)


def _sentence(segment: Segment, settings: Settings, *, final: bool) -> Send:
    times = {"start_time": _ms(segment.start_s), "end_time": _ms(segment.end_s)}
    more = {**_stamps([segment]), **times, **_sure([segment], settings)}
    return _message("2pass-offline", segment.text, settings, final=final, **more)


def _whole(segments: Sequence[Segment], settings: Settings) -> Send:
    mode = "offline" if settings.mode == "offline" else "2pass-offline"
    text = join_segments(segment.text for segment in segments)
    more = {**_stamps(segments), **_sure(segments, settings)} if segments else {}
    return _message(mode, text, settings, final=True, **more)


def _sure(segments: Sequence[Segment], settings: Settings) -> dict[str, Any]:
    """`segments` with the confidence of each word or character and their subtitles, where they were asked for."""
    if not settings.confidences:
        return {}
    described = [
        {
            "text": segment.text,
            "start": _ms(segment.start_s),
            "end": _ms(segment.end_s),
            "tokens": [_described(word) for word in _words(segment.tokens)],
            "cues": [
                {"text": cue.text, "start": _ms(cue.start_s), "end": _ms(cue.end_s)}
                for cue in cues(Transcript(segment.text, segment.end_s, (segment,)))
            ],
        }
        for segment in segments
    ]
    return {"segments": described}


def _timed(tokens: Sequence[Token], settings: Settings) -> dict[str, Any]:
    """When each word or character of live text was said, for those who ask for confidences."""
    if not settings.confidences:
        return {}
    words = [
        {"text": Vocabulary.join(one.text for one in word), "start": _ms(word[0].start_s), "end": _ms(word[-1].end_s)}
        for word in _words(tokens)
    ]
    return {"tokens": words}


def _described(word: Sequence[Token]) -> dict[str, Any]:
    """A word or character with the mark after it, and how sure its least certain token is."""
    text = Vocabulary.join(one.text for one in word) + word[-1].mark
    return {"text": text, "confidence": round(min(one.confidence for one in word), 3)}


def _stamps(segments: Sequence[Segment]) -> dict[str, Any]:
    """`timestamp` and `stamp_sents`, where each character and word of the texts has its time.

    The first is left out where FunASR's page would lose count in it, and with it the text.
    """
    spans = [_spans(segment) for segment in segments]
    if any(len(one) != len(units(segment.text)) for one, segment in zip(spans, segments, strict=True)):
        return {}
    sentences = [
        {
            "text_seg": " ".join(units(segment.text)),
            "punc": segment.text[-1:] if _MARKS.match(segment.text[-1:]) else "",
            "start": _ms(segment.start_s),
            "end": _ms(segment.end_s),
            "ts_list": one,
        }
        for segment, one in zip(segments, spans, strict=True)
    ]
    stamps = [span for one in spans for span in one]
    text = join_segments(segment.text for segment in segments)
    timestamp = {"timestamp": json.dumps(stamps, separators=(",", ":"))} if _counted(text) <= len(stamps) else {}
    return {**timestamp, "stamp_sents": sentences}


def _counted(text: str) -> int:
    """How many times FunASR's page wants of a text, of which it shows nothing where there are fewer.

    It counts the characters of each stretch before the last, those of words that stand beside Chinese too.
    """
    stretches = [one for one in _STRETCHES.split(text) if one]
    before = (1 if _LETTERS.fullmatch(one) else len(one.encode("utf-16-le")) // 2 for one in stretches[:-1])
    return sum(before) + bool(stretches)


_STRETCHES, _LETTERS = re.compile(r"[。？，、?. ]"), re.compile(r"[a-zA-Z]+")
_UNITS = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z]+)?|[^\W_]")
_MARKS = re.compile(r"[，。？！、；：,.?!;:]")


def units(text: str) -> list[str]:
    """What has a time in FunASR's results: each character, and each word in Latin letters; no punctuation."""
    return _UNITS.findall(text)


def _spans(segment: Segment) -> list[list[int]]:
    """Milliseconds of each word or character, from its tokens."""
    return [
        [_ms(min(one.start_s for one in word)), _ms(max(one.end_s for one in word))] for word in _words(segment.tokens)
    ]


def _words(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    found = [tokens[word.first : word.last + 1] for word in words_of(token.text for token in tokens)]
    return [word for word in found if word]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
