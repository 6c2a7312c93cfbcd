"""The shortest real run with PyTorch."""

# pyright: reportMissingImports=false
import torch
from torch import nn

from experiments.benchmark.startups import script

script.reached("imports")
torch.set_num_threads(1)  # two are slower
x_train, y_train, x_test, y_test = map(torch.from_numpy, script.load())
torch.manual_seed(0)
model = nn.Linear(64, 10)
optimizer = torch.optim.SGD(
    [{"params": model.weight, "weight_decay": script.L2}, {"params": model.bias}],
    lr=script.LEARNING_RATE,
)
for step, rows in enumerate(script.minibatches(len(y_train))):
    loss = nn.functional.cross_entropy(model(x_train[rows]), y_train[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step == 0:
        script.reached("first_step")
with torch.no_grad():
    script.finish((model(x_test).argmax(dim=1) == y_test).float().mean().item())
