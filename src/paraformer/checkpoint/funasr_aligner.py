"""FunASR's aligner, MonotonicAligner, in its words, both ways (variants 2.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paraformer.checkpoint import funasr_config, funasr_writer
from paraformer.checkpoint.form import Form
from paraformer.checkpoint.keys import funasr_names
from paraformer.companions.aligner import config_of, settings_of, shapes
from paraformer.kinds import ALIGNER


def _write(ours: Mapping[str, Any], extras: Mapping[str, Any]) -> dict[str, Any]:
    """That of a BiCif-Paraformer, less what is about a decoder."""
    whole = funasr_writer.write(config_of(ours))
    kept = ("encoder", "encoder_conf", "predictor_conf", "frontend", "frontend_conf", "tokenizer", "tokenizer_conf")
    tokenizer = {
        **whole["tokenizer_conf"],
        "unk_symbol": "<unk>" if "<unk>" in extras["tokens"] else extras["tokens"][0],
    }
    frontend = whole["frontend_conf"] | ({} if extras["cmvn"] else {"cmvn_file": None})
    return {
        "model": funasr_config.ALIGNER,
        "model_conf": {"length_normalized_loss": False, "predictor_bias": 1},
        **{key: whole[key] for key in kept},
        "predictor": "CifPredictorV3",
        "tokenizer_conf": tokenizer,
        "frontend_conf": frontend,
    }


FORM = Form(
    ALIGNER,
    (funasr_config.ALIGNER,),
    "speech-timestamp",
    read=lambda settings, extras: settings_of(funasr_config.read_aligner(settings, len(extras["tokens"]))),
    write=_write,
    shapes=lambda ours: shapes(config_of(ours)),
    theirs=lambda ours: funasr_names(config_of(ours), shapes(config_of(ours))),
    extras=("tokens", "pieces", "cmvn"),
    needed=("tokens", "cmvn"),
)
