"""Inference: photos and videos to bodies."""
