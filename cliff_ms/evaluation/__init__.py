"""Evaluation: the published protocols."""
