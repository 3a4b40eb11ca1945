"""The training run and its phases."""
