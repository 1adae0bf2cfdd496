"""FunASR's options: those that say something here, those that need not, and those that ask for what is not offered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from paraformer.config import ChunkConfig
from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.hotwords import Hotwords
from paraformer.loader import MOST_SPEAKERS
from paraformer.paths import is_file
from paraformer.segment import SegmentConfig
from paraformer.settings import as_number, as_whole, by_name

_log = logging.getLogger(__name__)

DEFAULT_CHUNK = (0, 10, 5)


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


class Options(StreamOptions, total=False):
    """What `AutoModel.generate` may be told besides."""

    fs: int
    """Hz, of arrays, tensors and raw PCM; files know their own. Default 16000."""
    key: str | Sequence[str]
    """What results are called, one of each input."""
    batch_size_s: float
    """Seconds of audio recognised at a time. Default 60."""
    sentence_timestamp: bool
    """Add "sentence_info": text, start, end and timestamp of each sentence, or each stretch between two pauses."""
    en_post_proc: bool
    """With marks as English has them."""
    return_raw_text: bool
    """Add "raw_text", which has no marks, to what is punctuated."""
    merge_vad: bool
    """Leave shorter pauses in: pieces of up to AutoModel's merge_length_s."""
    max_end_silence_time: int
    """Of the detector, milliseconds: so much silence ends a stretch of speech."""
    speech_noise_thres: float
    """Of an FSMN-VAD: by so much must speech be likelier than silence."""
    return_spk_res: bool
    """Whether to tell speakers apart, where a model for them is loaded. Default true."""
    preset_spk_num: int
    """How many speakers there are."""
    return_spk_center: bool
    """Add "spk_embedding_center", the mean voice of each."""
    progress_callback: Callable[[int, int], object]
    """Told (done, total) after each input."""
    # Of these the result does not depend here: batches change nothing, times are always told, a Paraformer has one
    # language and writes what it hears, and no remote code is run.
    batch_size: int
    batch_size_threshold_s: float
    batch_size_token: int
    batch_size_token_threshold_s: float
    output_timestamp: bool
    pred_timestamp: bool
    return_time_stamps: bool
    language: str
    use_itn: bool
    ban_emo_unk: bool
    device: str
    input_len: object
    disable_pbar: bool
    hotword: str | Sequence[str]
    """Words to listen for, with spaces between, or the name of a .txt file with one a line; a list of them."""
    hotwords: str | Sequence[str]
    """The same."""
    merge_length_s: float
    """Only told to AutoModel it says anything, as with FunASR."""
    # These are refused where they ask for something.
    postprocess_hotwords: object
    postprocess_hotword_file: object
    spk_mode: object
    decoding_ctc_weight: object
    lm_weight: object
    lm_file: object
    ngram_weight: object
    beam_size: object
    nbest: object
    output_dir: object
    data_type: object


_HOTWORDS = "texts are not searched for words that sound alike: leave {name} out, and say hotword"
_MODE = "{name} is told to AutoModel: leave it out here"
_BEAM = "decoding is greedy, with a language model that lies beside the weights (`paraformer lm`): leave {name} out"
_NOT_OFFERED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "postprocess_hotwords": ((), _HOTWORDS),
    "postprocess_hotword_file": ((), _HOTWORDS),
    "spk_mode": ((), _MODE),
    "decoding_ctc_weight": ((), _BEAM),
    "lm_weight": ((), _BEAM),
    "lm_file": ((), _BEAM),
    "ngram_weight": ((), _BEAM),
    "beam_size": ((1,), _BEAM),
    "nbest": ((1,), _BEAM),
    "output_dir": ((), "results are returned, not written: leave {name} out"),
    "data_type": (("sound",), "input must be audio: leave {name} out"),
}
"""Options, the values besides None, 0 and empty that ask for nothing, and what to do otherwise."""


def given(options: Options) -> Options:
    """The options that say something: None stands for one that is left out.

    Raises ConfigError for an option that FunASR does not have or one of another kind, UnsupportedModel for what is not
    offered here.
    """
    _check_names(by_name(options, "the options"))
    if not isinstance(options.get("cache", {}), dict):
        raise ConfigError("cache must be a dict, empty at first, and the same object in every call of a stream")
    said = {name: value for name, value in options.items() if value is not None}
    for name, kind in _KINDS.items():
        if name in said:
            said[name] = kind(said[name], name)
    if not callable(said.get("progress_callback", print)):
        raise ConfigError("progress_callback must be a function of two numbers, done and all")
    return cast("Options", said)


def _check_names(options: Mapping[str, object]) -> None:
    if unknown := sorted(set(options) - set(Options.__annotations__), key=str):
        known = ", ".join(StreamOptions.__annotations__)
        raise ConfigError(
            f"unknown stream option: {', '.join(map(str, unknown))}; known are {known} and FunASR's others"
        )
    for name, (harmless, words) in _NOT_OFFERED.items():
        if options.get(name) and options[name] not in harmless:
            raise UnsupportedModel(words.format(name=name))


def _switch(value: object, name: str) -> bool:
    """True or false, be it NumPy's, or 1 or 0."""
    if not isinstance(value, int | np.bool_):
        raise ConfigError(f"{name} must be true or false, not {value!r:.60}")
    return bool(value)


def _speakers(value: object, name: str) -> int:
    if not 1 <= (count := as_whole(value, name)) <= MOST_SPEAKERS:
        raise ConfigError(f"{name} must be a number from 1 to {MOST_SPEAKERS}, not {count!s:.60}")
    return count


_KINDS: Mapping[str, Callable[[object, str], object]] = {
    "fs": as_whole,
    "batch_size_s": as_number,
    "is_final": _switch,
    "sentence_timestamp": _switch,
    "en_post_proc": _switch,
    "return_raw_text": _switch,
    "merge_vad": _switch,
    "return_spk_res": _switch,
    "return_spk_center": _switch,
    "preset_spk_num": _speakers,
    "max_end_silence_time": as_number,
    "speech_noise_thres": as_number,
    "encoder_chunk_look_back": as_whole,
    "decoder_chunk_look_back": as_whole,
}
"""What makes a value of an option of what was given."""


def hotwords(options: Options) -> Hotwords | None:
    """The words to listen for, None where the option is not given.

    As in FunASR recognition goes on without any where a .txt is not there, but a warning says so.
    """
    given: object = options.get("hotword", options.get("hotwords"))
    if given is None or (isinstance(given, Sequence) and not isinstance(given, str)):
        return cast("Hotwords | None", given)
    if not isinstance(given, str):
        raise ConfigError(f"hotword must be a text or a list of texts, not {given!r:.60}")
    if given.startswith(("http://", "https://")):
        raise UnsupportedModel("hotword cannot be an address: fetch the list, and name the file")
    if not given.endswith(".txt"):
        return given.split()
    if is_file(Path(given)):
        return Path(given)
    _log.warning("there is no file %s: nothing is listened for; hotword names a list by its path", given)
    return None


def chunk(options: StreamOptions) -> ChunkConfig:
    """The live setting. Raises ConfigError for an impossible one."""
    sizes: object = options.get("chunk_size", DEFAULT_CHUNK)
    if not isinstance(sizes, list | tuple | np.ndarray) or len(sizes) != 3:
        raise ConfigError(
            f"chunk_size {sizes} must be three numbers of 60 ms windows: left context, chunk, right context"
        )
    left, chunk, right = sizes
    return ChunkConfig(
        left=left,
        chunk=chunk,
        right=right,
        encoder_look_back=options.get("encoder_chunk_look_back", 0),
        decoder_look_back=options.get("decoder_chunk_look_back", 0),
    )


TELLING_APART = ("return_spk_res", "preset_spk_num", "return_spk_center")
"""Options of a call that are about speakers."""
DETECTING = ("max_end_silence_time", "speech_noise_thres")
"""Options of a call that are the detector's."""
_ELSEWHERE = {"device", "ncpu", "ngpu", "hub", "model_revision", "disable_update", "disable_pbar", "disable_log"}


def without_loading(vad_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are about the detector, and not about how it is loaded."""
    return {name: value for name, value in vad_kwargs.items() if name not in _ELSEWHERE and value is not None}


def segments(vad_kwargs: Mapping[str, Any]) -> SegmentConfig:
    """How to cut long audio, by the settings of FunASR's detector, in milliseconds.

    max_single_segment_time: of the longest stretch, from 1000 on, 60000 at most; max_end_silence_time: of the pause
    that ends one. Raises ConfigError for others.
    """
    known = {"max_single_segment_time", "max_end_silence_time"}
    if unknown := sorted(set(vad_kwargs) - known - _ELSEWHERE):
        raise ConfigError(
            f"vad_kwargs: {', '.join(unknown)} means nothing to this package's detector, which takes "
            f"{' and '.join(sorted(known))}: leave it out"
        )
    plain = SegmentConfig()
    longest = min(_seconds(vad_kwargs, "max_single_segment_time", plain.max_s), 60.0)
    pause = _seconds(vad_kwargs, "max_end_silence_time", plain.min_silence_s)
    return SegmentConfig(
        max_s=longest,
        min_s=min(plain.min_s, longest),
        min_silence_s=pause,
        join_s=max(plain.join_s, pause),
        pad_s=min(plain.pad_s, pause / 2),
    )


def _seconds(milliseconds: Mapping[str, Any], name: str, default: float) -> float:
    value = milliseconds.get(name)
    return default if value is None else as_number(value, name) / 1000
