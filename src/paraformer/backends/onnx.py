"""ONNX Runtime: for every kind of model, without torch. Runs the graphs of `paraformer.contract`. Needs [onnx].

It reports what it runs to its maker unless told not to, from a thread that a forked child waits for when it ends. So it
is told not to, before it is imported.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from weakref import WeakSet

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from paraformer import contract, native
from paraformer.backends import graph_files
from paraformer.backends.base import OfOneProcess
from paraformer.config import ModelConfig
from paraformer.errors import MissingExtra, ModelError, ModelNotFound
from paraformer.weights import Stored, places

try:
    import onnxruntime as ort
except ImportError as error:
    if native.library() is None:
        raise MissingExtra(
            "Recognition without the package's own engine, for which there was neither a wheel nor a C compiler,",
            "onnx",
        ) from error
    raise MissingExtra("Running a model's graphs, as where the package's own engine cannot run it,", "onnx") from error


class OnnxGraph:
    """One graph on the CPU. In a forked child it goes on as it was where that is safe, else it is opened again."""

    def __init__(self, path: Path, threads: int) -> None:
        """threads: of one run, 0 for one per core. Raises ModelError for what is not a graph."""
        self._path, self._threads = path, threads
        self._running = 0
        self._session: ort.InferenceSession | None = self._opened()
        _watch_forks()
        _GRAPHS.add(self)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of these names, given all inputs by name."""
        session = self._session = self._session or self._opened()
        self._running += 1
        try:
            found: list[np.ndarray] = session.run(list(outputs), dict(inputs))
        finally:
            self._running -= 1
        return found

    def _opened(self) -> ort.InferenceSession:
        try:
            return ort.InferenceSession(str(self._path), session_options(self._threads), ["CPUExecutionProvider"])
        except Exception as error:  # the library's own exception types are not public
            raise ModelError(f"{self._path} is not a graph that ONNX Runtime can run: {error}") from error

    def forked(self) -> None:
        """In the child: leave behind a session whose threads are not here, or that a thread was in the midst of.

        Ending it would wait for those threads too, so it never ends. One that was idle and has no threads is good, and
        shares its memory with the parent.
        """
        if self._session is not None and (self._threads != 1 or self._running):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
            self._session, self._running = None, 0


def session_options(threads: int) -> ort.SessionOptions:
    """How graphs are opened; threads as those of `OnnxGraph`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A thread that waits sleeps: one that spins instead keeps others from a processor that is busy anyway, and with
    # two threads on one free processor everything takes twice as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights in 8 bits are made float32 now. Else they would stay as they are, and be made so in every run.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


_GRAPHS: WeakSet[OnnxGraph] = WeakSet()


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    for graph in list(_GRAPHS):
        graph.forked()


class OnnxRunner(OfOneProcess):
    """Runs the exported graphs of a bundle in float32. Graphs are opened when first needed."""

    name = "onnx float32"

    def __init__(self, directory: str | Path, config: ModelConfig, threads: int = 1, *, sealed: bool = False) -> None:
        """threads: of one run, 0 for one per core. sealed: see `graph_files.check`. Raises ModelNotFound if the bundle
        lacks a graph, ModelError for weights that are not finite and graphs that do not fit them or the settings.
        """
        self.directory = Path(directory)
        self.threads = threads
        self._graphs: dict[str, OnnxGraph] = {}
        paths = {graph: self._path(graph) for graph in contract.graphs(config)}
        weights = self.directory / contract.WEIGHTS
        Stored(weights, mapped=True).check_finite()
        stored = places(weights)
        for graph, path in paths.items():
            graph_files.check(path, graph, stored, config, sealed=sealed)
        self._open(contract.encoder(config))

    def run(self, graph: contract.Graph, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """See backends.graphs.Runner."""
        return self._open(graph).run([port.name for port in graph.outputs], inputs)

    def _open(self, graph: contract.Graph) -> OnnxGraph:
        if graph.file not in self._graphs:
            self._graphs[graph.file] = OnnxGraph(self._path(graph), self.threads)
        return self._graphs[graph.file]

    def _path(self, graph: contract.Graph) -> Path:
        path = self.directory / graph.file
        if not path.is_file():
            raise ModelNotFound(
                f"{self.directory} holds no {graph.file}: it was saved without graphs; "
                "run `paraformer convert` on it where torch is installed, or load it with backend='torch'"
            )
        return path
