"""The engines: the same small protocol over torch and over ONNX Runtime."""
