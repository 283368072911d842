"""Pictures of jets and of training, on shared scales and colours."""
