"""The command line's options, and how their values are read."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from paraformer import __version__
from paraformer.config import ChunkConfig
from paraformer.errors import ConfigError

FORMATS = ("text", "json", "srt", "vtt", "tsv", "ctm", "textgrid")

EXAMPLES = """\
examples:
  paraformer transcribe talk.wav
  paraformer transcribe '*.flac' --format srt --output-dir subtitles
  arecord -q -f S16_LE -r 16000 -t raw | paraformer transcribe --stream --raw 16000 -
  paraformer mic
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line; `command` in its result names the chosen command."""
    top = argparse.ArgumentParser(
        prog="paraformer",
        description="Mandarin speech recognition, whole files and live streams.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"paraformer {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _transcribe(commands.add_parser("transcribe", help="recognise files", allow_abbrev=False))
    _mic(commands.add_parser("mic", help="recognise what a microphone hears, live", allow_abbrev=False))
    _serve(commands.add_parser("serve", help="recognise for others, over the network", allow_abbrev=False))
    _plan(commands.add_parser("plan", help="measure how much this machine carries as a server", allow_abbrev=False))
    _convert(commands.add_parser("convert", help="turn a model directory into another kind", allow_abbrev=False))
    _export(commands.add_parser("export", help="make a model ready for another install", allow_abbrev=False))
    _align(commands.add_parser("align", help="tell when each token of a known text was spoken", allow_abbrev=False))
    _verify(commands.add_parser("verify", help="check an exported model on this machine", allow_abbrev=False))
    _info(commands.add_parser("info", help="describe a model", allow_abbrev=False))
    _pull(commands.add_parser("pull", help="download a model by name, once", allow_abbrev=False))
    _evaluate(commands.add_parser("evaluate", help="measure errors, speed and delay of a model", allow_abbrev=False))
    _lm(commands.add_parser("lm", help="make a language model for a model", allow_abbrev=False))
    _calibrate(commands.add_parser("calibrate", help="make confidences reliable", allow_abbrev=False))
    _data(commands.add_parser("data", help="prepare, pack and check speech to train on", allow_abbrev=False))
    _train(commands.add_parser("train", help="train a model", allow_abbrev=False))
    _finetune(commands.add_parser("finetune", help="make a model better for speech of your own", allow_abbrev=False))
    return top


def loading(options: argparse.Namespace) -> dict[str, Any]:
    """What a command's options say of how to load a model; what was not given is left to `paraformer.load`."""
    names = (
        *("precision", "threads", "lm", "backend", "device", "alternatives"),
        *("punctuation", "itn", "hotwords", "speakers", "speaker_count"),
    )
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def _data(options: argparse.ArgumentParser) -> None:
    options.description = "Speech with transcripts: DATA is anything that docs/data.md lists. Needs paraformer[train]."
    actions = options.add_subparsers(dest="action", required=True, metavar="ACTION")
    prepare = actions.add_parser(
        "prepare",
        help="a corpus or other data to sets that training reads",
        description="Write the sets of a published corpus, or any other DATA, as training reads them. Bad utterances "
        "are named and left out; exit code 1 if there were any.",
    )
    prepare.add_argument(
        "kind", choices=("aishell", "aishell2", "wenetspeech", "speechio", "archive", "other"), help="other: any DATA"
    )
    prepare.add_argument("source", type=Path, metavar="SRC", help="where the corpus was unpacked; a .tar; other DATA")
    prepare.add_argument("target", type=Path, metavar="OUT", help="directory of prepared sets")
    prepare.add_argument("--name", metavar="NAME", help="of the set made of other data (default: as SRC is called)")
    prepare.add_argument(
        "--parts", nargs="+", default=(), metavar="PART", help="of wenetspeech or speechio (default: all)"
    )
    shar = actions.add_parser(
        "shar",
        help="pack audio into shards, for very many or very large files",
        description="Pack DATA into 16 kHz FLAC shards of 1000 utterances, which training reads like a prepared set. "
        "Bad utterances are named and left out; exit code 1 if there were any.",
    )
    shar.add_argument("source", type=Path, metavar="DATA")
    shar.add_argument("target", type=Path, metavar="OUT", help="new directory for the shards")
    for writing in (prepare, shar):
        writing.add_argument("--stop", action="store_true", help="end at the first bad utterance, do not leave it out")
    check = actions.add_parser(
        "check",
        help="look for what would harm training; exit code 0 clean, 1 not, 2 no data",
        description="Listen to all of DATA and report what would harm training: missing and broken files, silence, "
        "other sample rates, empty and odd texts, unknown characters, durations and speaking rates out of line, "
        "utterances shared with a test set. Exit code 0 if there is nothing, 1 if there is, 2 if it could not look.",
    )
    for hearing in (prepare, shar, check):
        _one_channel(hearing)
    check.add_argument("source", type=Path, metavar="DATA")
    check.add_argument("--test", type=Path, metavar="DATA", help="test set that must share nothing with DATA")
    check.add_argument("--model", metavar="DIR|NAME", help="model whose vocabulary the texts must keep to")
    check.add_argument("--picture", type=Path, metavar="FILE.png", help="draw histograms (needs paraformer[train])")
    check.add_argument("--json", action="store_true", help="print JSON with every finding")


def _train(options: argparse.ArgumentParser) -> None:
    options.description = (
        "Train as a recipe says; a run that was stopped goes on when the same command is given again. Needs "
        "paraformer[train]. Exit code 143 or 130: saved and stopped by SIGTERM or Ctrl-C."
    )
    options.add_argument(
        "recipe", metavar="MODULE:FUNCTION", help="what returns a TrainConfig, as recipes.zh_small:config"
    )
    options.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared speech")
    options.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoints, events and the bundle")
    options.add_argument("--steps", type=_steps, metavar="N", help="plan for N steps instead of the recipe's")
    options.add_argument(
        "--average", type=_steps, metavar="N", help="average the best N weights (default: all that the recipe keeps)"
    )
    options.add_argument("--finish", action="store_true", help="only average, measure and write the bundle")
    options.add_argument("--tensorboard", action="store_true", help="write for TensorBoard (paraformer[tensorboard])")


def _finetune(options: argparse.ArgumentParser) -> None:
    options.description = (
        "Train a model further on speech of your own and say whether it has become better; a run that was stopped goes "
        "on when the same command is given again. DATA is anything that docs/data.md lists. Needs paraformer[train]."
    )
    options.add_argument(
        "--model", metavar="DIR|NAME", help="model directory or published name (default: the embedded model)"
    )
    options.add_argument("--data", type=Path, required=True, metavar="DATA", help="transcribed speech to train on")
    options.add_argument(
        "--dev", type=Path, metavar="DATA", help="speech of the same kind to measure with (default: a tenth of --data)"
    )
    options.add_argument(
        "--general", type=Path, metavar="DATA", help="speech of another kind, on which to say whether it is worse now"
    )
    options.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoints, events and the bundle")
    options.add_argument(
        "--lora",
        nargs="?",
        type=_steps,
        const=8,
        metavar="RANK",
        help="train low-rank changes, which takes less memory and forgets less (RANK: %(const)s)",
    )
    options.add_argument("--steps", type=_steps, metavar="N", help="plan for N steps (default: by the hours of speech)")
    options.add_argument("--lr", type=_positive, metavar="X", help="highest learning rate (default: by the model)")
    options.add_argument(
        "--live",
        choices=("auto", "on", "off"),
        default="auto",
        help="some steps as in live recognition; auto: if the model is made for it (default: %(default)s)",
    )
    options.add_argument(
        "--no-gate", dest="gate", action="store_false", help="do not try to learn ten utterances before the run"
    )


def _transcribe(options: argparse.ArgumentParser) -> None:
    options.description = "Recognise the speech in FILES and print it, or write one result per file."
    options.add_argument(
        "files", nargs="+", metavar="FILES", help="audio files, patterns such as '*.wav', or - for standard input"
    )
    _recognition(options)
    _written(options)
    _machine(options)
    _batch(options)
    options.add_argument(
        "--format", choices=FORMATS, default="text", help="json: one object per line (default: %(default)s)"
    )
    options.add_argument(
        "--timestamps", action="store_true", help="times of segments (text) or of every token (json, tsv)"
    )
    options.add_argument(
        "--speakers",
        default=argparse.SUPPRESS,
        metavar="DIR|NAME",
        help="with --format json and --timestamps: who says each token, by this CAM++, such as cam++",
    )
    options.add_argument(
        "--speaker-count",
        type=int,
        default=argparse.SUPPRESS,
        metavar="N",
        help="how many there are, where it is known",
    )
    options.add_argument(
        "--alternatives",
        type=_alternatives,
        default=argparse.SUPPRESS,
        metavar="N",
        help="with --format json: every token, and N others that it may have been with their confidences (at most 11)",
    )
    options.add_argument(
        "--stream", action="store_true", help="recognise live, 600 ms at a time, printing text as it is decided"
    )
    options.add_argument(
        "--channel",
        type=_channel_or_each,
        metavar="N",
        help="hear this channel, counted from 1, each of them apart, or (default) mix, their mean",
    )
    options.add_argument("--raw", type=_rate, metavar="RATE", help="FILES are headerless 16-bit mono PCM at RATE Hz")
    options.add_argument(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help="write DIR/NAME.txt, .json, .srt and so on instead of printing",
    )
    options.add_argument("--overwrite", action="store_true", help="replace results that are in DIR already")
    options.add_argument(
        "-v", "--verbose", action="store_true", help="say on standard error what computes, and how long each input took"
    )


def _align(options: argparse.ArgumentParser) -> None:
    options.description = (
        "When each character or word of a known text was spoken. Needs: pip install 'paraformer[torch]'."
    )
    options.add_argument("audio", type=Path, metavar="FILE", help="audio file, minutes long at most")
    options.add_argument("text", metavar="TEXT", help="what is said in it, or a file that holds it")
    options.add_argument("--model", default="fa-zh", metavar="DIR|NAME", help="FunASR's aligner (default: %(default)s)")
    options.add_argument(
        "--format", choices=("tsv", "json", "ctm", "srt"), default="tsv", help="as of transcribe (default: %(default)s)"
    )


def _mic(options: argparse.ArgumentParser) -> None:
    options.description = "Recognise what a microphone hears until Ctrl-C. Needs: pip install 'paraformer[mic]'."
    _recognition(options)
    _written(options)
    options.add_argument("--device", help="name or number of the microphone (default: the system's)")


def _serve(options: argparse.ArgumentParser) -> None:
    options.description = (
        "Recognise for FunASR's and OpenAI's clients, and on a page at /. Needs: pip install 'paraformer[serve]'. All "
        "settings: docs/serving.md; each is a line of --config FILE too, and PARAFORMER_NAME in the environment."
    )
    _recognition(options)
    _written(options)
    _machine(options)
    options.add_argument("--host", metavar="ADDRESS", help="where to listen (default: 127.0.0.1); others need --keys")
    options.add_argument("--port", type=_port, metavar="N", help="(default: 10095)")
    options.add_argument("--admin-host", metavar="ADDRESS", help=argparse.SUPPRESS)
    options.add_argument("--admin-port", type=_port, metavar="N", help="/live, /ready, /metrics (default: 10096)")
    options.add_argument("--wyoming-port", type=_port, metavar="N", help="Home Assistant's protocol, usually 10300")
    options.add_argument("--keys", type=Path, metavar="FILE", help="keys, or sha256:HEX of keys, one a line")
    options.add_argument("--certfile", type=Path, metavar="FILE", help="TLS, with --keyfile")
    options.add_argument("--keyfile", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    options.add_argument(
        "--self-signed", type=Path, metavar="DIR", help="TLS with a key of this installation, made in DIR"
    )
    options.add_argument(
        "--allow-origin", dest="origins", action="append", metavar="URL", help="whose pages may connect, too"
    )
    options.add_argument("--allow-host", dest="hosts", action="append", metavar="NAME", help=argparse.SUPPRESS)
    options.add_argument("--mode", choices=("offline", "online", "2pass"), help="of FunASR's clients that name none")
    options.add_argument(
        "--streams", type=_count, metavar="N", help="live streams at a time (default: what the machine carries)"
    )
    options.add_argument("--workers", type=_steps, metavar="N", help="processes on one port (default: 1)")
    options.add_argument("--drain", dest="drain_s", type=_positive, metavar="SECONDS", help="to end in (default: 60)")
    options.add_argument("--state", type=Path, metavar="DIR", help="keeps streams that were cut off, for all workers")
    options.add_argument("--config", type=Path, metavar="FILE.toml", help="settings; flags come before them")
    options.add_argument("--check", action="store_true", help="only check the settings")


def _plan(options: argparse.ArgumentParser) -> None:
    options.description = "Measure how many live streams, and hours of files an hour, this machine carries."
    _recognition(options)
    _machine(options)
    options.add_argument(
        "--latency", type=_positive, default=0.3, metavar="SECONDS", help="text after its chunk (default: %(default)s)"
    )
    options.add_argument(
        "--seconds", type=_positive, default=20.0, metavar="SECONDS", help="to measure for (default: %(default)s)"
    )
    options.add_argument("--json", action="store_true", help="print JSON")
    options.add_argument("--values", type=Path, metavar="FILE.yaml", help="write values for the Helm chart, too")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is from 0 to 65535, not {text!r}")
    return int(text)


def _recognition(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--model", metavar="DIR|NAME", help="model directory or published name (default: the embedded model)"
    )
    options.add_argument(
        "--chunk",
        type=_chunk,
        metavar="L,C,R",
        help="live setting in 60 ms windows: left context, chunk, right context[,encoder and decoder look-back]",
    )
    _speed(options)


def _listening(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--hotwords",
        type=_hotwords,
        default=argparse.SUPPRESS,
        metavar="FILE|TEXT",
        help="listen for these words: a file with one a line, or the words themselves with spaces between",
    )


def _written(options: argparse.ArgumentParser) -> None:
    _listening(options)
    options.add_argument(
        "--punctuate",
        dest="punctuation",
        nargs="?",
        const=True,
        default=argparse.SUPPRESS,
        metavar="DIR|NAME",
        help="set punctuation by this CT-Transformer, such as ct-punc (without a name: the package's own)",
    )
    options.add_argument("--itn", action="store_true", default=argparse.SUPPRESS, help="write numbers in digits")


def _speed(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--no-lm",
        dest="lm",
        action="store_false",
        help="leave the language model out, where there is one beside the weights",
    )
    options.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16", "int8"),
        default="auto",
        help="of matrix products; auto: the fastest that this processor is made for (default: %(default)s)",
    )
    options.add_argument(
        "--threads", type=_count, default=1, metavar="N", help="CPU threads, 0 for one per core (default: %(default)s)"
    )


def _machine(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--backend",
        choices=("auto", "native", "onnx", "torch"),
        default=argparse.SUPPRESS,
        help="what computes: the package's own engine, ONNX Runtime or PyTorch (default: the first of these that can)",
    )
    options.add_argument(
        "--device", default=argparse.SUPPRESS, metavar="NAME", help="of PyTorch: cuda, cuda:1 (default: cpu)"
    )


def _batch(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--batch",
        type=_positive,
        metavar="SECONDS",
        help="of audio recognised at a time, live apart (default: 60); less takes less memory",
    )


def _convert(options: argparse.ArgumentParser) -> None:
    options.description = (
        "Turn a FunASR model directory into a native one, or a native one into FunASR's. Needs paraformer[torch]."
    )
    options.add_argument("source", metavar="SRC", help="model directory or the name of a pulled model")
    options.add_argument("target", type=Path, metavar="DST", help="directory to make; must not exist or be empty")
    options.add_argument(
        "--graphs", action="store_true", help="also write what the base install runs (needs paraformer[export])"
    )


def _export(options: argparse.ArgumentParser) -> None:
    options.description = (
        "Write a model as a directory that a runtime opens as it is, with a certificate that `paraformer verify` "
        "checks where it is used. Needs paraformer[export]."
    )
    options.add_argument("model", metavar="MODEL", help="model directory, or the name of a pulled model")
    options.add_argument(
        "out",
        type=Path,
        nargs="?",
        metavar="OUT",
        help="directory to make; without it, graphs are added to MODEL, a native directory such as training leaves",
    )
    options.add_argument(
        "--format",
        choices=("paraformer", "sherpa-onnx", "funasr-onnx", "funasr"),
        default="paraformer",
        help="the runtime; paraformer is the base install (default: %(default)s)",
    )
    options.add_argument(
        "--live", action="store_true", help="other runtimes: for live recognition instead of whole files"
    )
    options.add_argument(
        "--precision",
        choices=("fp32", "fp16", "w8", "int8"),
        default="fp32",
        help="int8: of weights and activations, not for funasr; fp16, w8: of weights on disk, in 16 and 8 bits, for "
        "paraformer (default: fp32)",
    )
    options.add_argument(
        "--measure",
        type=Path,
        metavar="DATA",
        help="transcribed speech on which to count errors before and after (needs paraformer[evaluate])",
    )


def _verify(options: argparse.ArgumentParser) -> None:
    options.description = (
        "Check an exported model on this machine: its files, that it still computes what torch computed, and that "
        "batches, padding, threads and packets change nothing. Exit code 1 if a check fails."
    )
    options.add_argument(
        "model",
        metavar="MODEL",
        help="directory that `paraformer export` wrote, or name of a model that has a certificate",
    )


def _info(options: argparse.ArgumentParser) -> None:
    options.description = "Describe a model: what it is, what it was trained on, how well it does."
    options.add_argument(
        "model", nargs="?", metavar="MODEL", help="directory or published name (default: the embedded model)"
    )


def _pull(options: argparse.ArgumentParser) -> None:
    options.description = "Download a model by name into the cache and print its directory. Needs paraformer[hub]."
    options.add_argument("name", metavar="NAME")
    options.add_argument("--revision", help="of the model (default: the cached one, or the hub's default)")


def _evaluate(options: argparse.ArgumentParser) -> None:
    options.description = (
        "Recognise transcribed speech and count the errors; or compare two results. Needs paraformer[evaluate]."
    )
    options.add_argument(
        "--model", metavar="DIR|NAME", help="model directory or published name (default: the embedded model)"
    )
    options.add_argument(
        "--data", type=Path, metavar="DATA", help=".tsv or .csv of path and text, .jsonl, cuts, or what training takes"
    )
    _one_channel(options)
    options.add_argument(
        "--live",
        nargs="?",
        type=_chunk,
        const=True,
        metavar="L,C,R",
        help="recognise live, too: left context, chunk, right context in 60 ms windows (default: the model's own)",
    )
    options.add_argument(
        "--look-back", type=_look_back, metavar="E/D", help="of live recognition: chunks seen by encoder and decoder"
    )
    options.add_argument(
        "--erhua",
        choices=("keep", "drop"),
        default="keep",
        help="drop: 玩儿 and 玩 are the same (default: %(default)s)",
    )
    _listening(options)
    options.add_argument("--report", type=Path, metavar="FILE.html", help="write a page with tables and alignments")
    options.add_argument("--json", action="store_true", help="print every result as JSON, which --compare takes")
    options.add_argument(
        "--compare", type=Path, nargs=2, metavar=("A.json", "B.json"), help="say whether result B is better than A"
    )
    _speed(options)
    _machine(options)
    _batch(options)


def _lm(options: argparse.ArgumentParser) -> None:
    options.description = (
        "Count the characters of texts, three at a time, and put that beside the weights of a model, where recognition "
        "takes it into account. The more the texts are like what will be said, the better."
    )
    options.add_argument("model", type=Path, metavar="DIR", help="native model directory")
    options.add_argument("texts", type=Path, nargs="+", metavar="TEXT", help="text in UTF-8")
    options.add_argument(
        "--least",
        type=_steps,
        nargs=2,
        default=(2, 3),
        metavar=("N2", "N3"),
        help="keep pairs and triples that occur so often (default: 2 3)",
    )
    options.add_argument(
        "--dev",
        type=Path,
        nargs="+",
        metavar="TEXT",
        help="text like what will be said, which the others do not hold: each gets the weight that suits it best, and "
        "what is kept is what --megabytes hold, not what --least says",
    )
    options.add_argument(
        "--megabytes", type=_positive, default=12.0, metavar="MB", help="at most, with --dev (default: 12)"
    )
    options.add_argument("--overwrite", action="store_true", help="replace the language model that DIR has")


def _calibrate(options: argparse.ArgumentParser) -> None:
    options.description = (
        "Learn from recordings with their texts how often a model is right that is so sure, and write that into its "
        "settings: confidences, whole and live, become probabilities of being right. Take recordings that it was not "
        "trained on. Needs paraformer[evaluate]."
    )
    options.add_argument("model", type=Path, metavar="DIR", help="native model directory")
    options.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        required=True,
        help=".tsv or .csv of path and text, .jsonl, cuts, or what training takes",
    )
    _one_channel(options)
    _machine(options)
    _speed(options)


def _look_back(text: str) -> tuple[int, int]:
    try:
        encoder, decoder = map(int, text.split("/"))
        ChunkConfig(encoder_look_back=encoder, decoder_look_back=decoder)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 4/1") from error
    return encoder, decoder


def _chunk(text: str) -> ChunkConfig:
    try:
        sizes = [int(part) for part in text.strip("[]").split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in (3, 5):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 5,10,5 or 5,10,5,4,1")
    left, chunk, right, *look_back = sizes
    encoder, decoder = look_back or (0, 0)
    try:
        return ChunkConfig(left=left, chunk=chunk, right=right, encoder_look_back=encoder, decoder_look_back=decoder)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _one_channel(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--channel",
        type=_channel,
        default="mix",
        metavar="N",
        help="hear this channel of each recording, counted from 1 (default: mix, the mean of all)",
    )


def _channel(text: str) -> int | str:
    from paraformer.audio import chosen  # numpy, which help does without

    try:
        return chosen(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _channel_or_each(text: str) -> int | str:
    return text if text == "each" else _channel(text)


def _count(text: str) -> int:
    return _whole(text, 0, 1024)


def _hotwords(text: str) -> Path | list[str]:
    path = Path(text)
    if path.suffix and not path.is_file() and len(text.split()) == 1:
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path if path.is_file() else text.split()


def _alternatives(text: str) -> int:
    return _whole(text, 1, 11)


def _steps(text: str) -> int:
    return _whole(text, 1, 1_000_000_000)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _rate(text: str) -> int:
    return _whole(text, 1000, 384_000)


def _whole(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)
