"""OpenAI's audio API, the parts that know no HTTP: what a form asks for, and what each format answers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from paraformer.serve.guard import Refusal
from paraformer.serve.protocol import MOST_HOTWORDS
from paraformer.subtitles import cues, srt, vtt
from paraformer.text import Vocabulary, words_of
from paraformer.types import Segment, Token, Transcript

Format = Literal["json", "text", "srt", "verbose_json", "vtt"]
LANGUAGES = ("zh", "en", "yue", "chinese", "english", "cantonese", "mandarin")
_CONTENT_TYPES = {
    "text": "text/plain; charset=utf-8",
    "srt": "text/plain; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}


@dataclass(frozen=True)
class Asked:
    """What a request for a transcription wants."""

    model: str = ""
    form: Format = "json"
    words: bool = False
    segments: bool = True
    logprobs: bool = False
    stream: bool = False
    hotwords: tuple[str, ...] = ()

    @property
    def content_type(self) -> str:
        """Of the answer."""
        return _CONTENT_TYPES.get(self.form, "application/json")


def asked(fields: Iterable[tuple[str, str]]) -> Asked:
    """What the fields of a form ask for, in any order. Raises Refusal for what cannot be done, naming the field."""
    values = _by_name(fields)
    form = _last(values, "response_format", "json")
    if form not in get_args(Format):
        known = ", ".join(get_args(Format))
        raise Refusal(400, f"response_format must be one of {known}; there are no others here", None, "response_format")
    _check_languages(values)
    for name in ("known_speaker_names", "known_speaker_references"):
        if name in values:
            raise Refusal(400, "speakers are not told apart here", "unsupported", name)
    granularities = values.get("timestamp_granularities", [])
    if not set(granularities) <= {"word", "segment"}:
        raise Refusal(400, "timestamp_granularities are word and segment", None, "timestamp_granularities")
    return Asked(
        model=_last(values, "model", ""),
        form=form,  # type: ignore[arg-type]
        words="word" in granularities,
        segments="segment" in granularities or not granularities,
        logprobs="logprobs" in values.get("include", []),
        stream=_last(values, "stream", "").lower() in ("true", "1"),
        hotwords=_hotwords(values),
    )


def hotwords(fields: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """What the fields of a form name to listen for. Raises Refusal for too many."""
    return _hotwords(_by_name(fields))


def _by_name(fields: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(name.removesuffix("[]"), []).append(value)
    return values


def _last(values: dict[str, list[str]], name: str, default: str) -> str:
    return values.get(name, [default])[-1]


def _check_languages(values: dict[str, list[str]]) -> None:
    for name in ("language", "languages"):
        for value in values.get(name, []):
            if value and value.lower().partition("-")[0] not in LANGUAGES:
                raise Refusal(400, f"the language {value[:20]!r} is not recognised here; zh is", "unsupported", name)


def _hotwords(values: dict[str, list[str]]) -> tuple[str, ...]:
    words = [*values.get("keywords", []), *(one for text in values.get("hotwords", []) for one in text.split(","))]
    found = tuple(word.strip() for word in words if word.strip())
    if len(found) > MOST_HOTWORDS:
        raise Refusal(400, f"there may be {MOST_HOTWORDS} keywords", None, "keywords")
    return found


# -- answers ---------------------------------------------------------------------------------------------------------


def answer(transcript: Transcript, want: Asked) -> str:
    """The body of a response."""
    match want.form:
        case "text":
            return transcript.text + "\n"
        case "srt":
            return srt(cues(transcript)) + "\n"
        case "vtt":
            return vtt(cues(transcript)) + "\n"
        case "verbose_json":
            return _json(_verbose(transcript, want))
        case _:
            return _json(_plain(transcript, want))


def _plain(transcript: Transcript, want: Asked) -> dict[str, Any]:
    values: dict[str, Any] = {"text": transcript.text, "usage": usage(transcript.duration_s)}
    return values | ({"logprobs": logprobs(transcript.tokens)} if want.logprobs else {})


def _verbose(transcript: Transcript, want: Asked) -> dict[str, Any]:
    values: dict[str, Any] = {
        "task": "transcribe",
        "language": "chinese",
        "duration": round(transcript.duration_s, 3),
        "text": transcript.text,
        "usage": usage(transcript.duration_s),
    }
    if want.segments:
        values["segments"] = [_segment(number, one) for number, one in enumerate(transcript.segments)]
    if want.words:
        values["words"] = [word for one in transcript.segments for word in _words(one)]
    return values


def usage(seconds: float) -> dict[str, Any]:
    """What is counted: whole seconds, as OpenAI does."""
    return {"type": "duration", "seconds": math.ceil(seconds)}


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    """OpenAI's ten fields; those that mean nothing here have the values of no complaint."""
    logs = [_log(token.confidence) for token in segment.tokens]
    return {
        "id": number,
        "seek": round(segment.start_s * 100),
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(sum(logs) / len(logs), 4) if logs else 0.0,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    }


def _words(segment: Segment) -> list[dict[str, Any]]:
    """Each character, and each word in Latin letters, with its times."""
    found = []
    for word in words_of(token.text for token in segment.tokens):
        tokens = segment.tokens[word.first : word.last + 1]
        if text := Vocabulary.join([token.text for token in tokens]).strip():
            found.append({"word": text, "start": round(tokens[0].start_s, 3), "end": round(tokens[-1].end_s, 3)})
    return found


def logprobs(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """How sure each token is, as logarithms."""
    return [
        {"token": one.text, "logprob": round(_log(one.confidence), 4), "bytes": list(one.text.encode())}
        for one in tokens
    ]


def _log(confidence: float) -> float:
    return math.log(max(confidence, 1e-9))


# -- events of a stream ----------------------------------------------------------------------------------------------


def delta(text: str, tokens: Sequence[Token], want: Asked) -> str:
    """Further text, as an event."""
    more = {"logprobs": logprobs(tokens)} if want.logprobs else {}
    return _event({"type": "transcript.text.delta", "delta": text, **more})


def done(transcript: Transcript, want: Asked) -> str:
    """All of the text, and the end."""
    more = {"logprobs": logprobs(transcript.tokens)} if want.logprobs else {}
    return _event({"type": "transcript.text.done", "text": transcript.text, **more}) + "data: [DONE]\n\n"


def failed(refusal: Refusal) -> str:
    """An error after the answer has begun."""
    return f"data: {refusal.body().decode()}\n\n"


def _event(values: dict[str, Any]) -> str:
    return f"data: {_json(values)}\n\n"


def _json(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False, allow_nan=False)


def models(names: Sequence[str], created: int) -> list[dict[str, Any]]:
    """As `GET /v1/models` lists them."""
    return [{"id": name, "object": "model", "created": created, "owned_by": "paraformer"} for name in names]
