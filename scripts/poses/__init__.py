"""Parts of `scripts/build_poses.py`: readers of motion files, and the rule that brings them to SMPL's joints."""
