"""jaxnn beside its peers: equal data, models, minibatches and numbers of steps.

Every contender trains in a process (``contender.py``) and waits for requests: the contenders take
turns, and a ratio compares measurements of the same minutes.
"""
