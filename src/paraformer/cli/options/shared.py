"""Options that several commands have."""

from __future__ import annotations

import argparse

from paraformer.cli.options.values import channel, chunk, count, hotwords, positive


def recognition(options: argparse.ArgumentParser) -> None:
    """Which model, how it hears live, and how fast it is to be."""
    options.add_argument(
        "--model", metavar="DIR|NAME", help="model directory or published name (default: the embedded model)"
    )
    options.add_argument(
        "--chunk",
        type=chunk,
        metavar="L,C,R",
        help="live setting in 60 ms windows: left context, chunk, right context[,encoder and decoder look-back]",
    )
    speed(options)


def listening(options: argparse.ArgumentParser) -> None:
    """What to listen for."""
    options.add_argument(
        "--hotwords",
        type=hotwords,
        default=argparse.SUPPRESS,
        metavar="FILE|TEXT",
        help="listen for these words: a file with one a line, or the words themselves with spaces between",
    )


def written(options: argparse.ArgumentParser) -> None:
    """How text is written, and what to listen for."""
    listening(options)
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


def speed(options: argparse.ArgumentParser) -> None:
    """What is computed, and on how much of the processor."""
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
        "--threads", type=count, default=1, metavar="N", help="CPU threads, 0 for one per core (default: %(default)s)"
    )


def machine(options: argparse.ArgumentParser) -> None:
    """What computes, and where."""
    options.add_argument(
        "--backend",
        choices=("auto", "native", "onnx", "torch"),
        default=argparse.SUPPRESS,
        help="what computes: the package's own engine, ONNX Runtime or PyTorch (default: the first of these that can)",
    )
    device(options)


def device(options: argparse.ArgumentParser) -> None:
    """Where PyTorch computes."""
    options.add_argument(
        "--device", default=argparse.SUPPRESS, metavar="NAME", help="of PyTorch: cuda, cuda:1 (default: cpu)"
    )


def batch(options: argparse.ArgumentParser) -> None:
    """How much is computed at a time."""
    options.add_argument(
        "--batch",
        type=positive,
        metavar="SECONDS",
        help="of audio recognised at a time, live apart (default: 60); less takes less memory",
    )


def cluster(options: argparse.ArgumentParser, what: str) -> None:
    """Whether many machines do it; what: that is otherwise then."""
    options.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="by all processors of a Ray cluster: the one at ADDRESS, else that of RAY_ADDRESS, else of this machine "
        f"(needs paraformer[ray]); {what}",
    )


def one_channel(options: argparse.ArgumentParser) -> None:
    """What is heard of several channels."""
    options.add_argument(
        "--channel",
        type=channel,
        default="mix",
        metavar="N",
        help="hear this channel of each recording, counted from 1 (default: mix, the mean of all)",
    )
