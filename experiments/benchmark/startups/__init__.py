"""The shortest real run as whole scripts, each as a user of its library would write it.

Softmax regression on scikit-learn's 8x8 digits, in the split of ``jaxnn.data``: 500 minibatches of
100, plain SGD with learning rate 0.5 and an L2 penalty of 1e-4 on the weights, then the accuracy on
the test examples. No script imports more than it needs, and ``python -m`` starts each of them::

    python -m experiments.benchmark.startups.NAME TIME DIGITS

TIME is ``time.time()`` at the start of the process, DIGITS the file for ``script.load``. The last
line that a script prints is ``script.finish``'s.
"""
