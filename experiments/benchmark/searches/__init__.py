"""Searches as whole programs, written after the documentation of each library.

``python -m experiments.benchmark.searches.NAME JOB`` prints every accuracy on the validation
examples.
"""
