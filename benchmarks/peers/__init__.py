"""Other people's recipes, trained on the same jets: `python -m benchmarks.peers.NAME`."""
