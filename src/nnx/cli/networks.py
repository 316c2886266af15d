"""The single network of `nnx train`: what its settings make of it, and its training."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import nnx
from nnx._base.interrupt import Interrupt
from nnx._base.vocabulary import by_name
from nnx.cli import tasks
from nnx.cli.arguments import sentence
from nnx.data.sheet import count
from nnx.schedules import OVER_STEPS

OPTIMIZERS = by_name("optimizer", "Optimizer_")
ACTIVATIONS = by_name("layer", "Activation_")
LOSSES = by_name("loss", "Loss_")
#: The losses that suit the last layer of a task, the first of them unless another is chosen. Numbers are standardized:
#: some are below 0, which those of Poisson's must not be.
SUITABLE = {
    tasks.SOFTMAX: ("categoricalcrossentropy",),
    tasks.SIGMOID: ("binarycrossentropy", "hinge"),
    tasks.LINEAR: tuple(name for name, kind in LOSSES.items() if kind._predicts == "numbers" and name != "poisson"),
}


def described(task: tasks.Task, settings: tasks.Settings) -> str:
    """Return the line about the network and how it is trained."""
    sizes = (task.table.n_inputs, *settings.layers, _n_outputs(task, _loss(task, settings)))
    parts = [f"{settings.optimizer}, rate {settings.rate:g}", f"decay {settings.decay:g}", f"batch {settings.batch}"]
    parts += [f"{name} {value:g}" for name in ("l2", "dropout") if (value := getattr(settings, name))]
    parts += ["products in bfloat16"] if settings.precision == "bfloat16" else []
    parts += [settings.activation] if settings.activation != "relu" else []
    parts += [f"loss {settings.loss}"] if settings.loss is not None else []
    parts += [f"schedule {settings.schedule}"] if settings.schedule is not None else []
    parts += [f"patience {settings.patience}"] if settings.patience is not None else []
    return f"Training {'-'.join(map(str, sizes))} for {count(settings.epochs, 'epoch')} ({', '.join(parts)})."


def _loss(task: tasks.Task, settings: tasks.Settings) -> Any:
    return LOSSES[settings.loss or SUITABLE[task.output][0]]()


def _n_outputs(task: tasks.Task, loss: Any) -> int:
    if task.output == tasks.SIGMOID:
        return 1
    return task.table.n_outputs * (len(loss.quantiles) if isinstance(loss, nnx.Loss_Pinball) else 1)


def build(task: tasks.Task, settings: tasks.Settings, seed: int) -> nnx.Model:
    """Return the network; its hidden layers begin with weights of He's scale, √(2/inputs).

    With the book's 0.01 the sine stays flat over its second half for two seeds in three, and images and houses are
    learnt less well in the same time.
    """
    model = nnx.Model()
    loss = _loss(task, settings)
    width = task.table.n_inputs
    for number, n_neurons in enumerate(settings.layers):
        dense = nnx.Layer_Dense(width, n_neurons, weight_regularizer_l2=settings.l2)
        dense.weights *= (2 / width) ** 0.5 / 0.01
        model.add(dense)
        model.add(ACTIVATIONS[settings.activation]())
        if settings.dropout:
            model.add(nnx.Layer_Dropout(settings.dropout, seed=seed + number))
        width = n_neurons
    model.add(nnx.Layer_Dense(width, _n_outputs(task, loss)))
    activation, accuracy = {
        tasks.SOFTMAX: (nnx.Activation_Softmax, nnx.Accuracy_Categorical()),
        tasks.SIGMOID: (nnx.Activation_Sigmoid, nnx.Accuracy_Categorical(binary=True)),
        tasks.LINEAR: (nnx.Activation_Linear, nnx.Accuracy_Regression()),
    }[task.output]
    model.add((activation if loss._pair is not None or task.output == tasks.LINEAR else nnx.Activation_Linear)())
    n_steps = settings.epochs * -(-task.n_rows // settings.batch)
    schedule = None if settings.schedule is None else OVER_STEPS[settings.schedule](n_steps)
    optimizer = OPTIMIZERS[settings.optimizer](learning_rate=settings.rate, decay=settings.decay, schedule=schedule)
    model.set(loss=loss, optimizer=optimizer, accuracy=accuracy)
    if isinstance(task.table, nnx.Images):
        model.set(images=task.table)
    else:
        model.set(table=task.table)
    model.finalize()
    return model


def keywords(task: tasks.Task, settings: tasks.Settings, seed: int) -> dict[str, Any]:
    """Return the arguments of `Model.train` that every training of such a network has."""
    return {
        "epochs": settings.epochs,
        "batch_size": settings.batch,
        "print_every": None,
        "validation_data": task.validation,
        "shuffle": True,
        "seed": seed,
        "precision": settings.precision,
        "callbacks": None if settings.patience is None else [nnx.EarlyStopping(patience=settings.patience)],
    }


@contextmanager
def terminating() -> Iterator[Callable[[], int]]:
    """Let SIGTERM end a training as Ctrl-C does; yields what returns the exit code for a training that was ended.

    So does Ctrl-C in the background of a script, where it is ignored: between two steps.
    """
    terminated = False

    def terminate(number: int, frame: Any) -> None:
        nonlocal terminated
        terminated = True
        Interrupt.request(number, frame)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield lambda: 143 if terminated else 130
    finally:
        signal.signal(signal.SIGTERM, before)


def train(model: nnx.Model, task: tasks.Task, settings: tasks.Settings, chosen: argparse.Namespace) -> int:
    """Train with a progress bar; return 0, or the exit code for what ended it early."""
    with terminating() as code:
        try:
            model.train(
                *task.training_data,
                **keywords(task, settings, chosen.seed) | {"validation_data": task.validation or task.held_out},
                progress=True,
                checkpoint=chosen.checkpoint or chosen.resume,
                checkpoint_every=chosen.checkpoint_every or "60s",
                resume=chosen.resume,
            )
        except KeyboardInterrupt:
            return code()
        except OSError as error:  # a checkpoint could not be written; the model can be saved all the same
            print(f"nnx train: {sentence(error)}", file=sys.stderr)
            return 1
        except ValueError as error:  # of a checkpoint of another run
            chosen.parser.refuse(sentence(error))
    return 0


def train_folds(each: Sequence[tuple[tasks.Task, nnx.Model, tasks.Settings]], seed: int) -> None:
    """Train the networks of a cross-validation, as many at once as there are threads, with a bar that counts them."""
    runs = [nnx.Run(model, task.X, task.y, **keywords(task, settings, seed)) for task, model, settings in each]
    nnx.train_many(runs, progress=True)
