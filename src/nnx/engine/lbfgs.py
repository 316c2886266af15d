"""L-BFGS in NumPy. It defines what `native/plans/lbfgs.pxi` computes.

The whole state of a run is two arrays. So a checkpoint can hold it, and compiled code and this module can take turns.

Sources: Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", 1989 (the two loops, the
scale of the first matrix); Byrd, Lu, Nocedal and Zhu, "A limited memory algorithm for bound constrained optimization",
1995 (first steps, skipped pairs, restarts, when it ends: L-BFGS-B without bounds); Moré and Thuente, "Line search
algorithms with guaranteed sufficient decrease", 1994.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np

from nnx._base.typing import Array
from nnx.lbfgs import Limits

#: The indices of `Memory.numbers`. The curvatures of the pairs come after them.
LOSS, DATA_LOSS, PENALTY, ACCURACY = 0, 1, 2, 3
SCALE, N_PAIRS, NEXT = 4, 5, 6  # the scale of the first matrix, the number of pairs, the index of the next pair
ITERATIONS, EVALUATIONS, STARTED, END, STEP = 7, 8, 9, 10, 11
N_NUMBERS = 12

#: Why it ended: the values of `END`. 0 means that it has not ended.
FLAT, SLOW, EVALUATED, FAILED, NOT_FINITE = 1, 2, 3, 4, 5

#: The rows of `Memory.vectors` before the pairs.
POINT, GRADIENT, PAIRS = 0, 1, 2

# The line search: the fraction of the first slope's decrease that a step must bring; how flat it must end; how narrow a
# bracket may become, as a fraction of its end; the factors by which steps grow without a bracket; the longest step.
DECREASE, FLATNESS, NARROW = 1e-3, 0.9, 0.1
GROW_LEAST, GROW_MOST, LONGEST = 1.1, 4.0, 1e10
#: The factor of the next step if the loss at a point is not finite.
SHORTEN = 0.1


class Memory:
    """What an iteration keeps of earlier ones.

    Attributes
    ----------
    vectors : array (2 + 2·memory, n)
        The point and its gradient; then ``memory`` differences of points, s, and as many differences of gradients, y.
    numbers : float64 array (N_NUMBERS + memory,)
        The numbers whose indices are above; then sᵀy of each pair.
    """

    def __init__(self, size: int, memory: int, dtype: np.dtype) -> None:
        self.memory = memory
        self.vectors: Array = np.full((PAIRS + 2 * memory, size), 0, dtype)
        self.numbers: Array = np.full(N_NUMBERS + memory, 0, np.float64)
        self.numbers[SCALE] = 1


def is_possible(numbers: Array) -> bool:
    """Return whether iterations can continue with a memory's numbers, which may come from a file."""
    memory = len(numbers) - N_NUMBERS
    counts = numbers[[N_PAIRS, NEXT, ITERATIONS, EVALUATIONS, STARTED, END]]
    most = (memory, memory - 1, 2**53, 2**53, 1, NOT_FINITE)
    with np.errstate(invalid="ignore"):
        return bool(((counts >= 0) & (counts <= most) & (counts == np.floor(counts))).all())


class Value(NamedTuple):
    """The metrics of the model with some parameters. ``gradient`` is None if the loss is not finite."""

    data_loss: float
    penalty: float
    accuracy: float
    gradient: Array | None

    @property
    def loss(self) -> float:
        """The sum that is minimized."""
        return self.data_loss + self.penalty


class Objective(Protocol):
    """A model's loss as a function of its parameters, as one vector."""

    def place(self, point: Array) -> None:
        """Set the parameters."""

    def evaluate(self) -> Value:
        """Return the value at the current parameters."""

    def accept(self) -> None:
        """Update what changes once per iteration: the running statistics of batch norms."""


# The line search


class End(NamedTuple):
    """One end of a bracket: a step, and the loss and its slope there."""

    step: float
    loss: float
    slope: float


def cubic_step(base: End, other: End) -> tuple[float, float]:
    """Return where the cubic through both ends is lowest, as a fraction of the way from base, and its signed root.

    The root is 0 if the cubic has no minimum.
    """
    theta = 3 * (base.loss - other.loss) / (other.step - base.step) + base.slope + other.slope
    largest = max(abs(theta), abs(base.slope), abs(other.slope))
    square = (theta / largest) ** 2 - base.slope / largest * (other.slope / largest)
    root = largest * math.sqrt(max(0.0, square))
    if other.step < base.step:
        root = -root
    below = (root - base.slope) + root + other.slope
    return ((root - base.slope) + theta) / below if below else 0.0, root


def secant_step(base: End, other: End) -> float:
    """Return the step at which the slope would be 0 if it were linear."""
    return base.step + base.slope / (base.slope - other.slope) * (other.step - base.step)


class LineSearch:
    """Tries steps along a direction, until one brings enough decrease and ends flat enough.

    Parameters
    ----------
    loss, slope : float
        Loss and slope at the start. The slope is below 0.
    step : float
        To be tried first.

    Attributes
    ----------
    step : float
        The step to try next, or the step where it ended.
    """

    def __init__(self, loss: float, slope: float, step: float) -> None:
        loss, slope = np.float64(loss), np.float64(slope)  # division by 0 is then no error: such a step fails
        self.step, self.longest = step, LONGEST
        self.loss, self.slope = loss, slope
        self.best = self.other = End(0.0, loss, slope)
        self.has_bracket, self.first_stage = False, True
        self.width, self.width_before = LONGEST, 2 * LONGEST
        self.least, self.most = 0.0, step + GROW_MOST * step

    def shorten(self) -> None:
        """Choose a shorter step, because the loss was not finite. Longer steps are not tried any more."""
        self.longest = self.step
        self.most = min(self.most, self.step)
        self.step = self.best.step + SHORTEN * (self.step - self.best.step)

    def take(self, loss: float, slope: float) -> bool:
        """Take loss and slope at ``step``. Return True if the search ends there; otherwise choose the next step."""
        loss, slope = np.float64(loss), np.float64(slope)
        step, enough = self.step, DECREASE * self.slope
        target = self.loss + step * enough
        if self.first_stage and loss <= target and slope >= 0:
            self.first_stage = False
        if self._ends(loss, slope, target):
            return True
        if self.first_stage and target < loss <= self.best.loss:
            # On the function minus the required decrease.
            self.best, self.other = _tilted(self.best, -enough), _tilted(self.other, -enough)
            self._choose(End(step, loss - step * enough, slope - enough))
            self.best, self.other = _tilted(self.best, enough), _tilted(self.other, enough)
        else:
            self._choose(End(step, loss, slope))
        self._bound(step)
        return False

    def _ends(self, loss: float, slope: float, target: float) -> bool:
        step, enough = self.step, DECREASE * self.slope
        if self.has_bracket and (step <= self.least or step >= self.most or self._is_narrow()):
            return True
        if step == self.longest and loss <= target and slope <= enough:
            return True
        if step == 0 and (loss > target or slope >= enough):
            return True
        return loss <= target and abs(slope) <= -FLATNESS * self.slope

    def _is_narrow(self) -> bool:
        return self.most - self.least <= NARROW * self.most

    def _choose(self, tried: End) -> None:
        """Choose the next step by interpolation, and update the bracket: the four cases of the paper."""
        best, other = self.best, self.other
        turned = tried.slope * math.copysign(1, best.slope) < 0
        if tried.loss > best.loss:
            part, _ = cubic_step(best, tried)
            cubic = best.step + part * (tried.step - best.step)
            chord = (best.loss - tried.loss) / (tried.step - best.step)
            square = best.step + best.slope / (chord + best.slope) / 2 * (tried.step - best.step)
            near = abs(cubic - best.step) < abs(square - best.step)
            step = cubic if near else cubic + (square - cubic) / 2
            self.has_bracket = True
        elif turned:
            part, _ = cubic_step(tried, best)
            cubic, secant = tried.step + part * (best.step - tried.step), secant_step(tried, best)
            step = cubic if abs(cubic - tried.step) > abs(secant - tried.step) else secant
            self.has_bracket = True
        elif abs(tried.slope) < abs(best.slope):
            step = self._beyond(tried)
        elif self.has_bracket:
            part, _ = cubic_step(tried, other)
            step = tried.step + part * (other.step - tried.step)
        else:
            step = self.most if tried.step > best.step else self.least
        if tried.loss > best.loss:
            self.other = tried
        else:
            if turned:
                self.other = best
            self.best = tried
        self.step = step

    def _beyond(self, tried: End) -> float:
        """Return the next step if the loss falls less steeply: the minimum lies beyond, perhaps far away."""
        best = self.best
        part, root = cubic_step(tried, best)
        if part < 0 and root != 0:
            cubic = tried.step + part * (best.step - tried.step)
        else:
            cubic = self.most if tried.step > best.step else self.least
        secant = secant_step(tried, best)
        is_nearer = abs(cubic - tried.step) < abs(secant - tried.step)
        if not self.has_bracket:
            is_farther = abs(cubic - tried.step) > abs(secant - tried.step)
            return min(max(cubic if is_farther else secant, self.least), self.most)
        limit = tried.step + 0.66 * (self.other.step - tried.step)
        step = cubic if is_nearer else secant
        return min(limit, step) if tried.step > best.step else max(limit, step)

    def _bound(self, tried: float) -> None:
        """Keep the next step where the minimum must be, and make the bracket shrink fast enough."""
        best, other = self.best.step, self.other.step
        if self.has_bracket:
            if abs(other - best) >= 0.66 * self.width_before:
                self.step = best + (other - best) / 2
            self.width_before, self.width = self.width, abs(other - best)
            self.least, self.most = min(best, other), max(best, other)
        else:
            self.least = self.step + GROW_LEAST * (self.step - best)
            self.most = self.step + GROW_MOST * (self.step - best)
        self.step = min(max(self.step, 0.0), self.longest)
        if self.has_bracket and (self.step <= self.least or self.step >= self.most or self._is_narrow()):
            self.step = best


def _tilted(end: End, slope: float) -> End:
    return End(end.step, end.loss + end.step * slope, end.slope + slope)


# The iteration


def dot(a: Array, b: Array) -> float:
    """Return the dot product of vectors, summed in double."""
    return float(a.astype(np.float64, copy=False) @ b.astype(np.float64, copy=False))


def plus(a: Array, factor: float, b: Array) -> Array:
    """Return ``a + factor * b``, rounded once."""
    found: Array = (a.astype(np.float64, copy=False) + factor * b.astype(np.float64, copy=False)).astype(a.dtype)
    return found


def direction(memory: Memory) -> Array:
    """Return minus the gradient times the approximate inverse Hessian, with two loops over the pairs."""
    vectors, numbers, m = memory.vectors, memory.numbers, memory.memory
    s, y, curvatures = vectors[PAIRS : PAIRS + m], vectors[PAIRS + m :], numbers[N_NUMBERS:]
    found: Array = -vectors[GRADIENT]
    newest, n_pairs = int(numbers[NEXT]) - 1, int(numbers[N_PAIRS])
    places = [(newest - i) % m for i in range(n_pairs)]
    shares = {}
    for i in places:
        shares[i] = dot(s[i], found) / curvatures[i]
        found = plus(found, -shares[i], y[i])
    found = (found * np.float64(numbers[SCALE])).astype(found.dtype, copy=False)
    for i in reversed(places):
        found = plus(found, shares[i] - dot(y[i], found) / curvatures[i], s[i])
    return found


def start(memory: Memory, limits: Limits, objective: Objective, point: Array) -> None:
    """Start at the current parameters, unless an earlier iteration ended there."""
    numbers, vectors = memory.numbers, memory.vectors
    if numbers[STARTED] and np.array_equal(vectors[POINT], point):
        return
    evaluations = numbers[EVALUATIONS]
    numbers[:] = 0
    numbers[SCALE], numbers[EVALUATIONS] = 1, evaluations + 1
    value = objective.evaluate()
    vectors[POINT] = point
    _note(numbers, value)
    if value.gradient is None:
        numbers[END] = NOT_FINITE
        return
    numbers[STARTED] = 1
    vectors[GRADIENT] = value.gradient
    if np.abs(value.gradient).max() <= limits.gradient_tolerance:
        numbers[END] = FLAT


def _note(numbers: Array, value: Value) -> None:
    numbers[LOSS], numbers[DATA_LOSS] = value.loss, value.data_loss
    numbers[PENALTY], numbers[ACCURACY] = value.penalty, value.accuracy


def iterate(memory: Memory, limits: Limits, objective: Objective) -> bool:
    """Do an iteration. Return whether it found a better point. Note in the memory if it is the last iteration."""
    numbers, vectors = memory.numbers, memory.vectors
    while True:
        ahead = direction(memory)
        step = 1.0
        if not numbers[ITERATIONS]:
            step = min(float(1 / np.sqrt(np.float64(dot(ahead, ahead)))), LONGEST)
        slope = dot(vectors[GRADIENT], ahead)
        found = search(memory, limits, objective, ahead, slope, step)
        if found is not None:
            break
        objective.place(vectors[POINT])
        if not numbers[N_PAIRS]:
            numbers[END] = FAILED
            return False
        numbers[N_PAIRS], numbers[SCALE] = 0, 1
    objective.accept()
    _keep_pair(memory, ahead, slope, found)
    vectors[POINT], vectors[GRADIENT] = found.point, found.gradient
    before, numbers[STEP] = numbers[LOSS], found.step
    _note(numbers, found.value)
    numbers[ITERATIONS] += 1
    if np.abs(found.gradient).max() <= limits.gradient_tolerance:
        numbers[END] = FLAT
    elif before - found.value.loss <= limits.loss_tolerance * max(abs(before), abs(found.value.loss), 1):
        numbers[END] = SLOW
    elif numbers[EVALUATIONS] > limits.max_evaluations:
        numbers[END] = EVALUATED
    return True


class Found(NamedTuple):
    """The point where a line search ended."""

    point: Array
    value: Value
    gradient: Array
    step: float
    slope: float


def search(
    memory: Memory, limits: Limits, objective: Objective, ahead: Array, slope: float, step: float
) -> Found | None:
    """Return the point where a line search ended; None if it found nothing."""
    numbers, point = memory.numbers, memory.vectors[POINT]
    if not slope < 0:
        return None
    line = LineSearch(float(numbers[LOSS]), slope, step)
    for _ in range(limits.search_steps):
        tried = plus(point, line.step, ahead)
        objective.place(tried)
        value = objective.evaluate()
        numbers[EVALUATIONS] += 1
        gradient = value.gradient
        there = math.nan if gradient is None else dot(gradient, ahead)
        if gradient is None or not math.isfinite(there):
            line.shorten()
        elif line.take(value.loss, there):
            return Found(tried, value, gradient, step, there)
        step = line.step
    return None


def _keep_pair(memory: Memory, ahead: Array, slope: float, found: Found) -> None:
    """Keep the differences of points and gradients, unless rounding hides their curvature."""
    numbers, vectors, m = memory.numbers, memory.vectors, memory.memory
    step = found.step
    curvature, decrease = (found.slope - slope) * step, -slope * step
    if curvature > np.finfo(vectors.dtype).eps * decrease:
        i = int(numbers[NEXT])
        s, y = vectors[PAIRS + i], vectors[PAIRS + m + i]
        s[:] = step * ahead
        y[:] = found.gradient - vectors[GRADIENT]
        numbers[N_NUMBERS + i] = curvature
        numbers[SCALE] = curvature / dot(y, y)
        numbers[NEXT], numbers[N_PAIRS] = (i + 1) % m, min(numbers[N_PAIRS] + 1, m)
