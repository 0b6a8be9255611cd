"""Retrain DeepFM every day: validate, sample, train, gate, promote one ONNX file, consume it."""
