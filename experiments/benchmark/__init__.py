"""jaxnn beside what its users would pick instead: same data, model, minibatch and steps.

Every contender trains in a process of its own that waits until it is asked (``worker.py``), so that
measurements of all of them follow each other in turn and a ratio compares the same moment.
"""
