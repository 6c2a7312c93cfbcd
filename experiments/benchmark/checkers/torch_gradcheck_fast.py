"""PyTorch: ``torch.autograd.gradcheck`` with ``fast_mode``, one random direction."""

from functools import partial

from experiments.benchmark.checkers import torch_gradcheck

check_of = partial(torch_gradcheck.check_of, fast_mode=True)
check_softmax = partial(torch_gradcheck.check_softmax, fast_mode=True)
