"""`paraformer calibrate`: confidences of a model that can be relied on, learnt from recordings with their texts."""

from __future__ import annotations

import argparse
from dataclasses import replace

import paraformer
from paraformer.bundle import Bundle
from paraformer.certificate.record import FILE as CERTIFICATE
from paraformer.cli.complain import complain
from paraformer.cli.evaluate import opened
from paraformer.cli.options import loading
from paraformer.confidence import Calibration
from paraformer.evaluate.calibration import calibrate as learnt
from paraformer.evaluate.calibration import clear_as_speech
from paraformer.evaluate.normalise import Normalizer


def calibrate(options: argparse.Namespace) -> int:
    """Fit a curve for each way to recognise, write them, and say what came of it. Returns 1 if any utterance failed."""
    bundle = Bundle.open(options.model)
    utterances, unusable = opened(options.data, options.channel)
    for failure in unusable:
        complain(failure.error, failure.id)
    recognizer = paraformer.load(options.model, **loading(options))
    batch = {} if options.batch is None else {"batch_s": options.batch}
    fits, failures = learnt(recognizer, utterances, Normalizer(), **batch)
    for failure in {one.id: one for one in failures}.values():
        complain(failure.error, failure.id)
    curves = {mode: found.curve for mode, found in fits.items()}
    calibration = Calibration(**curves, speech=clear_as_speech(recognizer, utterances))
    replace(bundle, confidence=calibration).save(options.model)
    if (options.model / CERTIFICATE).is_file():
        complain("the certificate is of the model as it was; make it anew with `paraformer export`", str(options.model))
    for mode, found in fits.items():
        print(f"{mode}: expected calibration error {found.before:.3f} -> {found.after:.3f}, {found.tokens} tokens")
    if calibration.speech:
        print(f"what is heard less clearly than {calibration.speech:.2f} is taken for noise")
    return 1 if unusable or failures else 0
