"""`paraformer finetune`: a model and speech of a new kind to a model for it, and whether it is better.

Under torchrun: `torchrun --nproc-per-node N -m paraformer.cli finetune ...`.
"""

from __future__ import annotations

import argparse

from paraformer.cli.complain import complain
from paraformer.cli.train import SIGNALLED
from paraformer.errors import MissingExtra
from paraformer.loader import locate


def finetune(options: argparse.Namespace) -> int:
    """Fine-tune, then print a line for each set that was compared, and the path of the bundle."""
    try:
        from paraformer.train import parallel
        from paraformer.train.finetune import Finetuning
        from paraformer.train.finetune import finetune as run
    except ImportError as error:
        raise MissingExtra("Fine-tuning", "train") from error
    plan = Finetuning(
        model=locate(options.model),
        data=options.data,
        out=options.out,
        dev=options.dev,
        general=options.general,
        lora_rank=options.lora,
        steps=options.steps,
        peak_lr=options.lr,
        live=options.live,
        gate=options.gate,
    )
    with parallel.joined():
        result = run(plan, bar=True)
    if result.signal:
        complain(f"stopped by {result.signal.name}; saved, and the same command goes on from there")
        return SIGNALLED + result.signal
    for line in result.verdicts:
        print(line)
    if result.bundle:
        print(result.bundle)
    return 0
