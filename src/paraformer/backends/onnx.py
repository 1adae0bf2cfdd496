"""ONNX Runtime: the engine for every processor, and without torch. Runs the graphs of `paraformer.contract`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from paraformer import contract
from paraformer.config import ModelConfig
from paraformer.errors import ModelError, ModelNotFound


class OnnxEngine:
    """Runs the exported graphs of a bundle on the CPU in float32. Graphs are opened when first needed."""

    name = "onnx float32"

    def __init__(self, directory: str | Path, config: ModelConfig, threads: int = 1) -> None:
        """threads: of one run, 0 for one per core. Raises ModelNotFound if the bundle has no graphs."""
        self.directory = Path(directory)
        self.threads = threads
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._open(contract.encoder(config))

    def run(self, graph: contract.Graph, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """See backends.graphs.Engine."""
        outputs: list[np.ndarray] = self._open(graph).run([port.name for port in graph.outputs], dict(inputs))
        return outputs

    def _open(self, graph: contract.Graph) -> ort.InferenceSession:
        if graph.file not in self._sessions:
            path = self.directory / graph.file
            if not path.is_file():
                raise ModelNotFound(
                    f"{self.directory} holds no {graph.file}: it was saved without graphs; "
                    "run `paraformer convert` on it where torch is installed, or load it with backend='torch'"
                )
            options = ort.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            try:
                self._sessions[graph.file] = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
            except Exception as error:  # the engine's own exception types are not public
                raise ModelError(f"{path} is not a graph that the engine can run: {error}") from error
        return self._sessions[graph.file]
