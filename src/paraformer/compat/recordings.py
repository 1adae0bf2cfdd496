"""What FunASR's AutoModel tells of a recording: text, times, sentences, who says them (spec: variants 8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from paraformer.audio import Samples, blocks_of
from paraformer.compat.cutting import Cutting, Span
from paraformer.compat.punctuation import Marked, by_character, characters, punctuate, sentence_records
from paraformer.errors import ParaformerError, attempt
from paraformer.hotwords import Hotwords
from paraformer.punctuation import Punctuation
from paraformer.recognizer import Recognizer
from paraformer.recordings import Voice
from paraformer.speakers import VoiceEncoder, cluster, speaker_of, turns, windows
from paraformer.speakers.clusters import NEAR
from paraformer.text import words_of
from paraformer.types import Token, Transcript

SpeakerMode = Literal["punc_segment", "vad_segment"]
"""Who says each sentence, or each stretch between two pauses."""
Times = list[list[int]]
"""[start, end] in milliseconds of each word of the text: a character, an English word, an abbreviation."""


@dataclass(frozen=True)
class Stretch:
    """Speech between two pauses, in milliseconds of its recording, and what was recognised of it."""

    start: int
    end: int
    text: str
    words: list[str]
    times: Times

    @classmethod
    def of(cls, span: Span, tokens: Sequence[Token], text: str, offset: int = 0) -> Stretch:
        """offset: of the times of tokens, milliseconds. text: "" where it is all words with spaces between."""
        found = words_of(token.text for token in tokens)
        words = [word.text for word in found]
        times = [
            [round(tokens[word.first].start_s * 1000) + offset, round(tokens[word.last].end_s * 1000) + offset]
            for word in found
        ]
        return cls(*span, text or " ".join(words), words, times)

    def record(self) -> dict[str, Any]:
        """FunASR's form."""
        named = {"start": self.start, "end": self.end, "text": self.text, "sentence": self.text}
        return {**named, "timestamp": self.times}


@dataclass(frozen=True)
class Diarization:
    """Tells speakers apart; near: similarity of voices from which two are one."""

    encoder: VoiceEncoder
    mode: SpeakerMode = "punc_segment"
    near: float = NEAR

    def hear(self, span: Span, samples: Samples) -> Iterator[Voice]:
        """The voices of a stretch of speech."""
        for window in windows(span[0] / 1000, samples):
            yield window.start_s, window.end_s, self.encoder(window.samples)

    def told(self, voices: Sequence[Voice], records: list[dict[str, Any]], said: Mapping[str, Any]) -> dict[str, Any]:
        """Records with their speakers, and the mean voice of each speaker where that is asked for."""
        rows = np.stack([vector for _, _, vector in voices])
        labels = cluster(rows, said.get("preset_spk_num"), near=self.near)
        found = turns([(start, end) for start, end, _ in voices], labels.tolist())
        told: dict[str, Any] = {
            "sentence_info": [
                one | {"spk": speaker_of(one["start"] / 1000, one["end"] / 1000, found)} for one in records
            ]
        }
        if said.get("return_spk_center"):
            told["spk_embedding_center"] = np.stack([rows[labels == who].mean(0) for who in range(labels.max() + 1)])
        return told


@dataclass(frozen=True)
class Teller:
    """Recognition of recordings, and FunASR's form of what comes.

    cutting: None where no detector was asked for.
    """

    recognizer: Recognizer
    cutting: Cutting | None = None
    punctuation: Punctuation | None = None
    diarization: Diarization | None = None

    def uncut(self, heard: Transcript, said: Mapping[str, Any]) -> dict[str, Any]:
        """What is told of a recording that was recognised whole."""
        stretches = [
            Stretch.of(
                (round(one.start_s * 1000), round(one.end_s * 1000)), one.tokens, "" if self._spaced else one.text
            )
            for one in heard.segments
        ]
        return self._told(stretches, " ".join(one.text for one in stretches) if self._spaced else heard.text, said)

    def cut(
        self, source: Any, said: Mapping[str, Any], *, name: str, batch_s: float, hotwords: Hotwords | None
    ) -> dict[str, Any]:
        """Recognise what the detector finds in audio called `name`, each stretch by itself.

        Raises AudioError for what cannot be used as audio, and whatever else goes wrong as InputFailed.
        """
        assert self.cutting is not None
        spans, voices, stretches = list[Span](), list[Voice](), list[Stretch]()
        diarization = self.diarization if said.get("return_spk_res", True) else None

        def pieces(cuts: Iterable[tuple[Span, Samples]]) -> Iterator[Samples]:
            for span, samples in cuts:
                spans.append(span)
                voices.extend(diarization.hear(span, samples) if diarization else ())
                yield samples

        recognizer = copy(self.recognizer)
        recognizer.segmenter = None
        with attempt(name) as work:
            cuts = pieces(self.cutting(blocks_of(source), said))
            for number, result in enumerate(recognizer.transcribe_each(cuts, batch_s=batch_s, hotwords=hotwords)):
                if isinstance(result, ParaformerError):
                    raise result
                span = spans[number]
                stretches.append(Stretch.of(span, result.tokens, "" if self._spaced else result.text, span[0]))
        if work.error is not None:
            raise work.error
        return self._told(stretches, " ".join(one.text for one in stretches if one.text), said, voices)

    def cutting_as(self, said: Mapping[str, Any]) -> Recognizer:
        """The recogniser, which cuts what is long by this package's detector as options of a call say."""
        if self.cutting is None:
            return self.recognizer
        recognizer = copy(self.recognizer)
        recognizer.segmenter = self.cutting.detector(said)
        return recognizer

    @property
    def cuts(self) -> bool:
        """Whether recordings are cut here, and not, where they are long, by the recogniser."""
        return self.cutting is not None and (self.cutting.vad is not None or self.diarization is not None)

    @property
    def _spaced(self) -> bool:
        """Whether FunASR leaves spaces between all words of a text: if the model has times of its own."""
        return self.recognizer.config.predictor.timing is not None

    def _told(
        self, stretches: Sequence[Stretch], text: str, said: Mapping[str, Any], voices: Sequence[Voice] = ()
    ) -> dict[str, Any]:
        """Text and times; sentences where they are asked for, or speakers are told apart."""
        told: dict[str, Any] = {"text": text, "timestamp": [time for one in stretches for time in one.times]}
        records = [one.record() for one in stretches]
        if self.punctuation is not None:
            marked = punctuate(self.punctuation, _joined(stretches))
            sentences = self._sentences(marked, told["timestamp"], said) or records
            told["text"] = marked.text
            told |= {"raw_text": text} if said.get("return_raw_text") else {}
        else:
            sentences = [] if self._spaced and self.cuts else records
        if voices:
            assert self.diarization is not None
            whole = self.punctuation is None or self.diarization.mode == "vad_segment"
            told |= self.diarization.told(voices, records if whole else sentences, said)
        elif said.get("sentence_timestamp"):
            told["sentence_info"] = sentences
        return told

    def _sentences(self, marked: Marked, times: Times, said: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Sentences by their marks; none where these do not fit the times."""
        assert self.punctuation is not None
        words, classes = characters(self.punctuation, marked), by_character(self.punctuation, marked)
        if len(classes) != len(times):
            return []
        raw, english = bool(said.get("return_raw_text")), bool(said.get("en_post_proc"))
        return sentence_records(classes, self.punctuation.config.marks, times, words, raw=raw, english=english)


def _joined(stretches: Sequence[Stretch]) -> str:
    """What is punctuated: all texts, with a space where two meet, but between Chinese characters (variants 8.2)."""
    joined = ""
    for text in filter(None, (one.text for one in stretches)):
        together = not joined or all("\u3400" <= one <= "\u9fff" for one in (joined[-1], text[0]))
        joined += text if together else f" {text}"
    return joined
