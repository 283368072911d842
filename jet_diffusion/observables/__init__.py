"""Jet observables: hits, substructure and the table of what jets are judged by."""
