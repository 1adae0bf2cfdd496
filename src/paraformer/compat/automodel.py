"""`AutoModel` and `pipeline`: FunASR's and ModelScope's entry points over a recogniser of this package."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Never, Unpack, get_args

from paraformer import audio, hub
from paraformer.compat import options as known
from paraformer.compat.cutting import MERGE_S, Cutting
from paraformer.compat.inputs import Input, Named, is_complete_file, named, readable, samples
from paraformer.compat.options import Options, StreamOptions
from paraformer.compat.punctuation import Texts
from paraformer.compat.recordings import Diarization, SpeakerMode, Teller
from paraformer.errors import ConfigError, MissingExtra, ModelNotFound, ParaformerError, UnsupportedModel
from paraformer.loader import EMBEDDED, check_model, is_punctuation, load, load_punctuation, locate
from paraformer.paths import is_directory, is_file
from paraformer.recognizer import Recognizer
from paraformer.session import Session
from paraformer.settings import as_number, by_name, nearest
from paraformer.speakers import VoiceEncoder
from paraformer.speakers.clusters import NEAR
from paraformer.types import Transcript

Mode = Literal["paraformer", "paraformer_streaming", "paraformer_fake_streaming"]

SESSION_KEY = "_paraformer_session"
_log = logging.getLogger(__name__)
WINDOW_SAMPLES = 960
_LEAST_S = 1e-3
"""Seconds of a batch; with FunASR, 0 means one input at a time."""


class Tasks:
    """The one task of ModelScope's list that this package does."""

    auto_speech_recognition = "auto-speech-recognition"


class AutoModel:
    """FunASR's entry point: one loaded model."""

    def __init__(
        self,
        model: str | Path,
        *,
        model_revision: str | None = None,
        hub: str | None = None,
        device: str | None = "cpu",
        ngpu: int | None = None,
        ncpu: int = 1,
        quantize: bool | None = None,
        vad_model: str | Path | None = None,
        vad_model_revision: str | None = None,
        vad_kwargs: Mapping[str, Any] | None = None,
        punc_model: str | Path | None = None,
        punc_model_revision: str | None = None,
        punc_kwargs: Mapping[str, Any] | None = None,
        spk_model: str | Path | None = None,
        spk_model_revision: str | None = None,
        spk_kwargs: Mapping[str, Any] | None = None,
        spk_mode: SpeakerMode = "punc_segment",
        merge_length_s: float = MERGE_S,
        batch_size: int = 1,
        trust_remote_code: bool = False,
        remote_code: str | None = None,
        log_level: str = "INFO",
        disable_update: bool = True,
        disable_pbar: bool = True,
        disable_log: bool = True,
        **unknown: object,
    ) -> None:
        """Load a directory, or a published name, which is downloaded if it is not in the cache (extra [hub]).

        hub: "ms" or "hf", of a name that does not tell it. device: where there is none of that kind, or ngpu is 0, the
        CPU does it, with a warning. quantize: True for int8, False for float32 (default: what is fastest here).
        vad_model: the directory or name of an FSMN-VAD, by which audio is cut at pauses; where there is none by a name
        (beside the directory of a model none is downloaded) this package's own detector does it, as vad_kwargs says
        (`options.segments`). None: only what is over a minute long is cut. punc_model: what punctuates the text, such
        as "ct-punc"; given as model, it punctuates the texts that are the input of `generate`. spk_model: what tells
        speakers apart, such as "cam++", beside a vad_model: sentence by sentence, or pause by pause with spk_mode
        "vad_segment". spk_kwargs: cb_kwargs with merge_thr, the similarity from which two voices are one.
        merge_length_s: of pieces, with `generate(merge_vad=True)`. batch_size, log_level, disable_*: accepted; batches
        change nothing, and there is no update, bar or log. Nor is a model's own code ever run, trusted or not.
        Raises what `paraformer.load` raises, and ConfigError for options that there are not.
        """
        _check_known(unknown, AutoModel.__init__)
        directory = locate(_resolved(model, model_revision, hub), download=True)
        self.model_path = str(directory)
        self.texts = Texts.open(directory) if is_punctuation(directory) else None
        if self.texts is not None:
            return
        detector = _detector(vad_model, vad_model_revision, hub, download=not is_directory(model))
        merge_s = as_number(merge_length_s, "merge_length_s")
        cutting = None if vad_model is None else Cutting.by(detector, by_name(vad_kwargs or {}, "vad_kwargs"), merge_s)
        self.recognizer = load(
            directory,
            device=_device(device, ngpu),
            threads=ncpu,
            precision="auto" if quantize is None else "int8" if quantize else "float32",
            vad=cutting is not None,
            download=True,
        )
        if cutting is not None:
            self.recognizer.segmenter = cutting.detector({})
        elif spk_model is not None:
            raise UnsupportedModel("spk_model compares voices in the speech that a detector finds: give vad_model too")
        marks = load_punctuation(_resolved(punc_model, punc_model_revision, hub), download=True) if punc_model else None
        voices = _resolved(spk_model, spk_model_revision, hub) if spk_model else None
        diarization = _diarization(voices, spk_mode, by_name(spk_kwargs or {}, "spk_kwargs"))
        self.teller = Teller(self.recognizer, cutting, marks, diarization)

    def generate(self, input: Any, **options: Unpack[Options]) -> list[dict[str, Any]]:
        """One packet of a live stream where `cache` is given, whole audio otherwise, and where input is a file.

        input: `inputs.Input`, a list of such, or the path of a list of files (wav.scp, .jsonl). A stream is asked for
        by a cache, by is_final or by chunk_size; a file is a stream of its own where chunk_size is given.
        Live: [{"key", "text"}], the text that this packet decided, perhaps "". Whole: for each input in order
        {"key", "text", "timestamp"}, with one [start, end] in milliseconds for each character or English word, and
        "raw_text", "sentence_info" and "spk_embedding_center" where options or a speaker model ask for them.
        Raises ConfigError for stream options without a cache, UnsupportedModel for options of what is not offered,
        AudioError for audio that cannot be used.
        """
        said = known.given(options)
        if self.texts is not None:
            return self.texts.generate(input, said)
        if self.teller.diarization is None and (asked := [one for one in known.TELLING_APART if said.get(one)]):
            raise UnsupportedModel(f"{asked[0]} is about speakers: load spk_model and vad_model, or leave it out")
        if self._is_live(input, said):
            return [{"key": "stream", "text": _advance(self.recognizer, input, said)}]
        return list(self._whole(named(input, said.get("key")), said))

    def export(self, *_: object, **options: object) -> Never:
        """Raises UnsupportedModel, which says what exports."""
        raise UnsupportedModel(
            f"AutoModel exports nothing here; use `paraformer export {self.model_path} OUT --format funasr-onnx`"
        )

    def _is_live(self, source: Any, options: Options) -> bool:
        """Whether a call is about a packet of a stream: a file is whole unless a chunk is asked for."""
        asked = any(name in options for name in StreamOptions.__annotations__)
        complete = _is_complete(source, options) or isinstance(source, list | tuple)
        within = SESSION_KEY in options.get("cache", {})
        return asked and (within or "chunk_size" in options or not complete) and self.recognizer.config.streaming

    def _whole(self, inputs: list[Named], options: Options) -> Iterator[dict[str, Any]]:
        rate, tell = options.get("fs", audio.SAMPLE_RATE), options.get("progress_callback")
        audios = (readable(one.item, rate) for one in inputs)
        batch_s, hotwords = max(options.get("batch_size_s", 60.0), _LEAST_S), known.hotwords(options)
        if not self.teller.cuts:
            recognizer = self.teller.cutting_as(options)
            results = recognizer.transcribe_each(audios, batch_s=batch_s, hotwords=hotwords)
            told = (self.teller.uncut(_succeeded(result), options) for result in results)
        else:
            told = (
                self.teller.cut(item, options, name=one.key, batch_s=batch_s, hotwords=hotwords)
                for one, item in zip(inputs, audios, strict=True)
            )
        for number, (one, values) in enumerate(zip(inputs, told, strict=True), 1):
            if tell is not None:
                tell(number, len(inputs))
            yield {"key": one.key} | values


def _check_known(unknown: Mapping[str, object], function: Callable[..., object]) -> None:
    """Raise ConfigError for options that a function does not have."""
    if unknown:
        name = next(iter(unknown))
        meant = nearest(name, inspect.signature(function).parameters)
        raise ConfigError(f"there is no option {name} here; leave it out{meant}")


def _succeeded(result: Transcript | ParaformerError) -> Transcript:
    if isinstance(result, ParaformerError):
        raise result
    return result


def _resolved(model: str | Path, revision: str | None, where: str | None, *, download: bool = True) -> str | Path:
    """A directory, or the name of a published model on a hub."""
    if where not in (None, "ms", "hf", "modelscope", "huggingface"):
        raise ConfigError(f"hub {where!r} is neither 'ms' (ModelScope) nor 'hf' (Hugging Face)")
    check_model(model)
    if is_directory(model) or model == EMBEDDED:
        return model
    name = str(model)
    if where is not None and "/" in name and ":" not in name:
        name = f"{'hf' if where in ('hf', 'huggingface') else 'ms'}:{name}"
    return name if revision is None else hub.resolve(name, revision=revision, download=download)


def _detector(model: str | Path | None, revision: str | None, where: str | None, *, download: bool) -> Path | None:
    """The directory of an FSMN-VAD; None for this package's own detector."""
    if model is None:
        return None
    try:
        return locate(_resolved(model, revision, where, download=download), download=download)
    except (ModelNotFound, MissingExtra) as error:
        if is_file(Path(model)):  # of a model, as it may be
            raise
        _log.warning("this package's own detector of speech is used: %s", error)
        return None


def _diarization(model: str | Path | None, mode: SpeakerMode, options: Mapping[str, Any]) -> Diarization | None:
    """What tells speakers apart; None where nothing was asked for."""
    if mode not in get_args(SpeakerMode):
        raise ConfigError(f"spk_mode {mode!r} is not one of {', '.join(get_args(SpeakerMode))}")
    if model is None:
        return None
    clusters = by_name(options.get("cb_kwargs") or {}, "cb_kwargs")
    if unknown := sorted(set(known.without_loading(options)) - {"cb_kwargs"} | set(clusters) - {"merge_thr"}):
        raise ConfigError(f"spk_kwargs: {', '.join(unknown)} means nothing here, only cb_kwargs with merge_thr")
    near = as_number(clusters.get("merge_thr", NEAR), "merge_thr")
    return Diarization(VoiceEncoder.open(locate(model, download=True)), mode, near)


def _device(name: str | None, ngpu: int | None) -> str:
    """The device, or as with FunASR the CPU where there is none of a known kind."""
    if name is None or name == "cpu" or ngpu == 0:
        return "cpu"
    if not str(name).startswith(("cuda", "gpu", "mps", "xpu", "npu")):
        return name  # and `load` says what is wrong with it
    name = name.replace("gpu", "cuda")  # ModelScope's word
    try:
        from paraformer.backends.torch import check_device

        check_device(name)
    except ImportError:
        _log.warning("%s; going on on the CPU", MissingExtra(f"device {name!r}", "torch"))
    except ConfigError as error:
        _log.warning("%s; going on on the CPU", error)
    else:
        return name
    return "cpu"


def pipeline(
    task: str,
    model: str | Path,
    *,
    model_revision: str | None = None,
    mode: Mode = "paraformer",
    device: str | None = "cpu",
    ngpu: int | None = None,
    ncpu: int = 1,
    vad_model: str | Path | None = None,
    punc_model: str | Path | None = None,
    update_model: bool | None = None,
    **unknown: object,
) -> Pipeline:
    """ModelScope's entry point. `update_model` is accepted; a cached model is never updated by surprise.

    Raises ConfigError for another task or mode, and what AutoModel raises.
    """
    _check_known(unknown, pipeline)
    if task != Tasks.auto_speech_recognition:
        raise ConfigError(f"task {task!r} is not supported, only {Tasks.auto_speech_recognition!r}")
    if mode not in get_args(Mode):
        raise ConfigError(f"mode {mode!r} is not one of {', '.join(get_args(Mode))}")
    loaded = AutoModel(
        model,
        model_revision=model_revision,
        device=device,
        ngpu=ngpu,
        ncpu=ncpu,
        vad_model=vad_model,
        punc_model=punc_model,
    )
    return Pipeline(loaded, mode)


class Pipeline:
    """What `pipeline` returns; call it with audio."""

    def __init__(self, model: AutoModel, mode: Mode) -> None:
        self.model = model
        self.mode = mode

    def __call__(self, audio_in: Input, param_dict: Options | None = None) -> dict[str, str] | list[Never]:
        """{"text": ...}, or [] where there is nothing (new) to tell.

        paraformer_streaming: `audio_in` is the next packet and param_dict (StreamOptions) holds the stream's cache.
        The other modes take whole audio: paraformer recognises it whole, paraformer_fake_streaming as a live stream.
        """
        recognizer, options = self.model.recognizer, known.given(param_dict or {})
        match self.mode:
            case "paraformer_streaming":
                text = _advance(recognizer, audio_in, options, shortest=WINDOW_SAMPLES)
            case "paraformer_fake_streaming":
                text = _advance(recognizer, audio_in, {**options, "cache": {}, "is_final": True})
            case "paraformer":
                recording = readable(audio_in, options.get("fs", audio.SAMPLE_RATE))
                text = recognizer.transcribe(recording, hotwords=known.hotwords(options)).text
        return {"text": text} if text else []


def _advance(recognizer: Recognizer, packet: Any, options: Options, *, shortest: int = 0) -> str:
    """Feed one packet to the stream that lives in the cache; the text it decided.

    A file is all of its stream. shortest: a stream that begins and ends with fewer samples is ignored, as by the
    reference's pipeline. The card's loop makes such a call after the end of a stream that is one sample longer than a
    multiple of the stride.
    """
    final = options.get("is_final", False)
    complete = _is_complete(packet, options)
    cache = options.get("cache", {} if final or complete else None)
    if cache is None:
        raise ConfigError("a live stream needs cache: a dict, empty at first, and the same object in every call")
    started = SESSION_KEY in cache
    final = final or (complete and not started)
    rate = audio.SAMPLE_RATE if complete and not started else options.get("fs", audio.SAMPLE_RATE)
    new = samples(packet, within_stream=started)  # of a packet as they are: the session resamples across packets
    if final and not started and len(new) * audio.SAMPLE_RATE < shortest * rate:
        return ""
    session = _session(recognizer, cache, options, rate)
    text = session.accept(new)
    session.take()  # nobody asks for it again, and the stream may go on for days
    if final:
        text += session.finish()
        del cache[SESSION_KEY]
    return text


def _is_complete(source: Any, options: Options) -> bool:
    """Whether an input is a file, and not the first of the packets that one was cut into."""
    begins = isinstance(source, bytes) and options.get("is_final") is False
    return is_complete_file(source) and not begins


def _session(recognizer: Recognizer, cache: dict[str, Any], options: Options, rate: int) -> Session:
    """The stream's session, opened on its first packet, whose hotwords count."""
    chunk = known.chunk(options)
    if SESSION_KEY not in cache:
        cache[SESSION_KEY] = recognizer.stream(chunk, rate=rate, hotwords=known.hotwords(options))
    session: Session = cache[SESSION_KEY]
    if session.chunk != chunk:
        raise ConfigError("chunk_size and look-backs cannot change within a stream: end it with is_final=True first")
    if session.rate != rate:
        raise ConfigError("fs cannot change within a stream: end it with is_final=True first")
    return session
