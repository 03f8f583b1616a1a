"""Files, images and videos in and out; nothing of ours is imported here but errors."""
