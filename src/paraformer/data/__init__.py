"""Speech archives and manifests to training batches, on lhotse."""
