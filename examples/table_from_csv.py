"""A table
=======

A table: rents of flats from a CSV file with texts and gaps, and answers in the table's own units.

python examples/table_from_csv.py [EPOCHS]
"""

import sys
from pathlib import Path

import numpy as np

from nnx import (
    Accuracy_Regression,
    Activation_Linear,
    Activation_ReLU,
    Layer_Dense,
    Loss_MeanSquaredError,
    Model,
    Optimizer_Adam,
    load_csv,
    plot,
)

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 100

# %%
# ``load_csv`` finds out what each column holds. It turns texts, numbers and gaps into inputs of about the same size.
X, y, X_test, y_test, table = load_csv(Path(__file__).with_name("rents.csv"), target="rent", test_size=0.2, seed=0)
print(table)

# %%
# The table says how many inputs and outputs a model needs. The model keeps the table.
np.random.seed(0)
model = Model()
model.add(Layer_Dense(table.n_inputs, 32, weight_regularizer_l2=1e-3))
model.add(Activation_ReLU())
model.add(Layer_Dense(32, table.n_outputs))
model.add(Activation_Linear())
model.set(
    loss=Loss_MeanSquaredError(),
    optimizer=Optimizer_Adam(learning_rate=0.005),
    accuracy=Accuracy_Regression(),
    table=table,  # kept in the model's file: it leads from raw files to inputs, and from outputs to rents
)
model.finalize()
model.train(X, y, epochs=EPOCHS, batch_size=32, shuffle=True, seed=0, print_every=None, progress=True)
errors = table.decode(model.predict(X_test)) - table.decode(y_test)
print(f"On flats that it has not seen, the model is wrong by {abs(errors).mean():.0f} on average.")
model.save("rents.safetensors")

# %%
# From a new file to rents: the table reads the rows, the model predicts, and the table returns rents.
Path("new_flats.csv").write_text(
    "district,area,rooms,floor,condition,balcony\nHill,60,2,3,good,no\nHarbour,60,2,,new,yes\n"
)
model = Model.load("rents.safetensors")
print("Two new flats:", model.table.decode(model.predict(model.table.read_inputs("new_flats.csv"))).round())

# %%
# Each dot is a flat that the model has not seen.
ax = plot.predictions(model, X_test, y_test)
ax.figure.savefig("table_from_csv.png", dpi=80)
