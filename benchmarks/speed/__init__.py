"""Speed, ours beside the peer in one process run: `python -m benchmarks.speed.NAME`."""
