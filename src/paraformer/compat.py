"""The calls of ModelScope's model card and of FunASR, so that a program runs with only its import lines changed.

    from paraformer.compat import AutoModel, Tasks, pipeline

The live session of a stream is kept in the caller's own `cache` dict, under a private key, and leaves it with
`is_final=True`: the same dict then starts a new stream. Results are this package's: no audio is dropped at the end and
no dither is added (docs/quirks.md). Foreign spellings stay in this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Never, TypedDict, Unpack, get_args

import numpy as np

from paraformer import audio, hub
from paraformer.config import ChunkConfig
from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.loader import load
from paraformer.recognizer import Recognizer
from paraformer.session import Session
from paraformer.text import units
from paraformer.types import Transcript

Mode = Literal["paraformer", "paraformer_streaming", "paraformer_fake_streaming"]
Samples = np.ndarray | bytes
"""Mono at 16 kHz: floats in [-1, 1], 16-bit integers, or bytes of little-endian 16-bit PCM."""
Input = str | Path | Samples

SESSION_KEY = "_paraformer_session"
DEFAULT_CHUNK = (0, 10, 5)
WINDOW_SAMPLES = 960


class Tasks:
    """The one task of ModelScope's list that this package does."""

    auto_speech_recognition = "auto-speech-recognition"


class StreamOptions(TypedDict, total=False):
    """What comes with each packet of a live stream."""

    cache: dict[str, Any]
    """The caller's own, the same object in every call of a stream; empty: a new stream."""
    is_final: bool
    """This packet is the last: everything left is recognised."""
    chunk_size: Sequence[int]
    """Windows of 60 ms: left context, chunk, right context. Default [0, 10, 5]."""
    encoder_chunk_look_back: int
    decoder_chunk_look_back: int


class AutoModel:
    """FunASR's entry point: one loaded model."""

    def __init__(
        self,
        model: str | Path,
        *,
        model_revision: str | None = None,
        device: str = "cpu",
        ncpu: int = 1,
        vad_model: str | None = None,
        punc_model: str | None = None,
        spk_model: str | None = None,
        disable_update: bool = True,
        disable_pbar: bool = True,
        disable_log: bool = True,
    ) -> None:
        """Load a directory, or a published name, which is downloaded if it is not in the cache (extra [hub]).

        vad_model: any name: long audio is cut at pauses by this package's own detector; None: recognised in one piece.
        disable_*: accepted; there is no update, progress bar or log to disable.
        Raises UnsupportedModel for punctuation and speaker models, and what `paraformer.load` raises.
        """
        if punc_model or spk_model:
            raise UnsupportedModel(
                "punctuation and speaker models are not supported: leave out punc_model and spk_model"
            )
        pinned = model_revision is not None and not Path(model).is_dir()
        name = hub.resolve(model, revision=model_revision, download=True) if pinned else model
        backend: Literal["auto", "torch"] = "auto" if device == "cpu" else "torch"
        vad = vad_model is not None
        self.recognizer = load(name, backend=backend, device=device, threads=ncpu, vad=vad, download=True)

    def generate(
        self, input: Input | Sequence[Input], *, batch_size_s: float = 60.0, **options: Unpack[StreamOptions]
    ) -> list[dict[str, Any]]:
        """One packet of a live stream where `cache` is given, whole audio otherwise.

        Live: [{"key", "text"}], the text that this packet decided, perhaps "". Whole: for each input in order
        {"key", "text", "timestamp"}, with one [start, end] in milliseconds for each character or English word.
        Raises ConfigError for stream options without a cache, AudioError for audio that cannot be used.
        """
        if options:
            return [{"key": "stream", "text": _advance(self.recognizer, input, options)}]
        inputs = [input] if isinstance(input, Input) else list(input)
        transcripts = self.recognizer.transcribe([_readable(item) for item in inputs], batch_s=batch_size_s)
        return [
            {"key": _key(item, number), "text": transcript.text, "timestamp": _timestamps(transcript)}
            for number, (item, transcript) in enumerate(zip(inputs, transcripts, strict=True))
        ]


def pipeline(
    task: str,
    model: str | Path,
    *,
    model_revision: str | None = None,
    mode: Mode = "paraformer",
    device: str = "cpu",
    ncpu: int = 1,
    update_model: bool | None = None,
) -> Pipeline:
    """ModelScope's entry point. `update_model` is accepted; a cached model is never updated by surprise.

    Raises ConfigError for another task or mode, and what AutoModel raises.
    """
    if task != Tasks.auto_speech_recognition:
        raise ConfigError(f"task {task!r} is not supported, only {Tasks.auto_speech_recognition!r}")
    if mode not in get_args(Mode):
        raise ConfigError(f"mode {mode!r} is not one of {', '.join(get_args(Mode))}")
    return Pipeline(AutoModel(model, model_revision=model_revision, device=device, ncpu=ncpu), mode)


class Pipeline:
    """What `pipeline` returns; call it with audio."""

    def __init__(self, model: AutoModel, mode: Mode) -> None:
        self.model = model
        self.mode = mode

    def __call__(self, audio_in: Input, param_dict: StreamOptions | None = None) -> dict[str, str] | list[Never]:
        """{"text": ...}, or [] where there is nothing (new) to tell.

        paraformer_streaming: `audio_in` is the next packet and param_dict (StreamOptions) holds the stream's cache.
        The other modes take whole audio: paraformer recognises it whole, paraformer_fake_streaming as a live stream.
        """
        recognizer, options = self.model.recognizer, param_dict or {}
        match self.mode:
            case "paraformer_streaming":
                text = _advance(recognizer, audio_in, options, shortest=WINDOW_SAMPLES)
            case "paraformer_fake_streaming":
                samples = audio.read(audio_in) if isinstance(audio_in, str | Path) else audio_in
                text = _advance(recognizer, samples, {**options, "cache": {}, "is_final": True})
            case "paraformer":
                text = recognizer.transcribe(_readable(audio_in)).text
        return {"text": text} if text else []


def _advance(recognizer: Recognizer, packet: object, options: StreamOptions, *, shortest: int = 0) -> str:
    """Feed one packet to the stream that lives in the cache; the text it decided.

    shortest: a stream that begins and ends with fewer samples is ignored, as by the reference's pipeline. The card's
    loop makes such a call after the end of a stream that is one sample longer than a multiple of the stride.
    """
    unknown = sorted(set(options) - set(StreamOptions.__annotations__))
    if unknown:
        known = ", ".join(StreamOptions.__annotations__)
        raise ConfigError(f"unknown stream option: {', '.join(unknown)}; known are {known}")
    cache = options.get("cache")
    if cache is None:
        raise ConfigError("a live stream needs cache: a dict, empty at first, and the same object in every call")
    samples, final = _samples(packet), options.get("is_final", False)
    if final and SESSION_KEY not in cache and len(samples) < shortest:
        return ""
    session = _session(recognizer, cache, _chunk(options))
    text = session.accept(samples)
    session.take()  # nobody asks for it again, and the stream may go on for days
    if final:
        del cache[SESSION_KEY]
        text += session.finish()
    return text


def _session(recognizer: Recognizer, cache: dict[str, Any], chunk: ChunkConfig) -> Session:
    """The stream's session, opened on its first packet."""
    if SESSION_KEY not in cache:
        cache[SESSION_KEY] = recognizer.stream(chunk)
    session: Session = cache[SESSION_KEY]
    if session.chunk != chunk:
        raise ConfigError("chunk_size and look-backs cannot change within a stream: end it with is_final=True first")
    return session


def _chunk(options: StreamOptions) -> ChunkConfig:
    sizes = list(options.get("chunk_size", DEFAULT_CHUNK))
    if len(sizes) != 3:
        raise ConfigError(
            f"chunk_size {sizes} must be three numbers of 60 ms windows: left context, chunk, right context"
        )
    return ChunkConfig(
        left=sizes[0],
        chunk=sizes[1],
        right=sizes[2],
        encoder_look_back=options.get("encoder_chunk_look_back", 0),
        decoder_look_back=options.get("decoder_chunk_look_back", 0),
    )


def _samples(packet: object) -> np.ndarray:
    if isinstance(packet, bytes):
        return audio.from_pcm16(packet)
    return audio.from_array(np.asarray(packet))


def _readable(item: Input) -> str | Path | np.ndarray:
    return item if isinstance(item, str | Path) else _samples(item)


def _key(item: Input, number: int) -> str:
    return Path(item).stem if isinstance(item, str | Path) else f"audio{number}"


def _timestamps(transcript: Transcript) -> list[list[int]]:
    """[start, end] in milliseconds of each unit of the text: a character, an English word, an abbreviation."""
    return [
        [round(segment.tokens[unit.first].start_s * 1000), round(segment.tokens[unit.last].end_s * 1000)]
        for segment in transcript.segments
        for unit in units(token.text for token in segment.tokens)
    ]
