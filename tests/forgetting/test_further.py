"""How often μρ changes its sign for other losses, other bounds and finite steps."""

from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

LOSSES = {  # φ′ and φ″
    "squared": lambda v: (v, np.ones_like(v)),
    "pseudo-Huber": lambda v: (v / np.sqrt(1 + v**2), (1 + v**2) ** -1.5),
    "Cauchy": lambda v: (v / (1 + v**2), (1 - v**2) / (1 + v**2) ** 2),
    "logistic": lambda v: ((np.tanh(v / 2) - 1) / 2, (1 - np.tanh(v / 2) ** 2) / 4),
}


def drawn(rng, k):
    """A and x, a Krylov space of dimension k."""
    X = rng.standard_normal((k + 2, k))
    return X[1:].T @ X[1:], X[0]


def changes(signs):
    """In the sequence without its zeros, and the last sign."""
    left = [s for s in np.sign(signs) if s]
    return sum(a != b for a, b in zip(left, left[1:])), left[-1] if left else 0


def most_changes(signs):
    """The most that signs for the zeros can give: of sequences with the last sign −1, and +1."""
    most = {s: 0 if s * signs[0] >= 0 else -np.inf for s in (-1, 1)}
    for sign in signs[1:]:
        most = {s: max(most[s], most[-s] + 1) if s * sign >= 0 else -np.inf for s in (-1, 1)}
    return most[-1], most[1]


@pytest.mark.parametrize("bounds", [(0, 1), (0.3, 2)])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_the_product_changes_its_sign_k_times_at_most_along_a_path(name, k, bounds):
    """Back from an end near σ = 0, with weights that are a or b at random, or by the sign."""
    rng, loss, most = np.random.default_rng([k, len(name)]), LOSSES[name], 0
    for i in range(12):
        A, x = drawn(rng, k)
        w = rng.standard_normal(k)
        gap = -(x @ w) * (1 + rng.choice([-1, 1]) * 10 ** rng.uniform(-2, 0.5))
        z, signs = np.concatenate([w, w]), []
        for length in rng.exponential(0.6, 12) / np.trace(A) * k:
            epsilon = bounds[rng.integers(2)]
            if i % 2 and signs:
                epsilon = bounds[int(signs[-1] > 0)]

            def back(_, z, epsilon=epsilon):
                rho, curve = loss(x @ z[:k] + gap)
                lam = z[k:]
                return np.append(
                    A @ z[:k] + epsilon * rho * x, -A @ lam - epsilon * curve * (x @ lam) * x
                )

            times = np.linspace(0, length, 30)
            path = solve_ivp(back, (0, length), z, "DOP853", times, rtol=1e-10, atol=1e-12).y
            z = path[:, -1]
            signs += list(np.sign(loss(x @ path[:k] + gap)[0] * (x @ path[k:])))
        count, _ = changes(signs)
        most = max(most, count)
        assert count <= k - (name == "logistic")
        assert count < k or signs[0] < 0
    assert most > 0 or name == "logistic"


def descended(loss, A, x, eta, start, gap, weights):
    """w_T and the sequence μ_{t+1}ρ_t, (m, steps), of weights (m, steps)."""
    w = np.tile(start, (len(weights), 1))
    products, curve = np.empty((2, *weights.shape))
    for t, e in enumerate(weights.T):
        products[:, t], curve[:, t] = loss(w @ x + gap)
        w = w - eta * (w @ A + np.outer(e * products[:, t], x))
    lam = w
    for t in reversed(range(weights.shape[1])):
        mu = lam @ x
        lam = lam - eta * (lam @ A + np.outer(weights[:, t] * curve[:, t] * mu, x))
        products[:, t] *= mu
    return w, products


@pytest.mark.parametrize("name", LOSSES)
def test_the_product_is_the_derivative_in_the_weights(name):
    """Of half the squared distance at the end, up to −η, by differences."""
    rng, steps, h = np.random.default_rng(len(name)), 8, 1e-5
    A, x = drawn(rng, 3)
    eta = 0.5 / np.linalg.eigvalsh(A + np.outer(x, x))[-1]
    given = LOSSES[name], A, x, eta, rng.standard_normal(3), rng.standard_normal()
    at = rng.random((1, steps))
    moved = at + h * np.concatenate([np.eye(steps), -np.eye(steps)])
    ends = (descended(*given, moved)[0] ** 2).sum(1) / 2
    slope = (ends[:steps] - ends[steps:]) / (2 * h)
    expected = -eta * descended(*given, at)[1][0]
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def placed(rng, A, x, eta, steps, logistic):
    """w and gap for which μρ, nearly that of the squared loss, changes as often as it may.

    Back from T along a sequence of 0 and 1 the path, ρ and μ are linear in the end and in the gap;
    so ρ and μ are placed to be 0 between steps in turn. For the logistic loss μ alone is.
    """
    k, path, adjoint, seen = len(x), np.eye(len(x) + 1), np.eye(len(x)), []
    for e in rng.integers(2, size=steps) * float(not logistic):
        S = np.eye(k + 1)
        S[:k] -= eta * np.column_stack([A, np.zeros(k)]) + eta * e * np.outer(x, np.append(x, 1))
        mu = np.append(x @ adjoint, 0)
        path, adjoint = np.linalg.solve(S, path), S[:k, :k] @ adjoint
        seen.append((np.append(x, 1) @ path, mu))
    seen = np.array(seen[::-1]).transpose(1, 0, 2)
    at = np.sort(rng.choice(steps - 1, k, replace=False))[::-1]
    which = np.ones(k, dtype=int) if logistic else np.arange(k) % 2
    rows = seen[which, at] + seen[which, at + 1]
    if logistic:
        rows[0] = rng.standard_normal(k + 1)  # ρ has no zero
    end = np.append(np.linalg.solve(rows[:, :k], -rows[:, k]), 1)
    gap = 1e-3 / np.abs(seen[0] @ end).max()
    return gap * path[:k] @ end, gap


@pytest.mark.parametrize("steps", [8, 14])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_no_sequence_of_weights_gives_descent_more_than_k_changes(name, k, steps):
    """Every sequence of 0 and 1; one has as many, and steps that are too long give more."""
    rng, loss = np.random.default_rng([k, steps, len(name)]), LOSSES[name]
    logistic = name == "logistic"
    every = ((np.arange(2**steps)[:, None] >> np.arange(steps)) & 1).astype(float)
    beta, bound = 0.25 if logistic else 1.0, k - logistic

    def most(A, x, eta, start, gap):
        signs = np.sign(descended(loss, A, x, eta, start, gap, every)[1])
        assert signs.all()
        count = (signs[:, 1:] != signs[:, :-1]).sum(axis=1)
        return count.max(), (signs[count == k, -1] < 0).all()

    def instance(share):
        A, x = drawn(rng, k)
        return A, x, share / np.linalg.eigvalsh(A + beta * np.outer(x, x))[-1]

    def start():
        return 3 * rng.standard_normal(k), rng.standard_normal()

    short = [instance(share) for share in (0.15, 0.3, 0.49, 0.3, 0.99)]
    starts = [placed(rng, *given, steps, logistic) for given in short[:3]] + [start(), start()]
    counts, last_is_low = zip(*(most(*given, *begun) for given, begun in zip(short, starts)))
    assert max(counts) == bound and all(last_is_low)
    assert max(most(*instance(1.9), *start())[0] for _ in range(6)) > bound


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("seed", range(10))
def test_a_target_that_descent_can_reach_is_reached_with_k_weights_between(k, seed):
    """The last weights before a 0 alternate, and k of them are free; with fewer it is missed."""
    rng, steps = np.random.default_rng([seed, k, 15]), 8
    (A, x), w = drawn(rng, k), np.zeros(k)
    eta = rng.uniform(0.2, 0.95) / np.linalg.eigvalsh(A + np.outer(x, x))[-1]
    for e in rng.random(steps):  # back from w_T = 0, φ′ = v + 1
        w = np.linalg.solve(np.eye(k) - eta * (A + e * np.outer(x, x)), w + eta * e * x)

    def end(free, at, others):
        epsilon, v = others.copy(), w
        epsilon[list(at)] = free
        for e in epsilon:
            v = v - eta * (A @ v + e * x * (x @ v + 1))
        return v / np.linalg.norm(w)

    def least(free):
        """The least ‖w_T‖/‖w‖ over where and what the free weights are."""
        found = []
        for at in combinations(range(steps), free):
            cuts, others = [0, *(np.array(at) + 1)], np.zeros(steps)
            for i in range(free):
                others[cuts[i] : cuts[i + 1] - 1] = (free - i) % 2
            exact = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15)
            call = np.full(free, 0.5), "2-point", (0, 1)
            found.append(least_squares(end, *call, args=(at, others), **exact).fun)
        return np.linalg.norm(found, axis=1).min()

    assert least(k) < 1e-6
    assert k == 1 or least(k - 1) > 1e-6


def inverse(P):
    return np.array([[P[1, 1], -P[0, 1]], [-P[1, 0], P[0, 0]]]) / (
        P[0, 0] * P[1, 1] - P[0, 1] * P[1, 0]
    )


@pytest.mark.parametrize("pair", [(0, 2), (1, 3), (2, 2), (3, 0), (4, 1)])
def test_zeros_of_the_product_count_as_changes(pair):
    """k = 2, in fractions: w_T = λ_T is solved for ρ = 0 at one step and μ = 0 at another."""
    one, eta, steps, seen = Fraction(1), Fraction(1, 3), 5, 0
    J = np.array([[one, one / 2], [one / 2, one]])
    for weights in product((0, one / 4, one), repeat=steps):
        W, lam = np.array([[one, 0 * one, 0 * one], [0 * one, one, 0 * one]]), np.diag([one, one])
        rho, mu = [], []  # each linear in (w_T, 1); ρ = w₁ − 1, μ = λ₁
        for e in weights[::-1]:
            P = np.diag([one, one]) - eta * (J + e * np.diag([one, 0 * one]))
            mu.append(np.append(lam[0], 0 * one))
            W = inverse(P) @ (W - eta * e * np.array([[0, 0, one], [0, 0, 0 * one]]))
            lam = P @ lam
            rho.append(W[0] - np.array([0, 0, one]))
        rows = np.array([rho[pair[0]], mu[pair[1]]])
        end = np.append(inverse(rows[:, :2]) @ -rows[:, 2], one)
        if not any(end[:2]):
            continue
        signs = [int(np.sign((r @ end) * (m @ end))) for r, m in zip(rho, mu)][::-1]
        negative, positive = most_changes(signs)
        assert signs[::-1][pair[0]] == signs[::-1][pair[1]] == 0
        assert negative <= 2 and positive <= 1
        seen += 1
    assert seen > 100
