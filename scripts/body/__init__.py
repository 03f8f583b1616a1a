"""The steps of `scripts/build_body.py`: from artist-made CC0 shapes to a body in SMPL format. NumPy and SciPy only."""
