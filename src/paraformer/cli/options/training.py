"""Options of the commands that prepare speech and train on it."""

from __future__ import annotations

import argparse

from paraformer.cli.options.shared import cluster, one_channel
from paraformer.cli.options.values import path, positive, steps


def data(options: argparse.ArgumentParser) -> None:
    """Of `paraformer data`."""
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
    prepare.add_argument("source", type=path, metavar="SRC", help="where the corpus was unpacked; a .tar; other DATA")
    prepare.add_argument("target", type=path, metavar="OUT", help="directory of prepared sets")
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
    shar.add_argument("source", type=path, metavar="DATA")
    shar.add_argument("target", type=path, metavar="OUT", help="new directory for the shards")
    cluster(prepare, "what is finished is kept in OUT/NAME.parts")
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
        one_channel(hearing)
    check.add_argument("source", type=path, metavar="DATA")
    check.add_argument("--test", type=path, metavar="DATA", help="test set that must share nothing with DATA")
    check.add_argument("--model", metavar="DIR|NAME", help="model whose vocabulary the texts must keep to")
    check.add_argument("--picture", type=path, metavar="FILE.png", help="draw histograms (needs paraformer[train])")
    check.add_argument("--json", action="store_true", help="print JSON with every finding")


def train(options: argparse.ArgumentParser) -> None:
    """Of `paraformer train`."""
    options.description = (
        "Train as a recipe says; a run that was stopped goes on when the same command is given again. Needs "
        "paraformer[train]. Exit code 143 or 130: saved and stopped by SIGTERM or Ctrl-C."
    )
    options.add_argument(
        "recipe", metavar="MODULE:FUNCTION", help="what returns a TrainConfig, as recipes.zh_small:config"
    )
    options.add_argument("--data", type=path, required=True, metavar="DIR", help="prepared speech")
    options.add_argument("--out", type=path, required=True, metavar="DIR", help="checkpoints, events and the bundle")
    options.add_argument("--steps", type=steps, metavar="N", help="plan for N steps instead of the recipe's")
    options.add_argument(
        "--average", type=steps, metavar="N", help="average the best N weights (default: all that the recipe keeps)"
    )
    options.add_argument("--finish", action="store_true", help="only average, measure and write the bundle")
    options.add_argument("--tensorboard", action="store_true", help="write for TensorBoard (paraformer[tensorboard])")


def finetune(options: argparse.ArgumentParser) -> None:
    """Of `paraformer finetune`."""
    options.description = (
        "Train a model further on speech of your own and say whether it has become better; a run that was stopped goes "
        "on when the same command is given again. DATA is anything that docs/data.md lists. Needs paraformer[train]."
    )
    options.add_argument(
        "--model", metavar="DIR|NAME", help="model directory or published name (default: the embedded model)"
    )
    options.add_argument("--data", type=path, required=True, metavar="DATA", help="transcribed speech to train on")
    options.add_argument(
        "--dev", type=path, metavar="DATA", help="speech of the same kind to measure with (default: a tenth of --data)"
    )
    options.add_argument(
        "--general", type=path, metavar="DATA", help="speech of another kind, on which to say whether it is worse now"
    )
    options.add_argument("--out", type=path, required=True, metavar="DIR", help="checkpoints, events and the bundle")
    options.add_argument(
        "--lora",
        nargs="?",
        type=steps,
        const=8,
        metavar="RANK",
        help="train low-rank changes, which takes less memory and forgets less (RANK: %(const)s)",
    )
    options.add_argument("--steps", type=steps, metavar="N", help="plan for N steps (default: by the hours of speech)")
    options.add_argument("--lr", type=positive, metavar="X", help="highest learning rate (default: by the model)")
    options.add_argument(
        "--live",
        choices=("auto", "on", "off"),
        default="auto",
        help="some steps as in live recognition; auto: if the model is made for it (default: %(default)s)",
    )
    options.add_argument(
        "--no-gate", dest="gate", action="store_false", help="do not try to learn ten utterances before the run"
    )
