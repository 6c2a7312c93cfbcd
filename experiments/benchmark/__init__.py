"""jaxnn beside its peers: same data, model, minibatch and steps.

Every contender trains in a process of its own (``worker.py``) and waits for requests, so that the
contenders take turns and a ratio compares measurements of the same minutes.
"""
