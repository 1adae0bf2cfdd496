"""Recognition by other packages, as their documentation shows it. Runs where they are installed, which may be another
environment than the tests'. `python peer_runtimes.py` reads lines of JSON, `[RUNTIME, DIR, SIGNALS.npz]`, and prints
one for each: `{"heard": ...}` or `{"failed": ...}`. Imports nothing of ours.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np

RATE, PACKET = 16000, 9600


def sherpa_onnx_whole(directory: Path, signals: list[np.ndarray]) -> list[str]:
    """All recordings in one batch."""
    import sherpa_onnx

    (model,) = directory.glob("model*.onnx")
    recognizer = sherpa_onnx.OfflineRecognizer.from_paraformer(
        paraformer=str(model), tokens=str(directory / "tokens.txt"), num_threads=1
    )
    streams = [recognizer.create_stream() for _ in signals]
    for stream, signal in zip(streams, signals, strict=True):
        stream.accept_waveform(RATE, signal)
    recognizer.decode_streams(streams)
    return [stream.result.text for stream in streams]


def sherpa_onnx_live(directory: Path, signals: list[np.ndarray]) -> list[str]:
    import sherpa_onnx

    (encoder,), (decoder,) = directory.glob("encoder*.onnx"), directory.glob("decoder*.onnx")
    recognizer = sherpa_onnx.OnlineRecognizer.from_paraformer(
        tokens=str(directory / "tokens.txt"), encoder=str(encoder), decoder=str(decoder), num_threads=1
    )
    texts = []
    for signal in signals:
        stream = recognizer.create_stream()
        for start in range(0, len(signal), PACKET):
            stream.accept_waveform(RATE, signal[start : start + PACKET])
            while recognizer.is_ready(stream):
                recognizer.decode_stream(stream)
        stream.input_finished()
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
        texts.append(recognizer.get_result(stream))
    return texts


def funasr_onnx_whole(directory: Path, signals: list[np.ndarray]) -> list[str]:
    """All recordings in one batch, from files."""
    import soundfile
    from funasr_onnx import Paraformer

    quantize = (directory / "model_quant.onnx").exists()
    model = Paraformer(str(directory), batch_size=len(signals), quantize=quantize, intra_op_num_threads=1)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{folder}/{index}.wav" for index in range(len(signals))]
        for name, signal in zip(names, signals, strict=True):
            soundfile.write(name, signal, RATE, subtype="PCM_16")
        return [result["preds"][0] for result in model(names)]


def funasr_onnx_live(directory: Path, signals: list[np.ndarray]) -> list[list[str]]:
    """The text of each packet of 600 ms.

    A last packet takes two steps where it is over 300 ms, and their results joined: `{}` where neither said anything.
    """
    from funasr_onnx.paraformer_online_bin import Paraformer

    quantize = (directory / "model_quant.onnx").exists()
    texts = []
    for signal in signals:
        model = Paraformer(str(directory), chunk_size=[5, 10, 5], quantize=quantize, intra_op_num_threads=1)
        options, starts = {"cache": {}}, range(0, len(signal), PACKET)
        results = []
        for start in starts:
            options["is_final"] = start == starts[-1]
            results.append(model(audio_in=signal[start : start + PACKET], param_dict=options))
        texts.append(["".join(result["preds"][0] for result in one if result) for one in results])
    return texts


def funasr_whole(directory: Path, signals: list[np.ndarray]) -> list[str]:
    import funasr

    model = funasr.AutoModel(model=str(directory), device="cpu", ncpu=1, disable_update=True, disable_pbar=True)
    return [model.generate(input=signal)[0]["text"] for signal in signals]


def funasr_live(directory: Path, signals: list[np.ndarray]) -> list[list[str]]:
    """The text of each packet of 600 ms, with the look-back of the embedded model."""
    import funasr

    model = funasr.AutoModel(model=str(directory), device="cpu", ncpu=1, disable_update=True, disable_pbar=True)
    options = {"chunk_size": [5, 10, 5], "encoder_chunk_look_back": 4, "decoder_chunk_look_back": 1}
    texts = []
    for signal in signals:
        cache, starts, one = {}, range(0, len(signal), PACKET), []
        for start in starts:
            given = {"input": signal[start : start + PACKET], "cache": cache, "is_final": start == starts[-1]}
            one.append(model.generate(**given, **options)[0]["text"])
        texts.append(one)
    return texts


RUNTIMES = {
    "sherpa-onnx": sherpa_onnx_whole,
    "sherpa-onnx live": sherpa_onnx_live,
    "funasr-onnx": funasr_onnx_whole,
    "funasr-onnx live": funasr_onnx_live,
    "funasr": funasr_whole,
    "funasr live": funasr_live,
}


def answer(runtime: str, directory: str, given: str) -> dict[str, object]:
    try:
        with np.load(given) as arrays:
            signals = [arrays[name] for name in sorted(arrays.files)]
        return {"heard": RUNTIMES[runtime](Path(directory), signals)}
    except Exception:  # noqa: BLE001  the test tells of it
        return {"failed": traceback.format_exc()}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    answers, sys.stdout = sys.stdout, sys.stderr  # what the packages print is no answer
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), file=answers, flush=True)
