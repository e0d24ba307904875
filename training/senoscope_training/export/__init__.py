"""Conversion of Keras networks to the ONNX files of an ensemble."""
