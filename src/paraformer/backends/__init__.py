"""The same small protocol over torch, over ONNX Runtime and over the package's own engine."""
