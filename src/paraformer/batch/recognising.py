"""Recognition as the work of many: a key of the sound, the model and all options, and rows of text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paraformer import __version__
from paraformer.audio import Channel
from paraformer.backends.kept import sharing
from paraformer.batch.places import Input
from paraformer.batch.worker import Reading, digest_of_file, state_of_file
from paraformer.bundle import digest_of_spots
from paraformer.errors import ConfigError, ModelError, ParaformerError
from paraformer.hotwords import listed
from paraformer.loader import choose, load, locate
from paraformer.records import record
from paraformer.types import Transcript


@dataclass(frozen=True)
class Recognition:
    """What is asked for, the same on every machine. options: of `paraformer.load`."""

    model: str | None
    options: Mapping[str, Any]
    tokens: bool
    channel: Channel
    batch_s: float
    identity: str
    """A digest of the model and of all that decides what it says."""

    @classmethod
    def of(
        cls, model: str | None, options: Mapping[str, Any], *, tokens: bool, channel: Channel, batch_s: float
    ) -> Recognition:
        """With the engine that is chosen here, since another processor might choose another. Raises as `load`."""
        settled = {name: _anywhere(value) for name, value in options.items()}
        model = _anywhere(model)
        if settled.get("threads", 1) < 1:
            raise ConfigError("threads must be at least 1 on a cluster: by their number its processors are shared out")
        if settled.get("hotwords") is not None:
            settled["hotwords"] = list(listed(settled["hotwords"]))
        asked = {name: settled[name] for name in ("precision", "device") if name in settled}
        choice = choose(locate(model), settled.get("backend", "auto"), **asked)
        settled |= {"backend": choice.backend, "precision": choice.precision}
        asked_for = {name: value for name, value in settled.items() if name != "threads"}
        said = json.dumps([__version__, asked_for, tokens, channel], sort_keys=True, default=str)
        identity = hashlib.sha256((_content(locate(model)) + said).encode()).hexdigest()
        return cls(model, settled, tokens, channel, batch_s, identity)

    def __call__(self, alive: Callable[[], None]) -> Recognising:
        """On this machine. Raises ModelError if the model is another one here."""
        if self != type(self).of(
            self.model, self.options, tokens=self.tokens, channel=self.channel, batch_s=self.batch_s
        ):
            raise ModelError(
                f"{self.model} or the version of paraformer is not the same on all machines; install the same on each"
            )
        return Recognising(self, alive)


class Recognising:
    """A recogniser at work."""

    def __init__(self, asked: Recognition, alive: Callable[[], None]) -> None:
        self._asked, self._alive = asked, alive
        with sharing():  # among the workers of a machine; recognition of whole files is as fast so
            self._recognizer = load(asked.model, **asked.options)

    def state(self, one: Input) -> object:
        """See Work.state."""
        return state_of_file(one.place)

    def key(self, one: Input) -> str:
        """See Work.key."""
        return hashlib.sha256((digest_of_file(one, self._alive) + self._asked.identity).encode()).hexdigest()

    def results(self, inputs: Iterable[Input]) -> Iterator[Mapping[str, Any] | ParaformerError]:
        """See Work.results."""
        heard = self._recognizer.transcribe_each(
            self._files(inputs), channel=self._asked.channel, batch_s=self._asked.batch_s
        )
        for one in heard:
            yield record(one, tokens=self._asked.tokens) if isinstance(one, Transcript) else one

    def _files(self, inputs: Iterable[Input]) -> Iterator[Any]:
        """Each open until the next one is asked for."""
        for one in inputs:
            with closing(Reading(one, self._alive)) as file:
                yield file


def _anywhere(option: Any) -> Any:
    """A directory from the root; other values, names of published models among them, as they are."""
    return str(Path(option).absolute()) if isinstance(option, str | Path) and Path(option).is_dir() else option


def _content(directory: Path) -> str:
    """A digest of the files of a model, each by some spots of it."""
    found = sorted(path for path in directory.iterdir() if path.is_file())
    return "".join(f"{path.name} {digest_of_spots(path)}\n" for path in found)
