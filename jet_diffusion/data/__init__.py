"""Jets on disk and in memory: the HDF5 file, the converted dataset, sparse sets of jets."""
