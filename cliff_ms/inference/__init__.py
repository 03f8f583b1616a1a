"""Inference: images and videos to bodies."""
