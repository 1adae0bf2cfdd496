"""Weights of a stage of `recipes.whisper_zh` in two files small enough to commit, and the model directory of them.

    python -m recipes.stages pack runs/head/bundle WHISPER recipes/weights/NAME
    python -m recipes.stages unpack recipes/weights/NAME WHISPER runs/NAME

NAME.json holds the settings and the card, NAME.head.safetensors all but Whisper's encoder in float16, and
NAME.encoder.safetensors the encoder's matrices as differences from Whisper's, in 8 bits and a scale for every row.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from paraformer.bundle import CONFIG_FILE, Bundle
from paraformer.checkpoint import native, whisper
from paraformer.contract import WEIGHTS
from paraformer.model.paraformer import Paraformer
from paraformer.weights import SCALE


def pack(model: Path, whisper_dir: Path, out: Path) -> None:
    """Write OUT.json, OUT.head.safetensors and OUT.encoder.safetensors of a model directory."""
    bundle, found = native.load(model)
    start = whisper.encoder_weights(whisper_dir, bundle.config, bundle.cmvn)
    encoder: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    for name, tensor in found.state_dict().items():
        if name in start and tensor.dim() == 2:
            encoder |= _differences(name, tensor - start[name])
        else:
            (encoder if name in start else head)[name] = tensor.half()
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(encoder, f"{out}.encoder.safetensors")
    save_file(head, f"{out}.head.safetensors")
    shutil.copyfile(model / CONFIG_FILE, f"{out}.json")


def unpack(packed: Path, whisper_dir: Path, out: Path) -> None:
    """Write the model directory that `pack` was given, to the precision of 8 bits of what was learnt."""
    bundle = _settings(Path(f"{packed}.json"))
    start = whisper.encoder_weights(whisper_dir, bundle.config, bundle.cmvn)
    weights = load_file(f"{packed}.head.safetensors") | load_file(f"{packed}.encoder.safetensors")
    model = Paraformer(bundle.config)
    model.load_state_dict({name: _whole(name, weights, start) for name in model.state_dict()})
    native.save(bundle, model.eval(), out, stored="float16")


def _differences(name: str, difference: Tensor) -> dict[str, Tensor]:
    scale = (difference.abs().amax(1, keepdim=True) / 127).clamp(min=1e-12)
    return {name: (difference / scale).round().to(torch.int8), name + SCALE: scale}


def _whole(name: str, weights: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
    tensor = weights[name].float()
    return start[name] + tensor * weights[name + SCALE] if name + SCALE in weights else tensor


def _settings(path: Path) -> Bundle:
    """The bundle of a config.json alone."""
    with TemporaryDirectory() as directory:
        shutil.copyfile(path, Path(directory) / CONFIG_FILE)
        (Path(directory) / WEIGHTS).touch()
        return dataclasses.replace(Bundle.open(directory), directory=None, seal={}, weights=None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Pack and unpack the weights of a stage")
    parser.add_argument("command", choices=["pack", "unpack"])
    parser.add_argument("source", type=Path)
    parser.add_argument("whisper", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    {"pack": pack, "unpack": unpack}[options.command](options.source, options.whisper, options.out)


if __name__ == "__main__":
    main()
