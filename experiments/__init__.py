"""The experiments: one file per question, each run by ``python -m experiments.NAME``."""
