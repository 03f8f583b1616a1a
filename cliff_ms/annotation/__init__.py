"""The annotator: pseudo-ground truth of section 3.4 of the paper."""
