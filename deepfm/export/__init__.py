"""From a trained network to one ONNX file that takes raw values, and the proof that it computes the same."""
