"""Bad input: one clear sentence refuses it, and nothing has changed."""

from __future__ import annotations

import numpy as np
import pytest
from networks import binary, classifier, parameters_of, regression

import nnx
from nnx._base.vocabulary import BUILT_IN

X, Y = np.ones((12, 2)), np.arange(12) % 3

TRAIN = {
    "too few columns": ((np.ones((12, 1)), Y), {}, ValueError, r"X must have shape \(n, 2\), got \(12, 1\)\."),
    "one axis": ((np.ones(12), Y), {}, ValueError, r"X must have shape \(n, 2\), got \(12,\)\."),
    "no rows": ((np.ones((0, 2)), []), {}, ValueError, r"X must have at least one row, got none\."),
    "text": (([["a", "b"]], [0]), {}, TypeError, r"X must be an array of real numbers, got dtype <U1\."),
    "complex": ((X + 1j, Y), {}, TypeError, r"X must be an array of real numbers, got dtype complex128\."),
    "objects": ((X.astype(object), Y), {}, TypeError, r"X must be an array of real numbers, got dtype object\."),
    "ragged": (([[1, 2], [3]], [0, 1]), {}, ValueError, r"X must be a full array of numbers, got rows of different"),
    "masked": (
        (np.ma.masked_equal(np.arange(24.0).reshape(12, 2), 3), Y),
        {},
        ValueError,
        r"X must have a value in every element, got a masked array",
    ),
    "fewer labels": (
        (X, Y[:5]),
        {},
        ValueError,
        r"y must have one row for each of the 12 rows of X, got shape \(5,\)\.",
    ),
    "one label": ((X, 1), {}, ValueError, r"y must have one row for each of the 12 rows of X, got shape \(\)\."),
    "float labels": ((X, Y + 0.0), {}, TypeError, r"y must hold class numbers of an integer dtype or one-hot rows"),
    "wide labels": ((X, np.ones((12, 4))), {}, ValueError, r"y must have shape \(12,\) or \(12, 3\) for predictions"),
    "not one-hot": (
        (X, np.tile([1, 0, 1], (12, 1))),
        {},
        ValueError,
        r"y must hold one-hot rows \(a single 1, else 0\), got \[1, 0, 1\] in row 0\.",
    ),
    "two is not hot": ((X, np.tile([2, 0, 0], (12, 1))), {}, ValueError, r"y must hold one-hot rows"),
    "epochs 0": ((X, Y), {"epochs": 0}, ValueError, r"epochs must be a whole number of at least 1, got 0\."),
    "epochs 1.5": ((X, Y), {"epochs": 1.5}, TypeError, r"epochs must be a whole number, got 1\.5\."),
    "epochs True": ((X, Y), {"epochs": True}, TypeError, r"epochs must be a whole number, got True\."),
    "batch 0": ((X, Y), {"batch_size": 0}, ValueError, r"batch_size must be a whole number of at least 1, got 0\."),
    "batch text": ((X, Y), {"batch_size": "8"}, TypeError, r"batch_size must be a whole number, got '8'\."),
    "print 0": ((X, Y), {"print_every": 0}, ValueError, r"print_every must be a whole number of at least 1, got 0\."),
    "seed": ((X, Y), {"shuffle": True, "seed": -1}, ValueError, r"seed must be a whole number from 0 to"),
    "validation": (
        (X, Y),
        {"validation_data": X},
        ValueError,
        r"validation_data must be a pair \(X_val, y_val\), or \(X_val, y_val, weights\) with a weight for",
    ),
    "validation X": (
        (X, Y),
        {"validation_data": (np.ones((3, 5)), [0, 1, 2])},
        ValueError,
        r"validation_data\[0\] must have shape \(n, 2\), got \(3, 5\)\.",
    ),
    "validation y": (
        (X, Y),
        {"validation_data": (X, Y + 1)},
        ValueError,
        r"validation_data\[1\] must hold class numbers from 0 to 2, got 3 at position 2\.",
    ),
}


class Tensor:
    """Stands for a tensor of another library that NumPy cannot read."""

    def __init__(self, error, **attributes):
        self.error = error
        vars(self).update(attributes)

    def __len__(self):
        return 12

    def __array__(self, dtype=None, copy=None):
        raise self.error

    def to_dense(self):
        raise AssertionError


BFLOAT16 = Tensor(TypeError("Got unsupported ScalarType BFloat16"), dtype="torch.bfloat16", layout="torch.strided")
SPARSE = Tensor(
    TypeError("can't convert Sparse layout tensor to numpy. Use Tensor.to_dense() first.\nMore."),
    layout="torch.sparse_coo",
)
WITH_GRADIENT = Tensor(RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy()"))


class Sparse:
    """Stands for a sparse matrix of SciPy, which NumPy turns into an array of one object."""

    def toarray(self):
        return X


KIND = r"a [\w.]+"
TENSORS = {
    "bfloat16": (
        BFLOAT16,
        rf"X must be an array that NumPy can read, got {KIND} \(Got unsupported ScalarType BFloat16\)\. Convert it "
        r"first, as with X\.float\(\)\.",
    ),
    "sparse tensor": (
        SPARSE,
        rf"X must be an array that NumPy can read, got {KIND} \(can't convert Sparse layout tensor to numpy\. Use "
        r"Tensor\.to_dense\(\) first\)\. Convert it first, as with X\.to_dense\(\)\.",
    ),
    "tensor with a gradient": (
        WITH_GRADIENT,
        rf"X must be an array that NumPy can read, got {KIND} \(Can't call numpy\(\) on Tensor that requires grad\. "
        r"Use tensor\.detach\(\)\.numpy\(\)\)\.$",
    ),
    "sparse matrix": (
        Sparse(),
        rf"X must be an array of real numbers, got {KIND}\. Convert it first, as with X\.toarray\(\)\.",
    ),
    "list of tensors": ([BFLOAT16, BFLOAT16], r"X must be an array that NumPy can read, got a list \(Got unsupported"),
    "nothing": (None, r"X must be an array of real numbers, got a NoneType\."),
}


@pytest.mark.parametrize("case", TENSORS)
def test_what_numpy_cannot_read_is_called_that(case):
    given, sentence = TENSORS[case]
    model = classifier()
    for method in (lambda: model.train(given, Y), lambda: model.predict(given)):
        with pytest.raises(TypeError, match=r"^Model\.(train|predict): " + sentence):
            method()
    with pytest.raises(TypeError, match=r"^Layer_Dense\.forward: " + sentence.replace("X", "inputs")):
        nnx.Layer_Dense(2, 3).forward(given)
    assert model.history is None


@pytest.mark.parametrize("case", TRAIN)
def test_train_refuses_before_anything_changes(case, capsys):
    positional, named, error, sentence = TRAIN[case]
    model = classifier(dropout=0.1)
    before = parameters_of(model)
    with pytest.raises(error, match=r"^Model\.train: " + sentence):
        model.train(*positional, **named)
    assert parameters_of(model) == before
    assert model.history is None
    assert model.optimizer.iterations == 0
    assert model.layers[2].training_forwards == 0
    assert not hasattr(model.layers[0], "weight_cache")
    assert capsys.readouterr().out == ""


def test_evaluate_and_predict_refuse_in_the_same_words():
    model = classifier()
    with pytest.raises(ValueError, match=r"^Model\.evaluate: X_val must have shape \(n, 2\), got \(3, 3\)\."):
        model.evaluate(np.ones((3, 3)), [0, 1, 2])
    with pytest.raises(ValueError, match=r"^Model\.evaluate: y_val must hold class numbers from 0 to 2, got 9 at pos"):
        model.evaluate(np.ones((3, 2)), [0, 1, 9])
    with pytest.raises(ValueError, match=r"^Model\.predict: X must have shape \(n, 2\), got \(3, 3\)\."):
        model.predict(np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"^Model\.predict: batch_size must be a whole number of at least 1, got -1"):
        model.predict(X, batch_size=-1)


def test_targets_of_regression_and_binary_models_are_checked():
    with pytest.raises(ValueError, match=r"^Model\.train: y must have the shape of the predictions, \(12, 2\), got"):
        regression(2).train(X, np.ones(12))
    with pytest.raises(ValueError, match=r"y must hold numbers from 0 to 1, got -1\.0 in row 4, column 0\."):
        binary().train(X, np.where(np.arange(12) == 4, -1, 1))


def test_labels_are_checked_against_outputs_that_only_running_tells():
    class Layer_Own(nnx.Layer_Dense):
        def forward(self, inputs, training=True):
            super().forward(inputs, training)

    model = nnx.Model()
    model.add(Layer_Own(2, 3))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    before = parameters_of(model)
    y = Y.copy()
    y[11] = 7
    with pytest.raises(ValueError, match="got 7 at position 11"):
        model.train(X, y, batch_size=2, print_every=None)
    with pytest.raises(
        ValueError, match=r"validation_data\[1\] must hold class numbers from 0 to 2, got 7 at position 11"
    ):
        model.train(X, Y, print_every=None, validation_data=(X, y))
    assert parameters_of(model) == before
    assert model.history is None


def test_using_a_model_before_finalize_says_what_to_do():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 2))
    for use in (
        lambda: model.predict(X),
        lambda: model.forward(X, training=False),
        model.get_parameters,
        lambda: model.save("x"),
    ):
        with pytest.raises(RuntimeError, match=r"the model is not finalized\. Call model\.finalize\(\) first\."):
            use()
    model.finalize()
    model.add(nnx.Activation_ReLU())
    with pytest.raises(RuntimeError, match=r"the layers have changed\. Call model\.finalize\(\) again\."):
        model.predict(X)
    model.finalize()
    model.layers[0] = nnx.Layer_Dense(2, 2)
    with pytest.raises(RuntimeError, match="the layers have changed"):
        model.predict(X)


def test_an_impossible_model_is_refused():
    with pytest.raises(ValueError, match=r"Model\.finalize: there are no layers\. Call model\.add\(layer\) first\."):
        nnx.Model().finalize()
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 64))
    model.add(nnx.Activation_ReLU())
    model.add(nnx.Layer_Dense(32, 3))
    with pytest.raises(
        ValueError, match=r"layer 2 must take the 64 outputs of what is before it, got Layer_Dense\(32, 3"
    ):
        model.finalize()
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 3))
    model.add(nnx.Layer_Dense(3, 3, dtype="float64"))
    with pytest.raises(ValueError, match="all dense layers must have one dtype, got float32 and float64"):
        model.finalize()


def test_a_class_or_a_stranger_in_place_of_an_object_is_refused():
    model = nnx.Model()
    with pytest.raises(TypeError, match=r"layer must be an object, got a class\. Write Activation_ReLU\(\.\.\.\)\."):
        model.add(nnx.Activation_ReLU)
    with pytest.raises(TypeError, match=r"Model\.add: layer must have the methods forward, backward, got 64\."):
        model.add(64)
    relu = nnx.Activation_ReLU()
    model.add(relu)
    with pytest.raises(ValueError, match=r"layer must be new to this model, got its Activation_ReLU\(\) again\."):
        model.add(relu)
    with pytest.raises(TypeError, match=r"Model\.set: loss must be an object, got a class"):
        model.set(loss=nnx.Loss_MeanSquaredError)
    with pytest.raises(TypeError, match=r"Model\.set: optimizer must have the methods .*, got 'adam'\."):
        model.set(loss=nnx.Loss_MeanSquaredError(), optimizer="adam")
    assert model.loss is None


CONSTRUCTORS = {
    "n_inputs 0": (
        lambda: nnx.Layer_Dense(0, 3),
        ValueError,
        r"Layer_Dense: n_inputs must be a whole number of at least",
    ),
    "n_neurons 2.5": (
        lambda: nnx.Layer_Dense(2, 2.5),
        TypeError,
        r"Layer_Dense: n_neurons must be a whole number, got",
    ),
    "negative l2": (
        lambda: nnx.Layer_Dense(2, 3, weight_regularizer_l2=-1),
        ValueError,
        r"Layer_Dense: weight_regularizer_l2 must be a finite number of at least 0, got -1\.",
    ),
    "nan l1": (
        lambda: nnx.Layer_Dense(2, 3, float("nan")),
        ValueError,
        r"Layer_Dense: weight_regularizer_l1 must be a finite number",
    ),
    "float16": (
        lambda: nnx.Layer_Dense(2, 3, dtype="float16"),
        ValueError,
        r"Layer_Dense: dtype must be float32 or float64, got 'float16'\.",
    ),
    "no dtype": (
        lambda: nnx.Layer_Dense(2, 3, dtype="fast"),
        ValueError,
        r"Layer_Dense: dtype must be float32 or float64, got 'fa",
    ),
    "rate 1": (
        lambda: nnx.Layer_Dropout(1),
        ValueError,
        r"Layer_Dropout: rate must be a number from 0 up to, but not including, 1, got 1\.",
    ),
    "rate text": (lambda: nnx.Layer_Dropout("0.1"), TypeError, r"Layer_Dropout: rate must be a number, got '0\.1'\."),
    "dropout seed": (
        lambda: nnx.Layer_Dropout(0.1, seed=2**64),
        ValueError,
        r"Layer_Dropout: seed must be a whole num",
    ),
    "negative rate": (
        lambda: nnx.Optimizer_SGD(-1),
        ValueError,
        r"Optimizer_SGD: learning_rate must be a finite number of",
    ),
    "inf rate": (
        lambda: nnx.Optimizer_Adam(float("inf")),
        ValueError,
        r"Optimizer_Adam: learning_rate must be a finite",
    ),
    "decay": (
        lambda: nnx.Optimizer_Adagrad(decay=-1),
        ValueError,
        r"Optimizer_Adagrad: decay must be a finite number of",
    ),
    "momentum": (
        lambda: nnx.Optimizer_SGD(momentum=1),
        ValueError,
        r"Optimizer_SGD: momentum must be a number from 0 up",
    ),
    "rho": (lambda: nnx.Optimizer_RMSprop(rho=None), TypeError, r"Optimizer_RMSprop: rho must be a number, got None\."),
    "beta": (
        lambda: nnx.Optimizer_Adam(beta_2=1.0),
        ValueError,
        r"Optimizer_Adam: beta_2 must be a number from 0 up to",
    ),
    "epsilon": (
        lambda: nnx.Optimizer_Adam(epsilon=-1.0),
        ValueError,
        r"Optimizer_Adam: epsilon must be a finite number",
    ),
    "binary": (
        lambda: nnx.Accuracy_Categorical(binary="no"),
        TypeError,
        r"Accuracy_Categorical: binary must be True or",
    ),
    "default dtype": (
        lambda: nnx.set_default_dtype("int32"),
        ValueError,
        r"set_default_dtype: dtype must be float32 or",
    ),
    "default None": (lambda: nnx.set_default_dtype(None), ValueError, r"set_default_dtype: dtype must be float32 or"),
    "samples": (
        lambda: nnx.spiral_data(0, 3),
        ValueError,
        r"spiral_data: samples must be a whole number of at least 1",
    ),
    "classes": (
        lambda: nnx.vertical_data(10, 300),
        ValueError,
        r"vertical_data: classes must be a whole number from 1",
    ),
    "sine": (lambda: nnx.sine_data("a"), TypeError, r"sine_data: samples must be a whole number, got 'a'\."),
}


@pytest.mark.parametrize("case", CONSTRUCTORS)
def test_constructors_refuse(case):
    make, error, sentence = CONSTRUCTORS[case]
    state = np.random.get_state()[1].copy()
    with pytest.raises(error, match="^" + sentence):
        make()
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert nnx.get_default_dtype() == np.float32


def ready(layer):
    layer.forward(np.ones((4, 3)))
    return layer


LAYERS = {
    "dense forward": (
        lambda: nnx.Layer_Dense(784, 3).forward(np.ones((128, 783))),
        ValueError,
        r"Layer_Dense\.forward: inputs must have shape \(n, 784\), got \(128, 783\)\.",
    ),
    "dense backward": (
        lambda: ready(nnx.Layer_Dense(3, 2)).backward(np.ones((5, 2))),
        ValueError,
        r"Layer_Dense\.backward: dvalues must have shape \(4, 2\), got \(5, 2\)\.",
    ),
    "backward first": (
        lambda: nnx.Layer_Dense(3, 2).backward(np.ones((5, 2))),
        RuntimeError,
        r"Layer_Dense\.backward: Layer_Dense has no inputs yet\. Call forward first\.",
    ),
    "relu backward first": (
        lambda: nnx.Activation_ReLU().backward(np.ones((5, 2))),
        RuntimeError,
        r"Activation_ReLU\.backward: Activation_ReLU has no output yet\. Call forward first\.",
    ),
    "relu shapes": (
        lambda: ready(nnx.Activation_ReLU()).backward(np.ones((4, 4))),
        ValueError,
        r"Activation_ReLU\.backward: dvalues must have shape \(4, 3\), got \(4, 4\)\.",
    ),
    "relu number": (
        lambda: nnx.Activation_ReLU().forward(3.0),
        ValueError,
        r"Activation_ReLU\.forward: inputs must have one row per sample, got a single number\.",
    ),
    "softmax one axis": (
        lambda: nnx.Activation_Softmax().forward([1.0, 2.0]),
        ValueError,
        r"Activation_Softmax\.forward: inputs must have shape \(n, outputs\), got \(2,\)\.",
    ),
    "sigmoid text": (
        lambda: nnx.Activation_Sigmoid().forward(["a"]),
        TypeError,
        r"Activation_Sigmoid\.forward: inputs must be an array of real numbers",
    ),
    "dropout backward first": (
        lambda: nnx.Layer_Dropout(0.5).backward(np.ones((2, 2))),
        RuntimeError,
        r"Layer_Dropout\.backward: Layer_Dropout has no binary_mask yet",
    ),
    "loss of nothing": (
        lambda: nnx.Loss_MeanSquaredError().calculate(np.ones((0, 1)), np.ones((0, 1))),
        ValueError,
        r"Loss_MeanSquaredError\.calculate: forward must return one loss per sample, for at least one "
        "sample, got shape",
    ),
    "loss one axis": (
        lambda: nnx.Loss_CategoricalCrossentropy().calculate(np.ones(3), [0, 1, 2]),
        ValueError,
        r"Loss_CategoricalCrossentropy\.forward: y_pred must have shape \(n, outputs\), got \(3,\)\.",
    ),
    "tampered rate": (
        lambda: vars(layer := nnx.Layer_Dropout(0.5)).update(rate=0) or layer.forward(np.ones((2, 2))),
        ValueError,
        r"Layer_Dropout\.forward: rate \(the part to keep\) must be above 0, got 0\.",
    ),
    "tampered inputs": (
        lambda: (
            vars(layer := ready(nnx.Layer_Dense(3, 2))).update(inputs=np.ones((4, 7)))
            or layer.backward(np.ones((4, 2)))
        ),
        ValueError,
        r"Layer_Dense\.backward: inputs must have shape \(n, 3\), got \(4, 7\)\.",
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_layers_and_losses_refuse(case):
    use, error, sentence = LAYERS[case]
    with pytest.raises(error, match="^" + sentence):
        use()


def test_every_sentence_ends_in_a_full_stop_and_names_its_method():
    for _, error_case in {**CONSTRUCTORS, **LAYERS}.items():
        with pytest.raises((ValueError, TypeError, RuntimeError)) as caught:
            error_case[0]()
        sentence = str(caught.value)
        assert sentence.endswith(".")
        assert ": " in sentence
        assert "\n" not in sentence


def test_labels_are_checked_for_subclasses_of_losses_too():
    class Own_Loss(nnx.Loss_CategoricalCrossentropy):
        def backward(self, dvalues, y_true):
            super().backward(dvalues, y_true)

    model = classifier()
    model.set(loss=Own_Loss())
    before = parameters_of(model)
    with pytest.raises(ValueError, match="got 7 at position 11"):
        model.train(X, np.where(np.arange(12) == 11, 7, 0), batch_size=2, print_every=None)
    assert parameters_of(model) == before


def test_targets_that_float32_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"Model\.train: y must hold finite numbers, got inf in row 2, column 0\."):
        regression().train(X, np.where(np.arange(12) == 2, 1e39, 1.0))


def test_flags_must_be_true_or_false():
    for name in ("progress", "check_finite"):
        with pytest.raises(TypeError, match=rf"Model\.train: {name} must be True or False, got 'no'\."):
            classifier().train(X, Y, **{name: "no"})
    with pytest.raises(TypeError, match=r"Model\.train: shuffle must be True, False or a function, got 'no'\."):
        classifier().train(X, Y, shuffle="no")
    with pytest.raises(TypeError, match=r"Model\.evaluate: silent must be True or False, got 1\."):
        classifier().evaluate(X, Y, silent=1)


def test_finite_check_looks_past_its_first_block(monkeypatch):
    from nnx._base import check

    monkeypatch.setattr(check, "FINITE_BLOCK", 4)
    data = X.copy()
    data[11, 0] = np.nan
    with pytest.raises(ValueError, match="got nan in row 11, column 0"):
        classifier().train(data, Y)


def test_constructors_take_no_stray_arguments():
    for kind in (nnx.Model, nnx.Activation_Softmax_Loss_CategoricalCrossentropy):
        with pytest.raises(TypeError):
            kind(3)


TAMPERED = {
    "dropout seed": (lambda: nnx.Layer_Dropout(0.5), {"seed": "a"}, "forward"),
    "negative dropout seed": (lambda: nnx.Layer_Dropout(0.5), {"seed": -1}, "forward"),
    "training_forwards": (lambda: nnx.Layer_Dropout(0.5), {"training_forwards": 1.5}, "forward"),
    "l2": (lambda: ready(nnx.Layer_Dense(3, 3)), {"weight_regularizer_l2": "x"}, "backward"),
    "negative l1": (lambda: ready(nnx.Layer_Dense(3, 3)), {"bias_regularizer_l1": -1}, "backward"),
    "decay": (nnx.Optimizer_SGD, {"decay": "x"}, "pre_update_params"),
    "iterations": (lambda: nnx.Optimizer_SGD(decay=0.1), {"iterations": -10}, "pre_update_params"),
    "huge iterations": (lambda: nnx.Optimizer_SGD(decay=0.1), {"iterations": 10**400}, "pre_update_params"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_attributes_that_were_tampered_with_are_refused_at_use(case):
    make, attributes, method = TAMPERED[case]
    thing = make()
    vars(thing).update(attributes)
    name = next(iter(attributes))
    with pytest.raises((TypeError, ValueError), match=rf"^{type(thing).__name__}\.{method}: {name} must be "):
        getattr(thing, method)(*([] if "update" in method else [np.ones((4, 3))]))


def test_numbers_beyond_any_float_are_refused():
    with pytest.raises(ValueError, match="learning_rate must be a finite number"):
        nnx.Optimizer_SGD(10**400)


def test_losses_need_a_row():
    for loss in (nnx.Loss_MeanSquaredError(), nnx.Activation_Softmax_Loss_CategoricalCrossentropy()):
        with pytest.raises(ValueError, match="dvalues must have at least 1 row, got 0"):
            loss.backward(np.ones((0, 2)), np.ones((0, 2)))


def test_a_refused_combined_forward_keeps_the_old_output():
    combined = nnx.Activation_Softmax_Loss_CategoricalCrossentropy()
    combined.forward(np.ones((2, 3)), [0, 1])
    kept = combined.output
    with pytest.raises(ValueError, match="got 9 at position 1"):
        combined.forward(np.zeros((2, 3)), [0, 9])
    assert combined.output is kept


@pytest.mark.parametrize("kind", [*BUILT_IN["loss"], nnx.Loss])
def test_a_loss_is_no_layer(kind):
    model = nnx.Model()
    message = rf"^Model\.add: layer must not be a loss, got {kind.__name__}\(\)\. Call model\.set\(loss=\.\.\.\)\.$"
    with pytest.raises(TypeError, match=message):
        model.add(kind())
    assert model.layers == []


def test_a_message_never_prints_the_whole_of_an_argument():
    long = "a" * 5000
    for wrong in (
        lambda: nnx.Layer_Dense(long, 3),
        lambda: nnx.Layer_Dense(3, 3, weight_regularizer_l2=long),
        lambda: nnx.Layer_Dense(3, 10**4000),
        lambda: nnx.Layer_Dropout(long),
        lambda: nnx.Model().add(long),
        lambda: nnx.Model.load(long + "\0"),
        lambda: nnx.Model.load([long] * 9),
        lambda: nnx.load_csv("x.csv", "y", gaps=long),
        lambda: nnx.load_csv("x.csv", "y", header=long),
        lambda: nnx.data.columns.Number("x", unit=long),
    ):
        with pytest.raises((TypeError, ValueError)) as error:
            wrong()
        assert len(str(error.value)) < 500
