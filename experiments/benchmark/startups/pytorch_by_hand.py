"""The shortest real run with PyTorch, without ``torch.optim``: its first step imports Dynamo."""

# pyright: reportMissingImports=false
import torch
from torch import nn

from experiments.benchmark.startups import script

script.reached("imports")
torch.set_num_threads(1)  # two are slower
x_train, y_train, x_test, y_test = map(torch.from_numpy, script.load())
torch.manual_seed(0)
model = nn.Linear(64, 10)
for step, rows in enumerate(script.minibatches(len(y_train))):
    loss = nn.functional.cross_entropy(model(x_train[rows]), y_train[rows])
    weight_gradient, bias_gradient = torch.autograd.grad(loss, (model.weight, model.bias))
    with torch.no_grad():
        model.weight.sub_(script.LEARNING_RATE * (weight_gradient + script.L2 * model.weight))
        model.bias.sub_(script.LEARNING_RATE * bias_gradient)
    if step == 0:
        script.reached("first_step")
with torch.no_grad():
    script.finish((model(x_test).argmax(dim=1) == y_test).float().mean().item())
