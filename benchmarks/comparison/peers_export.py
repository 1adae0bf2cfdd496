"""FunASR's own export of a model directory, in float32 and int8. Runs in the peers' environment:

    python peers_export.py DIRECTORY

Its recipe was made for torch's older exporter, which has to be asked for by now.
"""

from __future__ import annotations

import logging
import sys
from functools import partial

import torch


def export(directory: str) -> None:
    """Write model.onnx and, live, decoder.onnx into the directory, and the same with `_quant` in the name."""
    from funasr import AutoModel

    torch.onnx.export = partial(torch.onnx.export, dynamo=False)
    model = AutoModel(model=directory, device="cpu", disable_update=True, disable_pbar=True)
    model.export(type="onnx", quantize=True)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    export(sys.argv[1])
