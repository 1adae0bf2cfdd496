"""One of several processes that train the tiny model together: `python train_rank.py DATA OUT FORM STOP`.

FORM is "whole" or "sharded"; STOP is the step in which a SIGTERM comes, 0 for none.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import nullcontext
from pathlib import Path

from training import CONFIG, stopping_after

from paraformer.train import parallel
from paraformer.train.loop import train

TOGETHER = dataclasses.replace(CONFIG, steps=5, precision="float32", save_s=1e9, log_steps=1)

if __name__ == "__main__":
    data, out, form, stop = sys.argv[1:]
    config = dataclasses.replace(TOGETHER, sharded=form == "sharded")
    with parallel.joined(), stopping_after(int(stop)) if stop != "0" else nullcontext():
        train(config, Path(data), Path(out))
