"""From weights to a verified ONNX file."""
