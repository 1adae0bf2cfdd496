"""The measured systems behind one small interface, each called as its documentation shows it.

Imports each system when it is opened: this file runs in every environment, and only one system is there.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

RATE = 16000
BACKENDS = ("torch", "native")
SECONDS = 8.5
"""Mean length of the files of a batch."""


class Engine(Protocol):
    """One system with one model, for whole audio or for live streams."""

    together: bool
    """Whether it steps several streams faster together than one after another."""
    tokens: int
    """How many tokens the last whole audio had; 0 where the system does not say."""

    def whole(self, samples: np.ndarray) -> str:
        """The text of float32 samples at 16 kHz."""
        ...

    def files(self, paths: Sequence[Path], batch: int) -> list[str]:
        """The texts of many audio files, so many at a time."""
        ...

    def open(self) -> Any:
        """A new live stream."""
        ...

    def step(self, streams: Sequence[Any], packets: Sequence[np.ndarray]) -> list[str]:
        """Take in a packet of each stream and recognise what can be: new text, or all the text so far."""
        ...

    def close(self, stream: Any, packet: np.ndarray) -> str:
        """The end of a stream with its last packet: as `step`."""
        ...


class Unavailable(Exception):
    """A system that cannot do what was asked."""


class Paraformer:
    """Ours: float32 where a backend is named instead of a precision; torch on any device but the CPU."""

    together, tokens = True, 0

    def __init__(self, model: Path, precision: str, look_back: tuple[int, int], threads: int, device: str) -> None:
        from paraformer import ChunkConfig, ParaformerError, load

        backend = "torch" if device != "cpu" else precision if precision in BACKENDS else "auto"
        products = "float32" if precision in BACKENDS else precision
        try:
            self.recognizer = load(
                model, backend=backend, precision=products, threads=threads, device=device, vad=False, lm=False
            )
        except (TypeError, ParaformerError) as error:
            print(error, file=sys.stderr)
            raise Unavailable(f"not available here: {type(error).__name__}") from error
        encoder, decoder = look_back
        self.chunk = ChunkConfig(encoder_look_back=encoder, decoder_look_back=decoder)

    def whole(self, samples: np.ndarray) -> str:
        """See Engine."""
        transcript = self.recognizer.transcribe(samples)
        self.tokens = len(transcript.tokens)
        return transcript.text

    def files(self, paths: Sequence[Path], batch: int) -> list[str]:
        """See Engine."""
        results = self.recognizer.transcribe(list(paths), batch_s=batch * SECONDS)
        return [transcript.text for transcript in results]

    def open(self) -> Any:
        """See Engine."""
        return self.recognizer.stream(self.chunk)

    def step(self, streams: Sequence[Any], packets: Sequence[np.ndarray]) -> list[str]:
        """See Engine."""
        for stream, packet in zip(streams, packets, strict=True):
            stream.feed(packet)
        return self.recognizer.advance(list(dict.fromkeys(streams)))

    def close(self, stream: Any, packet: np.ndarray) -> str:
        """See Engine."""
        return stream.accept(packet) + stream.finish()


class FunAsr:
    """FunASR in PyTorch; int8 is torch's dynamic quantisation of its linear layers."""

    together, tokens = False, 0

    def __init__(self, model: Path, precision: str, look_back: tuple[int, int], threads: int, device: str) -> None:
        import torch
        from funasr import AutoModel

        options = {"disable_update": True, "disable_pbar": True, "ncpu": threads}
        self.model = AutoModel(model=str(model), device=device, **options)
        if precision == "int8":
            quantize = torch.ao.quantization.quantize_dynamic
            self.model.model = quantize(self.model.model, {torch.nn.Linear}, dtype=torch.qint8)
        torch.set_num_threads(threads)
        encoder, decoder = look_back
        self.live = {"encoder_chunk_look_back": encoder, "decoder_chunk_look_back": decoder, "chunk_size": [5, 10, 5]}

    def whole(self, samples: np.ndarray) -> str:
        """See Engine."""
        return self.model.generate(input=samples)[0]["text"]

    def files(self, paths: Sequence[Path], batch: int) -> list[str]:
        """See Engine."""
        found = self.model.generate(input=[str(path) for path in paths], batch_size=batch)
        return [result["text"] for result in found]

    def open(self) -> Any:
        """See Engine."""
        return {}

    def step(self, streams: Sequence[Any], packets: Sequence[np.ndarray]) -> list[str]:
        """See Engine."""
        return [self._accept(*pair, final=False) for pair in zip(streams, packets, strict=True)]

    def close(self, stream: Any, packet: np.ndarray) -> str:
        """See Engine."""
        return self._accept(stream, packet, final=True)

    def _accept(self, stream: Any, packet: np.ndarray, *, final: bool) -> str:
        return self.model.generate(input=packet, cache=stream, is_final=final, **self.live)[0]["text"]


class FunAsrOnnx:
    """funasr-onnx, which has no look-back."""

    together, tokens = False, 0

    def __init__(self, model: Path, precision: str, look_back: tuple[int, int], threads: int, device: str) -> None:
        if device != "cpu" or look_back != (0, 0):
            raise Unavailable("funasr-onnx has no look-back, and is measured on the CPU")
        live = (model / "decoder.onnx").exists()
        options = {"quantize": precision == "int8", "intra_op_num_threads": threads}
        if live:
            from funasr_onnx.paraformer_online_bin import Paraformer

            self.model = Paraformer(str(model), chunk_size=[5, 10, 5], **options)
        else:
            from funasr_onnx import Paraformer

            self.model = Paraformer(str(model), **options)

    def whole(self, samples: np.ndarray) -> str:
        """See Engine."""
        return self.model(samples)[0]["preds"][0]

    def files(self, paths: Sequence[Path], batch: int) -> list[str]:
        """See Engine."""
        self.model.batch_size = batch
        return [result["preds"][0] for result in self.model([str(path) for path in paths])]

    def open(self) -> Any:
        """A stream of its own: the package keeps what is left of the samples in the model object."""
        model = copy.copy(self.model)
        model.frontend = copy.copy(self.model.frontend)
        model.frontend.cache_reset()
        return model, {}

    def step(self, streams: Sequence[Any], packets: Sequence[np.ndarray]) -> list[str]:
        """See Engine."""
        return [self._accept(*pair, final=False) for pair in zip(streams, packets, strict=True)]

    def close(self, stream: Any, packet: np.ndarray) -> str:
        """See Engine."""
        return self._accept(stream, packet, final=True)

    @staticmethod
    def _accept(stream: Any, packet: np.ndarray, *, final: bool) -> str:
        model, cache = stream
        results = model(audio_in=packet, param_dict={"cache": cache, "is_final": final})
        return "".join(result["preds"][0] for result in results)


class SherpaOnnx:
    """sherpa-onnx, whose live steps are [5, 10, 3] without look-back and wait for a little more than a packet."""

    together, tokens = False, 0  # `decode_streams` of a live Paraformer steps one stream after another

    def __init__(self, model: Path, precision: str, look_back: tuple[int, int], threads: int, device: str) -> None:
        import sherpa_onnx

        if device != "cpu" or look_back != (0, 0):
            raise Unavailable("sherpa-onnx has no look-back, and is measured on the CPU")
        suffix = ".int8.onnx" if precision == "int8" else ".onnx"
        options = {"tokens": str(model / "tokens.txt"), "num_threads": threads}
        if (model / "decoder.onnx").exists():
            graphs = {name: str(model / f"{name}{suffix}") for name in ("encoder", "decoder")}
            self.recognizer = sherpa_onnx.OnlineRecognizer.from_paraformer(**graphs, **options)
        else:
            graph = str(model / f"model{suffix}")
            self.recognizer = sherpa_onnx.OfflineRecognizer.from_paraformer(paraformer=graph, **options)

    def whole(self, samples: np.ndarray) -> str:
        """See Engine."""
        return self._whole([samples])[0]

    def files(self, paths: Sequence[Path], batch: int) -> list[str]:
        """See Engine."""
        import soundfile

        groups = [paths[start : start + batch] for start in range(0, len(paths), batch)]
        return [
            text for group in groups for text in self._whole([soundfile.read(p, dtype="float32")[0] for p in group])
        ]

    def _whole(self, signals: Sequence[np.ndarray]) -> list[str]:
        streams = [self.recognizer.create_stream() for _ in signals]
        for stream, samples in zip(streams, signals, strict=True):
            stream.accept_waveform(RATE, samples)
        self.recognizer.decode_streams(streams)
        return [stream.result.text for stream in streams]

    def open(self) -> Any:
        """See Engine."""
        return self.recognizer.create_stream()

    def step(self, streams: Sequence[Any], packets: Sequence[np.ndarray]) -> list[str]:
        """See Engine."""
        for stream, packet in zip(streams, packets, strict=True):
            stream.accept_waveform(RATE, packet)
        return self._decode(streams)

    def close(self, stream: Any, packet: np.ndarray) -> str:
        """See Engine."""
        stream.accept_waveform(RATE, packet)
        stream.input_finished()
        return self._decode([stream])[0]

    def _decode(self, streams: Sequence[Any]) -> list[str]:
        while ready := [stream for stream in streams if self.recognizer.is_ready(stream)]:
            self.recognizer.decode_streams(ready)
        return [self.recognizer.get_result(stream) for stream in streams]


ENGINES = {"paraformer": Paraformer, "funasr": FunAsr, "funasr-onnx": FunAsrOnnx, "sherpa-onnx": SherpaOnnx}
