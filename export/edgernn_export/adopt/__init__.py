"""Anybody's recurrent ONNX file → one whose states are inputs and outputs, proven to stream alike."""
