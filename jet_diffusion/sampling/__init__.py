"""Sample a pipeline for evaluation: batches, sweeps over solvers and steps, imputation."""
