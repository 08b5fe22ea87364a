"""Anybody's recurrent ONNX file → one with its states as inputs and outputs, proven alike."""
