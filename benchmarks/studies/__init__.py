"""Quality of models and of metrics: `python -m benchmarks.studies.NAME`."""
