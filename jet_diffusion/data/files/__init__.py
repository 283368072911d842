"""The files people have: what kind a file is, and how its columns are read."""
