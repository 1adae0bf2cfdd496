"""Results as plain values, as lines of JSON and tables hold them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from paraformer.types import Segment, Sentence, Token, Transcript


def record(transcript: Transcript, *, tokens: bool) -> dict[str, Any]:
    """What is told of a transcript; of its tokens where that is asked for, of sentences where there are any."""
    segments = [
        _stretch(segment) | ({"tokens": [described(token) for token in segment.tokens]} if tokens else {})
        for segment in transcript.segments
    ]
    sentences = [
        _stretch(one) | ({} if one.speaker is None else {"speaker": one.speaker}) for one in transcript.sentences
    ]
    values = {
        "text": transcript.text,
        "duration_s": transcript.duration_s,
        "confidence": transcript.confidence,
        "segments": segments,
        **({"sentences": sentences} if sentences else {}),
    }
    result: dict[str, Any] = rounded(values)
    return result


def _stretch(one: Segment | Sentence) -> dict[str, Any]:
    return {"text": one.text, "start_s": one.start_s, "end_s": one.end_s}


def described(token: Token) -> dict[str, Any]:
    """Plain values; alternatives, mark and what was spoken only where there are any."""
    values = asdict(token)
    for name in ("alternatives", "mark", "spoken"):
        if not values[name]:
            del values[name]
    if token.speaker is None:
        del values["speaker"]
    return values | ({"spoken": [described(one) for one in token.spoken]} if token.spoken else {})


def rounded(value: object) -> Any:
    """Numbers to four places: a tenth of a millisecond is enough, and lines stay readable."""
    match value:
        case float():
            return round(value, 4)
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item) for item in value]
        case _:
            return value
