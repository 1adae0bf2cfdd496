"""The calls of ModelScope's model card and of FunASR, so that a program runs with only its import lines changed.

    from paraformer.compat import AutoModel, Tasks, pipeline

The live session of a stream is kept in the caller's own `cache` dict, under a private key, and leaves it with
`is_final=True`: the same dict then starts a new stream. Results are this package's: no audio is dropped at the end and
no dither is added (docs/quirks.md). Foreign spellings stay in this package.
"""

from __future__ import annotations

from paraformer.compat.automodel import AutoModel, Pipeline, Tasks, pipeline
from paraformer.compat.options import Options, StreamOptions

__all__ = ["AutoModel", "Options", "Pipeline", "StreamOptions", "Tasks", "pipeline"]
