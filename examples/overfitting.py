"""Overfitting
===========

A network that learns its few points by heart, and what L1, L2 and dropout do about it (chapters 14, 15).

python examples/overfitting.py [EPOCHS]
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

from nnx import (
    Accuracy_Categorical,
    Activation_ReLU,
    Activation_Softmax,
    History,
    Layer_Dense,
    Layer_Dropout,
    Loss_CategoricalCrossentropy,
    Model,
    Optimizer_Adam,
    spiral_data,
)

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 3000

# %%
# Few points to train on, many to validate with.
np.random.seed(0)
X, y = spiral_data(samples=100, classes=3)
X_val, y_val = spiral_data(samples=500, classes=3)


def train(l1: float, l2: float, dropout: float) -> History:
    """Train a wide network, the same but for what keeps it from learning by heart."""
    np.random.seed(0)
    model = Model()
    model.add(Layer_Dense(2, 256, weight_regularizer_l1=l1, weight_regularizer_l2=l2, bias_regularizer_l2=l2))
    model.add(Activation_ReLU())
    model.add(Layer_Dropout(dropout, seed=0))
    model.add(Layer_Dense(256, 3))
    model.add(Activation_Softmax())
    model.set(
        loss=Loss_CategoricalCrossentropy(),
        optimizer=Optimizer_Adam(learning_rate=0.03, decay=1e-3),
        accuracy=Accuracy_Categorical(),
    )
    model.finalize()
    return model.train(X, y, epochs=EPOCHS, validation_data=(X_val, y_val), print_every=None, progress=True)


# %%
# Three runs: without help, with L1 and L2 penalties, and with dropout in addition.
runs = {
    "as it is": train(l1=0, l2=0, dropout=0),
    "with L1 and L2": train(l1=1e-5, l2=1e-4, dropout=0),
    "with L1, L2 and dropout": train(l1=1e-5, l2=1e-4, dropout=0.05),
}

# %%
# Thin lines are the training loss, thick ones the loss on points that the network was not trained on.
figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
for colour, (name, history) in zip(("#D55E00", "#0072B2", "#009E73"), runs.items(), strict=True):
    print(f"{name}: validation loss {history.validation_loss[-1]:.3f}, at its best {history.validation_loss.min():.3f}")
    ax.plot(history.validation_loss, color=colour, linewidth=2.5, label=f"validation, {name}")
    ax.plot(history.data_loss, color=colour, linewidth=0.6, label=f"training, {name}")
ax.set(xlabel="epoch", ylabel="loss", ylim=(0, 1.2), title="validation loss rises where points are learnt by heart")
ax.legend()
figure.savefig("overfitting.png", dpi=80)
