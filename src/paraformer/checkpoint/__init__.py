"""Weights on disk: our own bundles, FunASR's directories, and the way between them. Models in torch need its extra."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from paraformer import companions
from paraformer.bundle import Bundle, check_empty, is_ours, making
from paraformer.contract import LM, WEIGHTS
from paraformer.errors import MissingExtra
from paraformer.kinds import COMPANIONS

if TYPE_CHECKING:
    from paraformer.model.paraformer import Paraformer


def open_any(directory: str | Path) -> tuple[Bundle, Paraformer]:
    """Open a model directory of either form; see `native.load` and `funasr.load` for the errors.

    A bundle of ours must be as it was saved: see `Bundle.check`.
    """
    _need_torch()
    from paraformer.checkpoint import funasr, native

    directory = Path(directory)
    if not is_ours(directory):
        return funasr.load(directory)
    bundle, model = native.load(directory)
    bundle.check(WEIGHTS, LM)
    return bundle, model


def convert(source: str | Path, target: str | Path) -> Path:
    """Write a FunASR directory as one of our bundles, or a bundle as a FunASR directory. Returns the target.

    So it is with models that stand beside a recogniser: see `companions`.
    A language model that lies beside the weights goes along: FunASR leaves it alone, and it survives the way back.
    Raises ModelError if the target holds anything already, and what `open_any` raises; then nothing is written.
    """
    _need_torch()
    from paraformer.checkpoint import funasr, funasr_companions, native

    source, target = Path(source), Path(target)
    check_empty(target, f"convert {source} into")
    kind = companions.kind_of(source) if is_ours(source) else funasr_companions.kind_of(source)
    if kind is not None and kind.name in COMPANIONS:
        with making(target) as made:
            if is_ours(source):
                funasr_companions.save(companions.open_directory(source, kind), made)
            else:
                companions.save_directory(funasr_companions.load(source, kind), made)
        return target
    bundle, model = open_any(source)
    with making(target) as made:
        if (source / LM).is_file():
            shutil.copyfile(source / LM, made / LM)
        (funasr if is_ours(source) else native).save(bundle, model, made)
    return target


def _need_torch() -> None:
    if find_spec("torch") is None:
        raise MissingExtra("Opening the weights of a model for torch", "torch")
