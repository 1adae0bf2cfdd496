"""Options of the commands that recognise."""

from __future__ import annotations

import argparse

from paraformer.cli.options.shared import batch, cluster, device, machine, recognition, written
from paraformer.cli.options.values import alternatives, channel_or_each, count, path, place, port, positive, rate, steps

FORMATS = ("text", "json", "srt", "vtt", "tsv", "ctm", "rttm", "textgrid", "parquet")


def transcribe(options: argparse.ArgumentParser) -> None:
    """Of `paraformer transcribe`."""
    options.description = "Recognise the speech in FILES and print it, or write one result per file."
    options.add_argument(
        "files", nargs="+", metavar="FILES", help="audio files, patterns such as '*.wav', or - for standard input"
    )
    recognition(options)
    written(options)
    machine(options)
    batch(options)
    cluster(options, "FILES may be directories, buckets by URL and lists of names, and DIR may be a URL")
    options.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="json: one object per line; parquet: a table, with --ray (default: %(default)s)",
    )
    options.add_argument(
        "--timestamps", action="store_true", help="times of segments (text) or of every token (json, tsv)"
    )
    options.add_argument(
        "--vad",
        nargs="?",
        const="fsmn-vad",
        default=argparse.SUPPRESS,
        metavar="DIR|NAME",
        help="cut what is over 30 s by this FSMN-VAD (without a name: fsmn-vad; without this: by the package's own)",
    )
    options.add_argument(
        "--speakers",
        nargs="?",
        const="cam++",
        default=argparse.SUPPRESS,
        metavar="N|DIR|NAME",
        help="who says what, in every format: how many there are, where that is known, or another model than cam++",
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
        type=alternatives,
        default=argparse.SUPPRESS,
        metavar="N",
        help="with --format json: every token, and N others that it may have been with their confidences (at most 23)",
    )
    options.add_argument(
        "--stream", action="store_true", help="recognise live, 600 ms at a time, printing text as it is decided"
    )
    options.add_argument(
        "--second-pass",
        action="store_true",
        help="with --stream: at each pause the sentence again, as a whole; text, tsv: only these; json: both",
    )
    options.add_argument(
        "--channel",
        type=channel_or_each,
        metavar="N",
        help="hear this channel, counted from 1, each of them apart, or (default) mix, their mean",
    )
    options.add_argument("--raw", type=rate, metavar="RATE", help="FILES are headerless 16-bit mono PCM at RATE Hz")
    options.add_argument(
        "--output-dir",
        type=place,
        metavar="DIR",
        help="write DIR/NAME.txt, .json, .srt and so on instead of printing",
    )
    options.add_argument("--overwrite", action="store_true", help="replace results that are in DIR already")
    options.add_argument(
        "-v", "--verbose", action="store_true", help="say on standard error what computes, and how long each input took"
    )


def mic(options: argparse.ArgumentParser) -> None:
    """Of `paraformer mic`."""
    options.description = "Recognise what a microphone hears until Ctrl-C. Needs: pip install 'paraformer[mic]'."
    recognition(options)
    written(options)
    options.add_argument("--device", help="name or number of the microphone (default: the system's)")


def align(options: argparse.ArgumentParser) -> None:
    """Of `paraformer align`."""
    options.description = "When each character or word of a known text was spoken."
    options.add_argument("audio", type=path, metavar="FILE", help="audio file, 5 minutes long at most")
    options.add_argument("text", metavar="TEXT", help="what is said in it, or a file that holds it")
    options.add_argument("--model", default="fa-zh", metavar="DIR|NAME", help="FunASR's aligner (default: %(default)s)")
    device(options)
    options.add_argument(
        "--format", choices=("tsv", "json", "ctm", "srt"), default="tsv", help="as of transcribe (default: %(default)s)"
    )


def serve(options: argparse.ArgumentParser) -> None:
    """Of `paraformer serve`."""
    options.description = (
        "Recognise for FunASR's and OpenAI's clients, and on a page at /. Needs: pip install 'paraformer[serve]'. All "
        "settings: docs/serving.md; each is a line of --config FILE too, and PARAFORMER_NAME in the environment."
    )
    recognition(options)
    written(options)
    machine(options)
    options.add_argument("--host", metavar="ADDRESS", help="where to listen (default: 127.0.0.1); others need --keys")
    options.add_argument("--port", type=port, metavar="N", help="(default: 10095)")
    options.add_argument("--admin-host", metavar="ADDRESS", help=argparse.SUPPRESS)
    options.add_argument("--admin-port", type=port, metavar="N", help="/live, /ready, /metrics (default: 10096)")
    options.add_argument("--wyoming-port", type=port, metavar="N", help="Home Assistant's protocol, usually 10300")
    options.add_argument("--keys", type=path, metavar="FILE", help="keys, or sha256:HEX of keys, one a line")
    options.add_argument("--certfile", type=path, metavar="FILE", help="TLS, with --keyfile")
    options.add_argument("--keyfile", type=path, metavar="FILE", help=argparse.SUPPRESS)
    options.add_argument(
        "--self-signed", type=path, metavar="DIR", help="TLS with a key of this installation, made in DIR"
    )
    options.add_argument(
        "--allow-origin", dest="origins", action="append", metavar="URL", help="whose pages may connect, too"
    )
    options.add_argument("--allow-host", dest="hosts", action="append", metavar="NAME", help=argparse.SUPPRESS)
    options.add_argument("--mode", choices=("offline", "online", "2pass"), help="of FunASR's clients that name none")
    options.add_argument(
        "--streams", type=count, metavar="N", help="live streams at a time (default: what the machine carries)"
    )
    options.add_argument("--workers", type=steps, metavar="N", help="processes on one port (default: 1)")
    options.add_argument("--drain", dest="drain_s", type=positive, metavar="SECONDS", help="to end in (default: 60)")
    options.add_argument(
        "--keep",
        dest="keep_s",
        type=positive,
        metavar="SECONDS",
        help="of audio between two savings of a stream that can go on elsewhere (default: 10)",
    )
    options.add_argument("--state", type=path, metavar="DIR", help="keeps streams that were cut off, for all workers")
    options.add_argument("--config", type=path, metavar="FILE.toml", help="settings; flags come before them")
    options.add_argument("--check", action="store_true", help="only check the settings")


def plan(options: argparse.ArgumentParser) -> None:
    """Of `paraformer plan`."""
    options.description = "Measure how many live streams, and hours of files an hour, this machine carries."
    recognition(options)
    machine(options)
    options.add_argument(
        "--latency", type=positive, default=0.3, metavar="SECONDS", help="text after its chunk (default: %(default)s)"
    )
    options.add_argument(
        "--seconds", type=positive, default=20.0, metavar="SECONDS", help="to measure for (default: %(default)s)"
    )
    options.add_argument("--json", action="store_true", help="print JSON")
    options.add_argument("--values", type=path, metavar="FILE.yaml", help="write values for the Helm chart, too")
