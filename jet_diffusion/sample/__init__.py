"""A small simulated stand-in of the quark/gluon file, for the demo and the tests."""
