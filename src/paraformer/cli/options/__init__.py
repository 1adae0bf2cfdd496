"""The command line's options. Nothing here imports numpy, so that help and completion come at once."""

from __future__ import annotations

import argparse
from typing import Any

from paraformer import __version__
from paraformer.cli.options.models import calibrate, convert, evaluate, export, info, lm, pull, verify
from paraformer.cli.options.recognising import FORMATS, align, mic, plan, serve, transcribe
from paraformer.cli.options.training import data, finetune, train

__all__ = ["FORMATS", "loading", "parser"]

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
    transcribe(commands.add_parser("transcribe", help="recognise files", allow_abbrev=False))
    mic(commands.add_parser("mic", help="recognise what a microphone hears, live", allow_abbrev=False))
    serve(commands.add_parser("serve", help="recognise for others, over the network", allow_abbrev=False))
    plan(commands.add_parser("plan", help="measure how much this machine carries as a server", allow_abbrev=False))
    convert(commands.add_parser("convert", help="turn a model directory into another kind", allow_abbrev=False))
    export(commands.add_parser("export", help="make a model ready for another install", allow_abbrev=False))
    align(commands.add_parser("align", help="tell when each token of a known text was spoken", allow_abbrev=False))
    verify(commands.add_parser("verify", help="check an exported model on this machine", allow_abbrev=False))
    info(commands.add_parser("info", help="describe a model", allow_abbrev=False))
    pull(commands.add_parser("pull", help="download a model by name, once", allow_abbrev=False))
    evaluate(commands.add_parser("evaluate", help="measure errors, speed and delay of a model", allow_abbrev=False))
    lm(commands.add_parser("lm", help="make a language model for a model", allow_abbrev=False))
    calibrate(commands.add_parser("calibrate", help="make confidences reliable", allow_abbrev=False))
    data(commands.add_parser("data", help="prepare, pack and check speech to train on", allow_abbrev=False))
    train(commands.add_parser("train", help="train a model", allow_abbrev=False))
    finetune(commands.add_parser("finetune", help="make a model better for speech of your own", allow_abbrev=False))
    return top


def loading(options: argparse.Namespace) -> dict[str, Any]:
    """What a command's options say of how to load a model; what was not given is left to `paraformer.load`."""
    names = (
        *("precision", "threads", "lm", "backend", "device", "alternatives"),
        *("punctuation", "itn", "hotwords", "vad", "speakers", "speaker_count"),
    )
    asked = {name: getattr(options, name) for name in names if hasattr(options, name)}
    if str(asked.get("speakers", "")).isdecimal():  # how many, by the usual model
        asked = {"speaker_count": int(asked["speakers"]), **asked, "speakers": "cam++"}
    return asked
