"""The trainer. `train.py` also runs by its path."""
