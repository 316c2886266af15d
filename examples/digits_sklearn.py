"""Beside scikit-learn
===================

scikit-learn's MLPClassifier and nnx's, on the same digits with the same random_state.

python -m pip install 'nnx-core[sklearn,plot]' && python examples/digits_sklearn.py [EPOCHS]
"""

import math
import sys
import time
import warnings

import matplotlib.pyplot as plt
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from nnx.sklearn import MLPClassifier  # the one import that changes

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 60

# %%
# 8 × 8 pixels of handwritten digits, from scikit-learn.
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
warnings.simplefilter("ignore", ConvergenceWarning)  # all of them are to train for as many epochs

# %%
# The same settings for both libraries, and two of nnx's own.

# early_stopping holds out a tenth of the rows and scores them after each epoch; here it never stops.
settings = {"early_stopping": True, "n_iter_no_change": math.inf, "max_iter": EPOCHS, "random_state": 0}
estimators = {
    "scikit-learn": neural_network.MLPClassifier((64, 64), **settings),
    "nnx, float64": MLPClassifier((64, 64), **settings, dtype="float64"),
    "nnx, default": MLPClassifier((64, 64), **settings),
    "nnx, dropout, rate 0.005 by cosine": MLPClassifier(
        (64, 64), **settings, dropout=0.2, learning_rate="cosine", learning_rate_init=0.005
    ),
}

# %%
# With float64, the two curves are the same.
figure, (losses, scores) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
styles = (("#999999", "-", 5.0), ("#0072B2", "-", 1.8), ("#E69F00", "--", 1.8), ("#009E73", "-", 1.8))
for (name, estimator), (colour, line, width) in zip(estimators.items(), styles, strict=True):
    start = time.perf_counter()
    estimator.fit(X_train, y_train)
    seconds = time.perf_counter() - start
    score = estimator.score(X_test, y_test)
    print(f"{name}: {seconds:.2f} s, loss {estimator.loss_:.4f}, accuracy on the test rows {score:.3f}")
    style = {"color": colour, "linestyle": line, "linewidth": width, "label": f"{name}: {score:.3f}"}
    losses.plot(estimator.loss_curve_, **style)
    scores.plot(estimator.validation_scores_, **style)
losses.set(xlabel="epoch", ylabel="training loss", title="the same weights and orders: the same curve")
losses.set(yscale="log", ylim=(0.03, 12))
scores.set(xlabel="epoch", ylabel="accuracy", title="held-out rows (in the legend: test rows)", ylim=(0.8, 1))
losses.legend(loc="upper right")
figure.savefig("digits_sklearn.png", dpi=80)
