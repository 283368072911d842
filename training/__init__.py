"""Scripts that train, sample and publish; each also runs by its path."""
