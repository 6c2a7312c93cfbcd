"""Searches as whole programs, each written as its library's documentation would write it.

``python -m experiments.benchmark.searches.NAME JOB`` prints the accuracies that it measures on the
validation examples.
"""
