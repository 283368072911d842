"""Templates of the model and dataset cards."""
