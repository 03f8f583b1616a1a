"""Data: crops, people found in images, annotations."""
