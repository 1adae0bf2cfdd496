"""Speech to text: whole files and arrays of any length, and live streams."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, overload

import numpy as np

from paraformer import audio
from paraformer.audio import Channel, Samples, blocks_of, channels_of, check_several, chosen, inputs_of
from paraformer.backends.base import Backend, check_streaming
from paraformer.bundle import Bundle
from paraformer.confidence import Calibration
from paraformer.config import ChunkConfig
from paraformer.errors import ConfigError, ParaformerError, attempt
from paraformer.frontend import Frontend
from paraformer.hotwords import Hotwords, listed
from paraformer.language import LanguageModel
from paraformer.recordings import Draft, Piece, Recording, Speakers, Voice
from paraformer.second_pass import SecondPass
from paraformer.session import Packet, Session, advance
from paraformer.settings import as_number
from paraformer.silence import Hearing
from paraformer.speech_model import SpeechModel, audible
from paraformer.text import Vocabulary
from paraformer.types import Segment, Token, Transcript
from paraformer.writing import Writer

if TYPE_CHECKING:
    from typing_extensions import Buffer

Audio = str | Path | BinaryIO | bytes | np.ndarray | Sequence[float] | tuple[np.ndarray, int]
Segmenter = Callable[[Iterable[Samples]], Iterator[tuple[float, Samples]]]
"""Cuts blocks of one recording into stretches of speech: (start in seconds, samples), in order."""

WHOLE_S = 30.0
"""Audio up to this long is recognised in one piece; longer audio is cut at pauses."""
LM_WEIGHT = 0.5
"""Chosen on real speech with the embedded model; a better acoustic model wants less."""


class Recognizer:
    """One loaded model. Weights are read-only: any number of sessions and threads may share it."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        segmenter: Segmenter | None = None,
        chunk: ChunkConfig | None = None,
        *,
        lm: LanguageModel | None = None,
        lm_weight: float = LM_WEIGHT,
        alternatives: int = 0,
        hotwords: Hotwords | None = None,
        writer: Writer | None = None,
        speakers: Speakers | None = None,
    ) -> None:
        """segmenter: cuts audio over 30 s, which is one piece without it; chunk: default of live sessions.

        lm: has its say about every token, with this weight beside the decoder's log-probabilities.
        alternatives: how many other items are told of each token. hotwords: see `with_hotwords`.
        writer: punctuates the text and writes its numbers. speakers: tells who says what in whole recordings, which it
        wants cut at pauses, however short they are.
        """
        self.bundle = bundle
        self.config = bundle.config
        self.chunk = chunk or bundle.config.live
        self.segmenter = segmenter
        self.speakers = speakers
        frontend, vocabulary = Frontend(bundle.config.frontend, bundle.cmvn), Vocabulary(bundle.tokens, bundle.words)
        weights, calibration = bundle.weights, bundle.confidence
        model = SpeechModel(
            backend, frontend, vocabulary, lm, lm_weight, weights, calibration, alternatives, writer=writer or Writer()
        )
        self._model = model if hotwords is None else model.listening_for(listed(hotwords))

    @property
    def engine(self) -> str:
        """What computes, and how precisely: "native int8", "onnx float32" and so on."""
        return self._model.backend.name

    @property
    def device(self) -> str:
        """Where it computes: "cpu", or one of torch's, as "cuda:0"."""
        return str(self._model.backend.device)

    def clarity(self, samples: Samples) -> float:
        """How clearly units were heard of samples (16 kHz), in one piece; 1 for a model that hears none."""
        feats = self._model.frontend.whole(samples)
        return self._model.whole([feats])[0][0].clarity if len(feats) else 1.0

    def calibrated(self, calibration: Calibration) -> Recognizer:
        """The same on the same weights, with other curves from the decoder's probabilities to confidences."""
        twin = self._on(replace(self._model, calibration=calibration))
        twin.bundle = replace(self.bundle, confidence=calibration)
        return twin

    def with_hotwords(self, hotwords: Hotwords) -> Recognizer:
        """The same on the same weights, listening for these words instead: a list, or a file with one a line.

        A SeACo-Paraformer that is given an empty list compares with "none of these", as FunASR's with `hotword=""`:
        not the same as listening for nothing, `hotwords=None`.

        Raises UnsupportedModel if the model has no way to, ConfigError for what is no such list.
        """
        return self._on(self._listening_for(hotwords))

    def _on(self, model: SpeechModel) -> Recognizer:
        """The same with another model in its place."""
        twin = copy(self)
        twin._model = model  # noqa: SLF001  # of this very class
        return twin

    def _listening_for(self, hotwords: Hotwords | None) -> SpeechModel:
        """The model with these hotwords; None: with its own."""
        words = None if hotwords is None else listed(hotwords)
        return self._model if words is None or words == self._model.hotwords else self._model.listening_for(words)

    def __repr__(self) -> str:
        """The model, what computes it, and what else has a say: <Recognizer zh-small on native int8, ...>."""
        name = self.bundle.card.get("name") or (self.bundle.directory.name if self.bundle.directory else "unnamed")
        chunk = self.chunk or (ChunkConfig() if self.config.streaming else None)
        live = f"live {chunk.left},{chunk.chunk},{chunk.right}" if chunk else "whole audio only"
        lm = f"language model of weight {self._model.lm_weight}" if self._model.lm else "no language model"
        return f"<Recognizer {name} on {self.engine}, {live}, {lm}>"

    @overload
    def transcribe(
        self, audio: Audio, *, channel: Channel = "mix", batch_s: float = 60.0, hotwords: Hotwords | None = None
    ) -> Transcript: ...
    @overload
    def transcribe(
        self, audio: list[Audio], *, channel: Channel = "mix", batch_s: float = 60.0, hotwords: Hotwords | None = None
    ) -> list[Transcript]: ...
    @overload
    def transcribe(
        self, audio: Audio, *, channel: Literal["each"], batch_s: float = 60.0, hotwords: Hotwords | None = None
    ) -> list[Transcript]: ...
    @overload
    def transcribe(
        self, audio: list[Audio], *, channel: Literal["each"], batch_s: float = 60.0, hotwords: Hotwords | None = None
    ) -> list[list[Transcript]]: ...
    def transcribe(
        self,
        audio: Any,
        *,
        channel: Channel | Literal["each"] = "mix",
        batch_s: float = 60.0,
        hotwords: Hotwords | None = None,
    ) -> Any:
        """Recognise one recording, or several in a list: files, open binary files, their bytes, samples at 16 kHz.

        Samples are an array, tensor or sequence of floats in [-1, 1] or of int16, shape (n,), (n, channels) or
        (channels, n); with their rate as (samples, rate) they may be of another. Audio of any length, in memory that
        does not grow with it.

        channel: what is heard of several: "mix" the mean of all, a number from 1 that one, "each" all of them apart,
        which gives a list of transcripts for a recording, as for a call with a party on each channel:

            for party, heard in enumerate(recognizer.transcribe("call.wav", channel="each"), 1):
                print(party, heard.text)

        batch_s: seconds of audio recognised in one batch. hotwords: to listen for in this call, in place of those that
        the recogniser was loaded with; see `with_hotwords`. Raises AudioError for audio that cannot be used, where
        `transcribe_each` goes on with the others, and ConfigError for a channel that cannot be.
        """
        inputs, several = inputs_of(audio)
        results = list(self.transcribe_each(inputs, channel=channel, batch_s=batch_s, hotwords=hotwords))
        for result in results:
            if isinstance(result, ParaformerError):
                raise result
        return results if several else results[0]

    @overload
    def transcribe_each(
        self,
        audios: Iterable[Audio],
        *,
        channel: Channel = "mix",
        batch_s: float = 60.0,
        hotwords: Hotwords | None = None,
    ) -> Iterator[Transcript | ParaformerError]: ...
    @overload
    def transcribe_each(
        self,
        audios: Iterable[Audio],
        *,
        channel: Literal["each"],
        batch_s: float = 60.0,
        hotwords: Hotwords | None = None,
    ) -> Iterator[list[Transcript] | ParaformerError]: ...
    def transcribe_each(
        self,
        audios: Iterable[Audio],
        *,
        channel: Channel | Literal["each"] = "mix",
        batch_s: float = 60.0,
        hotwords: Hotwords | None = None,
    ) -> Iterator[Transcript | ParaformerError] | Iterator[list[Transcript] | ParaformerError]:
        """As transcribe, one result after another, in order; an input that fails gives its error in place of one.

        Whatever fails: what is no audio, a decoder, the engine on this one (`errors.attempt`).
        """
        check_several(audios)
        if hotwords is not None:
            return self.with_hotwords(hotwords).transcribe_each(audios, channel=channel, batch_s=batch_s)
        batch_s = as_number(batch_s, "batch_s")
        if not 0 < batch_s < math.inf:
            raise ConfigError(f"batch_s must be a number of seconds above 0, not {batch_s!r:.60}")
        if channel == "each":
            return self._channels(audios, batch_s)
        heard = chosen(channel)
        recordings = (Recording(_name(item, n), partial(blocks_of, item, heard)) for n, item in enumerate(audios))
        return self._results(recordings, batch_s)

    def stream(
        self,
        chunk: ChunkConfig | None = None,
        *,
        rate: int = audio.SAMPLE_RATE,
        drop_short_tail: bool = False,
        hotwords: Hotwords | None = None,
        second_pass: bool | SecondPass = False,
    ) -> Session:
        """Open a live session. rate: of the samples that it will be given, 4000 to 192000 Hz.

        hotwords: as those of `transcribe`. second_pass: at each pause recognise the sentence again, as a whole;
        `Session.take_revisions` gives what came of it.

        Raises UnsupportedModel if the model recognises whole utterances only. drop_short_tail: discard a last piece of
        under 60 ms as FunASR does, for parity with it only.
        """
        check_chunk(chunk)
        if not isinstance(drop_short_tail, bool):
            raise ConfigError(f"drop_short_tail must be true or false, not {drop_short_tail!r:.60}")
        check_streaming(self.config)
        if second_pass is True:
            second_pass = SecondPass()
        elif second_pass is not False and not isinstance(second_pass, SecondPass):
            raise ConfigError(f"second_pass must be true, false or a SecondPass, not {second_pass!r:.60}")
        return Session(
            self._listening_for(hotwords),
            chunk or self.chunk or ChunkConfig(),
            rate=rate,
            drop_short_tail=drop_short_tail,
            second_pass=second_pass or None,
            again=self._again,
        )

    def advance(self, sessions: Iterable[Session]) -> list[str]:
        """Step all sessions that are ready in one batch, until none is. Returns the new text of each."""
        return advance(sessions)

    def pieces(self, blocks: Iterable[Packet]) -> Iterator[tuple[float, Samples]]:
        """What `transcribe` recognises of one recording, piece by piece: (start in seconds, samples), in order.

        blocks: its consecutive parts, one channel at 16 kHz. With `segments`, for those who decide themselves when each
        piece is recognised, as a server does.
        """
        check_several(blocks)
        return self._pieces(audio.regrouped(map(audio.packet, blocks), audio.SAMPLE_RATE))  # one block may be all of it

    def segments(self, samples: Packet, start_s: float = 0.0) -> list[Segment]:
        """The text of one of `pieces`, which begins at start_s of its recording: one segment, none in silence.

        `join_segments` makes one text of those of a recording. Raises AudioError for what are no samples.
        """
        draft, heard = Draft(f"the piece at {start_s:.1f} s"), audio.packet(samples)
        hearing = Hearing().step(heard, final=True)
        if hearing.runs:
            self._recognize([Piece(0, start_s, heard, hearing)], {0: draft})
        result = draft.result(self._model.writer, self.speakers)
        if isinstance(result, ParaformerError):
            raise result
        return list(result.segments)

    def restore(self, saved: Buffer) -> Session:
        """A session from what `Session.save` returned, with the hotwords that it had.

        Raises SessionError if it is of another model or version.
        """
        return Session.restore(self._model, saved, self._again)

    def _again(self, model: SpeechModel, samples: Samples, start_s: float) -> list[Segment]:
        """A sentence of a stream, by the words that its session listens for."""
        twin = self._on(model)
        twin.speakers = None
        return twin.segments(samples, start_s)

    # -- whole audio --------------------------------------------------------------------------------------------------

    def _channels(self, audios: Iterable[Audio], batch_s: float) -> Iterator[list[Transcript] | ParaformerError]:
        """The results of all channels of each input, or the first error."""
        for number, item in enumerate(audios):
            name = _name(item, number)
            with attempt(name) as counting:
                channels = channels_of(item)
            if counting.error is not None:
                yield counting.error
                continue
            recordings = (Recording(f"{name}, channel {n}", blocks) for n, blocks in enumerate(channels, 1))
            results = list(self._results(recordings, batch_s))
            errors = [result for result in results if isinstance(result, ParaformerError)]
            yield errors[0] if errors else [result for result in results if isinstance(result, Transcript)]

    def _results(self, recordings: Iterable[Recording], batch_s: float) -> Iterator[Transcript | ParaformerError]:
        """Results in order; pieces of several recordings share batches, and each is given out once it is complete."""
        pending: dict[int, Draft] = {}
        waiting: list[Piece] = []
        emitted = 0
        for number, recording in enumerate(recordings):
            draft = pending[number] = Draft(recording.name)
            for piece in self._pieces_of(recording, number, draft):
                waiting.append(piece)
                if sum(len(piece.samples) for piece in waiting) >= batch_s * audio.SAMPLE_RATE:
                    self._recognize(waiting, pending)
                    waiting = []
            if not waiting:
                while emitted in pending:
                    yield pending.pop(emitted).result(self._model.writer, self.speakers)
                    emitted += 1
        self._recognize(waiting, pending)
        for number in sorted(pending):
            yield pending.pop(number).result(self._model.writer, self.speakers)

    def _pieces_of(self, recording: Recording, number: int, draft: Draft) -> Iterator[Piece]:
        """Stretches of speech of one recording, up to where it cannot be read."""
        with attempt(draft.name) as reading:
            for start_s, samples in self._pieces(draft.measured(recording.open())):
                hearing = Hearing().step(samples, final=True)
                if hearing.runs:  # no model is asked about silence
                    yield Piece(number, start_s, samples, hearing)
        draft.error = draft.error or reading.error

    def _pieces(self, blocks: Iterator[Samples]) -> Iterator[tuple[float, Samples]]:
        """Stretches of speech of one recording."""
        head = list(_up_to(blocks, WHOLE_S))
        following = next(blocks, None)
        if self.segmenter is not None and (following is not None or self.speakers is not None):
            yield from self.segmenter(chain(head, [] if following is None else [following], blocks))
            return
        # A copy even of one block: it may be the caller's own array, which changes before its batch is recognised.
        yield (
            0.0,
            np.concatenate([*head, *([] if following is None else [following]), *blocks, np.zeros(0, np.float32)]),
        )

    def _recognize(self, pieces: Sequence[Piece], drafts: dict[int, Draft]) -> None:
        """Recognise pieces, several in a batch; where that fails, each recording apart, to find which does."""
        recognize = self._in_chunks if self.config.training_chunks else self._at_once
        numbers = sorted({piece.recording for piece in pieces})
        with attempt(drafts[numbers[0]].name if numbers else "") as work:
            done = [(piece, tokens, self._voices(piece)) for piece, tokens in recognize(pieces)]
            for piece, tokens, voices in done:
                drafts[piece.recording].add(piece.start_s, tokens, voices)
        if work.error is not None and len(numbers) > 1:
            for number in numbers:
                self._recognize([piece for piece in pieces if piece.recording == number], drafts)
        elif work.error is not None:
            drafts[numbers[0]].error = work.error
        for draft in drafts.values():
            draft.close()

    def _voices(self, piece: Piece) -> list[Voice]:
        return [] if self.speakers is None else self.speakers.hear(piece.start_s, piece.samples)

    def _at_once(self, pieces: Sequence[Piece]) -> Iterator[tuple[Piece, list[Token]]]:
        """Each piece in view of all of itself, in batches of similar length."""
        feats = {id(piece): self._model.frontend.whole(piece.samples) for piece in pieces}
        ordered = sorted((piece for piece in pieces if len(feats[id(piece)])), key=lambda piece: len(piece.samples))
        while ordered:
            limit = 1.25 * len(ordered[0].samples)
            group = [piece for piece in ordered if len(piece.samples) <= limit]
            ordered = ordered[len(group) :]
            outcomes = self._model.whole([feats[id(piece)] for piece in group])
            for piece, (outcome, times) in zip(group, outcomes, strict=True):
                heard, spans = audible(outcome, times, piece.hearing, len(piece.samples) / audio.SAMPLE_RATE)
                said = self._model.is_speech(heard)
                yield piece, self._model.tokens("whole", self._model.choose(heard), spans) if said else []

    def _in_chunks(self, pieces: Sequence[Piece]) -> Iterator[tuple[Piece, list[Token]]]:
        """For models that have only ever seen chunks: each piece as a live stream, all of them together."""
        model = replace(self._model, writer=Writer())  # which writes when all pieces are there
        sessions = [Session(model, self.chunk or ChunkConfig()) for _ in pieces]
        for session, piece in zip(sessions, pieces, strict=True):
            session.feed(piece.samples)
            session.end()
        advance(sessions)
        for session, piece in zip(sessions, pieces, strict=True):
            yield piece, list(session.tokens)


def _name(item: Audio, number: int) -> str:
    """An input, for messages."""
    if isinstance(item, str | Path):
        return str(item)
    name = getattr(item, "name", None)
    return name if isinstance(name, str) else f"input {number + 1}"


def check_chunk(chunk: object) -> None:
    """Raises ConfigError for what is no setting of live sessions; None stands for the default."""
    if chunk is not None and not isinstance(chunk, ChunkConfig):
        raise ConfigError(
            f"chunk must be a ChunkConfig such as ChunkConfig(left=5, chunk=10, right=5), not {chunk!r:.60}"
        )


def _up_to(blocks: Iterator[Samples], seconds: float) -> Iterator[Samples]:
    """Blocks from the front, until they hold so many seconds."""
    total = 0
    for block in blocks:
        yield block
        total += len(block)
        if total >= seconds * audio.SAMPLE_RATE:
            return
