"""Early stopping
==============

When to stop: early stopping keeps the epoch that does best on points that the network is not trained on.

python examples/early_stopping.py [EPOCHS]
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

from nnx import (
    Accuracy_Categorical,
    Activation_ReLU,
    Activation_Softmax,
    EarlyStopping,
    Layer_Dense,
    Loss_CategoricalCrossentropy,
    Model,
    Optimizer_Adam,
    ReduceRateOnPlateau,
    spiral_data,
)

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 3000

# %%
# 100 points for each arm are too few for so wide a network: it will learn them by heart.
np.random.seed(0)
X, y = spiral_data(samples=100, classes=3)
validation_data = spiral_data(samples=100, classes=3)
X_test, y_test = spiral_data(samples=500, classes=3)  # for the end: nothing is chosen by it


def make() -> Model:
    """Return a wide network for few points, always with the same weights."""
    np.random.seed(0)
    model = Model()
    model.add(Layer_Dense(2, 256))
    model.add(Activation_ReLU())
    model.add(Layer_Dense(256, 3))
    model.add(Activation_Softmax())
    model.set(
        loss=Loss_CategoricalCrossentropy(),
        optimizer=Optimizer_Adam(learning_rate=0.05),
        accuracy=Accuracy_Categorical(),
    )
    model.finalize()
    return model


# %%
# The same network is trained three times: to the end, with early stopping, and with a learning rate that shrinks
# first.
runs = {
    "all epochs": [],
    "early stopping": [EarlyStopping(patience=100)],
    "a smaller rate first": [ReduceRateOnPlateau(patience=8, factor=0.7), EarlyStopping(patience=100)],
}

# %%
# The run with early stopping ends soon after its best epoch, and goes back to it.
figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
for colour, (name, callbacks) in zip(("#D55E00", "#0072B2", "#009E73"), runs.items(), strict=True):
    model = make()
    history = model.train(X, y, epochs=EPOCHS, validation_data=validation_data, callbacks=callbacks, print_every=None)
    found = model.evaluate(X_test, y_test, silent=True)
    print(f"{name}: {len(history.loss)} epochs, test loss {found['loss']:.3f}, accuracy {found['accuracy']:.3f}")
    ax.plot(history.validation_loss, color=colour, linewidth=1.5, label=f"{name}: test loss {found['loss']:.2f}")
    if callbacks and callbacks[-1].best_epoch:
        best = callbacks[-1]
        ax.plot([best.best_epoch - 1], [best.best], "o", color=colour, markersize=9)
ax.set(xlabel="epoch", ylabel="validation loss", title="the best epoch (dots) is kept", ylim=(0, 1.2))
ax.legend(loc="upper right")
figure.savefig("early_stopping.png", dpi=80)
