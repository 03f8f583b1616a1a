"""Synthetic people: poses they take, a world of cameras, what a keypoint detector or a camera sees of them."""
