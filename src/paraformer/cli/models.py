"""`paraformer convert`, `info` and `pull`: model directories and published names."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path

from paraformer import contract
from paraformer.backends import native
from paraformer.backends.companions import kind_in, opened_companion
from paraformer.bundle import Bundle, check_empty, is_ours, making
from paraformer.certificate.record import Form
from paraformer.cli.computing import computing, faster, needed
from paraformer.cli.export import write
from paraformer.companions import Companion
from paraformer.config import ChunkConfig, ModelConfig
from paraformer.errors import ModelError, ParaformerError
from paraformer.kinds import RECOGNISER
from paraformer.loader import choose, locate, open_settings
from paraformer.weights import SCALE, in_8_bits, places


def convert(options: argparse.Namespace) -> int:
    """Write a FunASR directory as a native one, or a native one as FunASR's; the new directory is printed."""
    from paraformer.checkpoint import convert as convert_directory

    source = locate(options.source)
    if options.graphs and is_ours(source):
        raise ModelError("--graphs goes with a native directory, and this conversion writes one of FunASR's")
    if options.graphs and (kind := kind_in(source)) is not RECOGNISER:
        raise ModelError(f"{source} is {kind.what}, which has no graphs and needs none: leave out --graphs")
    check_empty(options.target, f"convert {source} into")
    with making(options.target) as made:
        convert_directory(source, made)
        if options.graphs:
            write(made, None, Form())
    print(options.target)
    return 0


def info(options: argparse.Namespace) -> int:
    """Print what a model is and what its card says."""
    directory = locate(options.model)
    if (kind := kind_in(directory)) is not RECOGNISER:
        _print(_of_companion(directory, opened_companion(directory, kind)))
        return 0
    if is_ours(directory):
        bundle, parameters = Bundle.open(directory), _parameters(directory)
    else:
        bundle, parameters = _open_foreign(directory)
    _print(_facts(directory, bundle, parameters))
    return 0


def _print(facts: Iterable[tuple[str, object]]) -> None:
    for key, value in facts:
        print(f"{key + ':':<12} {_shown(value)}")


def _of_companion(directory: Path, opened: Companion) -> Iterator[tuple[str, object]]:
    yield "directory", directory
    yield "kind", f"{opened.kind.what}; {opened.kind.use}"
    yield "parameters", f"{sum(opened.weights[name].size for name in opened.weights) / 1e6:.1f} million"
    yield from opened.card.items()


def _parameters(directory: Path) -> int:
    """Number of values in the weights; only the header is read."""
    found = (directory / name for name in (contract.WEIGHTS, contract.PACKED))
    stored = places(next(path for path in found if path.is_file()))
    scales = {name + SCALE for name in in_8_bits(stored)}
    return sum(prod(place.shape) for name, place in stored.items() if name not in scales)


def _open_foreign(directory: Path) -> tuple[Bundle, int]:
    """A FunASR directory, its weights compared with its settings, and the number of their values."""
    from paraformer.checkpoint import funasr_directory, open_any

    bundle = open_settings(directory)
    if native.supports(bundle.config):
        shapes = native.shapes(bundle.config)
        funasr_directory.load_weights(bundle, shapes)
        return bundle, sum(map(prod, shapes.values()))
    bundle, model = open_any(directory)
    return bundle, sum(parameter.numel() for parameter in model.parameters())


def _facts(directory: Path, bundle: Bundle, parameters: int) -> Iterator[tuple[str, object]]:
    config = bundle.config
    yield "directory", directory
    yield "encoder", f"{config.encoder.kind}, {config.encoder.layers} blocks of width {config.encoder.dim}"
    yield "decoder", f"{config.decoder.kind}, {config.decoder.layers} blocks"
    yield "parameters", f"{parameters / 1e6:.1f} million"
    yield "vocabulary", f"{config.vocab_size} items"
    yield "live", _live(config)
    yield from _running(directory, config)
    for key, value in bundle.card.items():
        yield "errors, measured when it was made" if key == "errors" else key, value


def _running(directory: Path, config: ModelConfig) -> Iterator[tuple[str, str]]:
    """What computes it on this machine, as `load` chooses, what that needs, and what would be faster."""
    try:
        choice = choose(directory)
    except ParaformerError as error:
        yield "runs with", f"nothing here: {error}"
        return
    yield "runs with", f"{computing(choice)}, on this machine, {needed(choice)}"
    if better := faster(choice, config):
        yield "faster here", better


def _shown(value: object) -> str:
    """A value of a model card in words: a line for each item of a mapping."""
    match value:
        case dict():
            return "".join(f"\n  {key}: {_shown(item)}" for key, item in value.items())
        case list() | tuple():
            return ", ".join(map(_shown, value))
        case _:
            return str(value)


def _live(config: ModelConfig) -> str:
    if not config.streaming:
        return "no, whole utterances only"
    chunk = config.live or ChunkConfig()
    delay_ms = (chunk.chunk + chunk.right) * config.frontend.window_samples * 1000 // config.frontend.sample_rate
    return f"yes, chunk {chunk.left},{chunk.chunk},{chunk.right}: sound is heard at most {delay_ms} ms after it came"


def pull(options: argparse.Namespace) -> int:
    """Download a model unless it is in the cache; its directory is printed."""
    from paraformer import hub

    print(hub.resolve(options.name, revision=options.revision, download=True))
    return 0
