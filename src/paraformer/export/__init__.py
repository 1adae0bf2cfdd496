"""Models for other installs and other runtimes: graphs and whole directories, each with a certificate."""

from paraformer.export.graphs import export

__all__ = ["export"]
