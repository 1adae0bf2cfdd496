"""Options of the commands that make, describe and measure models."""

from __future__ import annotations

import argparse

from paraformer.cli.options.shared import batch, listening, machine, one_channel, speed
from paraformer.cli.options.values import chunk, look_back, path, positive, steps


def convert(options: argparse.ArgumentParser) -> None:
    """Of `paraformer convert`."""
    options.description = (
        "Turn a FunASR model directory into a native one, or a native one into FunASR's. Needs paraformer[torch]."
    )
    options.add_argument("source", metavar="SRC", help="model directory or the name of a pulled model")
    options.add_argument("target", type=path, metavar="DST", help="directory to make; must not exist or be empty")
    options.add_argument(
        "--graphs",
        action="store_true",
        help="also write graphs, for where the package's own engine cannot run it (needs paraformer[export])",
    )


def export(options: argparse.ArgumentParser) -> None:
    """Of `paraformer export`."""
    options.description = (
        "Write a model as a directory that a runtime opens as it is, with a certificate that `paraformer verify` "
        "checks where it is used. Needs paraformer[export]."
    )
    options.add_argument("model", metavar="MODEL", help="model directory, or the name of a pulled model")
    options.add_argument(
        "out",
        type=path,
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
        type=path,
        metavar="DATA",
        help="transcribed speech on which to count errors before and after (needs paraformer[evaluate])",
    )


def verify(options: argparse.ArgumentParser) -> None:
    """Of `paraformer verify`."""
    options.description = (
        "Check an exported model on this machine: its files, that it still computes what torch computed, and that "
        "batches, padding, threads and packets change nothing. Exit code 1 if a check fails."
    )
    options.add_argument(
        "model",
        metavar="MODEL",
        help="directory that `paraformer export` wrote, or name of a model that has a certificate",
    )


def info(options: argparse.ArgumentParser) -> None:
    """Of `paraformer info`."""
    options.description = "Describe a model: what it is, what it was trained on, how well it does."
    options.add_argument(
        "model", nargs="?", metavar="MODEL", help="directory or published name (default: the embedded model)"
    )


def pull(options: argparse.ArgumentParser) -> None:
    """Of `paraformer pull`."""
    options.description = "Download a model by name into the cache and print its directory. Needs paraformer[hub]."
    options.add_argument("name", metavar="NAME")
    options.add_argument("--revision", help="of the model (default: the cached one, or the hub's default)")


def evaluate(options: argparse.ArgumentParser) -> None:
    """Of `paraformer evaluate`."""
    options.description = (
        "Recognise transcribed speech and count the errors; or compare two results. Needs paraformer[evaluate]."
    )
    options.add_argument(
        "--model", metavar="DIR|NAME", help="model directory or published name (default: the embedded model)"
    )
    options.add_argument(
        "--data", type=path, metavar="DATA", help=".tsv or .csv of path and text, .jsonl, cuts, or what training takes"
    )
    one_channel(options)
    options.add_argument(
        "--live",
        nargs="?",
        type=chunk,
        const=True,
        metavar="L,C,R",
        help="recognise live, too: left context, chunk, right context in 60 ms windows (default: the model's own)",
    )
    options.add_argument(
        "--look-back", type=look_back, metavar="E/D", help="of live recognition: chunks seen by encoder and decoder"
    )
    options.add_argument(
        "--second-pass", action="store_true", help="with --live: the text after the second pass, delays of the first"
    )
    options.add_argument(
        "--erhua",
        choices=("keep", "drop"),
        default="keep",
        help="drop: 玩儿 and 玩 are the same (default: %(default)s)",
    )
    listening(options)
    options.add_argument("--report", type=path, metavar="FILE.html", help="write a page with tables and alignments")
    options.add_argument("--json", action="store_true", help="print every result as JSON, which --compare takes")
    options.add_argument(
        "--compare", type=path, nargs=2, metavar=("A.json", "B.json"), help="say whether result B is better than A"
    )
    speed(options)
    machine(options)
    batch(options)


def lm(options: argparse.ArgumentParser) -> None:
    """Of `paraformer lm`."""
    options.description = (
        "Count the characters of texts, three at a time, and put that beside the weights of a model, where recognition "
        "takes it into account. The more the texts are like what will be said, the better."
    )
    options.add_argument("model", type=path, metavar="DIR", help="native model directory")
    options.add_argument("texts", type=path, nargs="+", metavar="TEXT", help="text in UTF-8")
    options.add_argument(
        "--least",
        type=steps,
        nargs=2,
        default=(2, 3),
        metavar=("N2", "N3"),
        help="keep pairs and triples that occur so often (default: 2 3)",
    )
    options.add_argument(
        "--dev",
        type=path,
        nargs="+",
        metavar="TEXT",
        help="text like what will be said, which the others do not hold: each gets the weight that suits it best, and "
        "what is kept is what --megabytes hold, not what --least says",
    )
    options.add_argument(
        "--megabytes", type=positive, default=12.0, metavar="MB", help="at most, with --dev (default: 12)"
    )
    options.add_argument("--overwrite", action="store_true", help="replace the language model that DIR has")


def calibrate(options: argparse.ArgumentParser) -> None:
    """Of `paraformer calibrate`."""
    options.description = (
        "Learn from recordings with their texts how often a model is right that is so sure, and write that into its "
        "settings: confidences, whole and live, become probabilities of being right. Take recordings that it was not "
        "trained on. Needs paraformer[evaluate]."
    )
    options.add_argument("model", type=path, metavar="DIR", help="native model directory")
    options.add_argument(
        "--data",
        type=path,
        metavar="DATA",
        required=True,
        help=".tsv or .csv of path and text, .jsonl, cuts, or what training takes",
    )
    one_channel(options)
    machine(options)
    batch(options)
    speed(options)
