"""The shortest real run with PyTorch."""

# pyright: reportMissingImports=false
import torch
from torch import nn

from experiments.benchmark.startups import L2, LEARNING_RATE
from experiments.benchmark.startups.digits import load, minibatches
from experiments.benchmark.startups.stopwatch import finish, reached

reached("imports")
torch.set_num_threads(1)  # two are slower
x_train, y_train, x_test, y_test = map(torch.from_numpy, load())
torch.manual_seed(0)
model = nn.Linear(64, 10)
optimizer = torch.optim.SGD(
    [{"params": model.weight, "weight_decay": L2}, {"params": model.bias}], lr=LEARNING_RATE
)
for step, rows in enumerate(minibatches(len(y_train))):
    loss = nn.functional.cross_entropy(model(x_train[rows]), y_train[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step == 0:
        reached("first_step")
with torch.no_grad():
    finish((model(x_test).argmax(dim=1) == y_test).float().mean().item())
