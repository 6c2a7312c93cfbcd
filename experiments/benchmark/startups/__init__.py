"""The shortest real run as whole scripts, written as a user of the library would.

Softmax regression on scikit-learn's 8x8 digits, in the split of ``jaxnn.data``: 500 minibatches of
100, plain SGD with learning rate 0.5 and an L2 penalty of 1e-4 on the weights, then the accuracy on
the test examples. All scripts import no more than necessary; ``python -m`` starts a script::

    python -m experiments.benchmark.startups.NAME TIME DIGITS

TIME is ``time.time()`` at the start of the process, DIGITS the file for ``script.load``. A script's
last line comes from ``script.finish``.
"""
