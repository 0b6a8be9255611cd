"""Prefect flows around the stages of `deepfm.pipeline`."""
