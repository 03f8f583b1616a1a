"""The network and the body: encoders, regressor, SMPL, CLIFF."""
