"""Uploads: kept in private files, decoded, cut, and recognised piece by piece behind live streams."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from time import monotonic

from paraformer.audio import SAMPLE_RATE
from paraformer.errors import ParaformerError, attempt
from paraformer.recordings import join_segments
from paraformer.serve import decoding
from paraformer.serve.config import Limits
from paraformer.serve.protocol import Done, Failed, News, Sentence
from paraformer.serve.scheduler import Scheduler
from paraformer.types import Segment, Transcript

THREADS = 2
"""Files that are decoded at a time."""


class Busy(ParaformerError):
    """The server has as much to do as it takes; come back later."""


class TooBig(ParaformerError):
    """More bytes than are taken."""


class Spool:
    """Bytes of one upload, in a file without a name: it is gone with this process, however that ends."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.upload
        self._file = tempfile.TemporaryFile(prefix="paraformer-", buffering=0)  # noqa: SIM115
        self.size = 0

    def fileno(self) -> int:
        """For the process that decodes it."""
        return self._file.fileno()

    def append(self, data: bytes) -> None:
        """Take in more. Raises TooBig above the limit, and OSError where there is no room."""
        self.size += len(data)
        if self.size > self._most:
            raise TooBig(f"the audio is larger than {self._most} bytes, which is the most that is taken here")
        rest = memoryview(data)
        while rest:  # where there is little room, a part is written, and the next call fails
            rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        """Let go of the bytes."""
        self._file.close()


@dataclass(eq=False)
class Job:
    """One file that is recognised or waits. rate: of headerless 16-bit samples, None where the content tells."""

    spool: Spool
    rate: int | None
    hotwords: tuple[str, ...]
    listener: Callable[[News], None]
    deadline: float
    gone: Event = field(default_factory=Event)

    def cancel(self) -> None:
        """Nobody waits for it."""
        self.gone.set()


class Files:
    """Recognises uploads, a few at a time, the others waiting in a bounded queue."""

    def __init__(self, scheduler: Scheduler, limits: Limits, threads: int = THREADS) -> None:
        self._scheduler, self._limits = scheduler, limits
        self._pool = ThreadPoolExecutor(threads, "paraformer-files")
        self._jobs: set[Job] = set()

    @property
    def jobs(self) -> int:
        """Files that are recognised or wait."""
        return len(self._jobs)

    @property
    def size(self) -> int:
        """Their bytes."""
        return sum(job.spool.size for job in list(self._jobs))

    def submit(
        self, spool: Spool, rate: int | None, hotwords: tuple[str, ...], listener: Callable[[News], None]
    ) -> Job:
        """Recognise an upload, which is closed in the end; the listener is called in another thread: Sentence by
        Sentence, then Done or Failed. Raises Busy if too many wait.
        """
        if len(self._jobs) >= self._limits.jobs:
            spool.close()
            raise Busy("too many files wait to be recognised; come back later")
        job = Job(spool, rate, hotwords, listener, monotonic() + self._limits.wait_s)
        self._jobs.add(job)
        self._pool.submit(self._run, job)
        return job

    def give_up(self) -> None:
        """Tell those whose files are not recognised yet that they will not be."""
        for job in list(self._jobs):
            if not job.gone.is_set():
                job.cancel()
                job.listener(Failed(Busy("the server stops before the file is recognised; send it again")))

    def stop(self) -> None:
        """Take no more, and let go of what waits."""
        self.give_up()
        self._pool.shutdown(wait=True, cancel_futures=False)

    def _run(self, job: Job) -> None:
        transcript = Transcript("", 0.0, ())
        with attempt("the audio") as work:
            if monotonic() > job.deadline and not job.gone.is_set():
                raise Busy("the file waited too long for its turn; come back later")
            transcript = self._recognized(job)
        job.spool.close()
        self._jobs.discard(job)
        if not job.gone.is_set():
            job.listener(Failed(work.error) if work.error is not None else Done(transcript))

    def _recognized(self, job: Job) -> Transcript:
        """The transcript, its segments told one by one."""
        counted = _Counted(job)
        segments: list[Segment] = []
        blocks = decoding.blocks(job.spool.fileno(), job.rate, self._limits)
        tool = self._scheduler.listening_for(job.hotwords)
        for start_s, samples in tool.pieces(counted(blocks)):
            for segment in self._scheduler.recognize(samples, start_s, tool).result():
                segments.append(segment)
                job.listener(Sentence(segment))
            if job.gone.is_set():
                break
        text = join_segments(segment.text for segment in segments)
        return Transcript(text, counted.samples / SAMPLE_RATE, tuple(segments))


class _Counted:
    """Samples on their way, counted, up to where nobody wants more."""

    def __init__(self, job: Job) -> None:
        self.samples = 0
        self._job = job

    def __call__(self, blocks: Iterator[decoding.Block]) -> Iterator[decoding.Block]:
        for block in blocks:
            if self._job.gone.is_set():
                return
            self.samples += len(block)
            yield block
