"""Models as ONNX has them: what a tape records, call by call."""
