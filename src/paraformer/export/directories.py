"""Whole directories, as each runtime opens them without any change to it or to them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from torch import nn

from paraformer import contract
from paraformer.backends import native as native_engine
from paraformer.backends import panels
from paraformer.bundle import CONFIG_FILE, Bundle
from paraformer.certificate.foreign import row_scale
from paraformer.certificate.record import Form
from paraformer.checkpoint import funasr, funasr_writer, native
from paraformer.config import EOS_ID, ChunkConfig, FrontendConfig, ModelConfig, SanmDecoderConfig
from paraformer.errors import ModelError, UnsupportedModel
from paraformer.export import foreign
from paraformer.export.graphs import export
from paraformer.export.quantize import quantize
from paraformer.export.tracing import trace
from paraformer.frontend import Cmvn
from paraformer.model.paraformer import Paraformer
from paraformer.weights import Storage

logger = logging.getLogger(__name__)

EOS = "</s>"


def write(bundle: Bundle, model: Paraformer, directory: Path, form: Form) -> list[str]:
    """Write a model as `form` asks into a directory, which is made. Returns the names of all files.

    Raises UnsupportedModel where the runtime cannot compute what the model computes, CheckpointError as `export` does.
    """
    directory.mkdir(parents=True, exist_ok=True)
    match form.runtime:
        case "paraformer":
            if form.precision == "int8":
                return _write_packed(bundle, model, directory)
            return _write_paraformer(bundle, model, directory, form.stored)
        case "funasr":
            _write_funasr(bundle, model, directory, form)
        case "funasr-onnx":
            _tell_what_stays(bundle, form)
            _write_funasr_onnx(bundle, model, directory, form)
        case "sherpa-onnx":
            _tell_what_stays(bundle, form)
            _write_sherpa_onnx(bundle, model, directory, form)
    return sorted(path.name for path in directory.iterdir())


def _write_paraformer(bundle: Bundle, model: Paraformer, directory: Path, stored: Storage) -> list[str]:
    """Weights, graphs and settings; where the weights are there already, they stay untouched."""
    if not (directory / contract.WEIGHTS).exists():
        native.save(bundle, model, directory, stored=stored)
    graphs, lm = export(model, directory), _copy_lm(bundle, directory)
    bundle.save(directory)  # last, for the checksums of the graphs
    return [CONFIG_FILE, contract.WEIGHTS, *lm, *(path.name for path in graphs)]


def _write_packed(bundle: Bundle, model: Paraformer, directory: Path) -> list[str]:
    """What the package's own engine maps into memory, and settings."""
    panels.save(native_engine.packed(model.state_dict(), bundle.config), directory / contract.PACKED)
    lm = _copy_lm(bundle, directory)
    bundle.save(directory)
    return [CONFIG_FILE, contract.PACKED, *lm]


def _copy_lm(bundle: Bundle, directory: Path) -> list[str]:
    """The language model goes along, where the model has one. Returns its name."""
    if bundle.directory is None or not (bundle.directory / contract.LM).is_file():
        return []
    if not (directory / contract.LM).exists():
        shutil.copyfile(bundle.directory / contract.LM, directory / contract.LM)
    return [contract.LM]


def _tell_what_stays(bundle: Bundle, form: Form) -> None:
    """What other runtimes do not know, without which they may recognise less well than this package does."""
    if bundle.directory is not None and (bundle.directory / contract.LM).is_file():
        logger.warning(
            "%s has no place for the language model of %s: it stays behind",
            form.runtime,
            bundle.directory,
            extra={"note": True},
        )
    if form.live and bundle.config.predictor.pause_weight:
        logger.warning(
            "%s does not end a sentence at a pause: its last character may wait for the next sentence",
            form.runtime,
            extra={"note": True},
        )


def _write_funasr(bundle: Bundle, model: Paraformer, directory: Path, form: Form) -> None:
    """FunASR has one class for files and another for streams, on the same weights; config.live decides which."""
    _check_mode(bundle.config, form)
    live = (bundle.config.live or ChunkConfig()) if form.live else None
    config, twin = replace(bundle.config, live=live), copy(model)
    twin.config = config
    funasr.save(replace(bundle, config=config), twin, directory)
    _copy_lm(bundle, directory)  # for the way back: FunASR leaves it alone


def _write_funasr_onnx(bundle: Bundle, model: Paraformer, directory: Path, form: Form) -> None:
    settings = funasr_writer.write(bundle.config)
    # The graph of whole utterances puts tokens that are no text last, so that funasr-onnx, which takes the last token
    # for </s> where there is a bias, need not drop it unseen.
    settings["model_conf"]["predictor_bias"] = 0
    # What funasr-onnx scales rows by and makes its acoustic vectors of: what comes out, where that is another width.
    settings["encoder_conf"]["output_size"] = bundle.config.encoder.output_dim
    if isinstance(bundle.config.decoder, SanmDecoderConfig):
        settings["decoder_conf"]["num_blocks"] = bundle.config.decoder.memories
    funasr.save_settings(replace(bundle, cmvn=_cmvn(bundle, form.live)), settings, directory)
    _write_graphs(model, directory, form, {})


def _write_sherpa_onnx(bundle: Bundle, model: Paraformer, directory: Path, form: Form) -> None:
    """What sherpa-onnx knows of a model stands in the first graph's metadata and in tokens.txt (spec 8.4)."""
    _check_sherpa_onnx(bundle, form)
    _write_graphs(model, directory, form, sherpa_onnx_settings(bundle, directory, live=form.live))


def sherpa_onnx_settings(bundle: Bundle, directory: Path, *, live: bool) -> dict[str, str]:
    """Write tokens.txt; returns the metadata of the first graph."""
    lines = (f"{token} {index}\n" for index, token in enumerate(bundle.tokens))
    (directory / "tokens.txt").write_text("".join(lines), encoding="utf-8")
    c, cmvn = bundle.config, _cmvn(bundle, live)
    metadata = {
        "model_type": "paraformer",
        "version": "1",
        "vocab_size": c.vocab_size,
        "lfr_window_size": c.frontend.lfr_m,
        "lfr_window_shift": c.frontend.lfr_n,
        "neg_mean": ",".join(map(str, cmvn.shift)),
        "inv_stddev": ",".join(map(str, cmvn.scale)),
    }
    if live:
        assert isinstance(c.decoder, SanmDecoderConfig)
        metadata["encoder_output_size"] = c.encoder.output_dim
        metadata |= {"decoder_num_blocks": c.decoder.memories, "decoder_kernel_size": c.decoder.kernel}
    return {key: str(value) for key, value in metadata.items()}


def _write_graphs(model: Paraformer, directory: Path, form: Form, metadata: dict[str, str]) -> None:
    """The graphs of another runtime, the first with metadata."""
    model = model.eval()
    for index, (name, (module, graph)) in enumerate(zip(form.graphs, _graphs(model, form), strict=True)):
        path = directory / name
        traced = trace(module, graph, path, fold=True)
        if form.precision == "int8":
            quantize(traced, path)
            traced = onnx.load(path)
        onnx.helper.set_model_props(traced, metadata if index == 0 else {})
        onnx.save(traced, path)


def _graphs(model: Paraformer, form: Form) -> Sequence[tuple[nn.Module, contract.Graph]]:
    """The modules to trace and their tables. Raises UnsupportedModel for a model that these cannot stand for."""
    config = model.config
    if config.encoder.kind != "sanm":
        raise UnsupportedModel(f"{config.encoder.kind} encoders cannot be exported to {form.runtime} yet")
    if config.hotwords is not None:
        raise UnsupportedModel(f"{form.runtime} as we export to it has no place for the hotwords of this model")
    _check_mode(config, form)
    if form.live and config.encoder.front and config.frontend.lfr_m <= config.frontend.lfr_n:
        raise UnsupportedModel(
            f"{form.runtime} cannot tell a live step where it is: the model's windows have no frame that its front "
            "leaves alone; export it without --live"
        )
    if not form.live:
        return [(foreign.WholeGraph(model), foreign.whole(config))]
    return [
        (foreign.LiveEncoderGraph(model), foreign.live_encoder(config)),
        (foreign.LiveDecoderGraph(model), foreign.live_decoder(config)),
    ]


def _check_mode(config: ModelConfig, form: Form) -> None:
    if form.live and not config.streaming:
        raise UnsupportedModel("this model recognises whole utterances only; export it without --live")
    if not form.live and config.training_chunks:
        raise UnsupportedModel("this model has only ever seen chunks and recognises files as streams; add --live")


def _check_sherpa_onnx(bundle: Bundle, form: Form) -> None:
    """Raise for what sherpa-onnx has fixed otherwise."""
    given, fixed = bundle.config.frontend, FrontendConfig()
    if given != (fixed if form.live else replace(fixed, lfr_m=given.lfr_m, lfr_n=given.lfr_n)):
        raise UnsupportedModel(f"sherpa-onnx computes its own features, {fixed}, but the model wants {given}")
    if EOS not in bundle.tokens[EOS_ID : EOS_ID + 1]:
        raise ModelError(f"sherpa-onnx needs {EOS} as item {EOS_ID} of the vocabulary, where this model has another")


def _cmvn(bundle: Bundle, live: bool) -> Cmvn:
    """The model's, or one that changes nothing: both runtimes need one. For live steps with `row_scale`, too."""
    width = bundle.config.frontend.input_dim
    cmvn = bundle.cmvn or Cmvn(np.zeros(width, np.float32), np.ones(width, np.float32))
    return replace(cmvn, scale=cmvn.scale * row_scale(bundle.config)) if live else cmvn
