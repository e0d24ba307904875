"""From Keras to the ONNX files of an ensemble."""
