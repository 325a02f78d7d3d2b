"""The parts of `optimal` one by one, against expm, differences and their definitions."""

from itertools import combinations_with_replacement
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm

from ifcore import forgetting, weights
from ifcore.forgetting import fastest, rivals, search
from ifcore.forgetting.reduced import Reduced

ROUNDING = np.finfo(float).eps


def problem(seed, d, s=0.2, T=1.5, size=3.0):
    rng = np.random.default_rng([seed, d, 20])
    X, y = rng.standard_normal((d + 3, d)) / 1.5, rng.standard_normal(d + 3)
    return forgetting.Problem(X, y, int(rng.integers(d + 3)), size * rng.standard_normal(d), s, T)


def plain(p, k=None):
    """w, x, H₋ⱼ, c in the basis of K that Gram and Schmidt make of x, H₋ⱼx, …; the flows by expm."""
    powers = [p.x]
    while len(powers) < (k or len(p.x)):
        powers.append(p.A @ powers[-1])
    Q, R = np.linalg.qr(np.transpose(powers))
    Q = Q * np.sign(np.diag(R))
    out = SimpleNamespace(w=Q.T @ p.w, x=Q.T @ p.x, H=Q.T @ p.A @ Q, c=p.c)

    def state(w, epsilon, time):
        M = np.zeros((len(out.w) + 1, len(out.w) + 1))
        M[:-1, :-1] = -out.H - epsilon * np.outer(out.x, out.x)
        M[:-1, -1] = epsilon * out.c * out.x
        return (expm(M * time) @ np.append(w, 1))[:-1]

    def adjoint(lam, epsilon, time):
        return expm((-out.H - epsilon * np.outer(out.x, out.x)) * time) @ lam

    out.state, out.adjoint = state, adjoint
    return out


def pieces_of(knots, length):
    """(duration, weight): 1 up to the first knot, 0 up to the second, …"""
    return [(span, 1 - i % 2) for i, span in enumerate(np.diff([0.0, *knots, length]))]


def close(found, expected, tol=1e-11):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tol * np.abs(expected).max(initial=1))


# the reduced problem ------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_the_reduced_problem_is_the_problem_in_the_krylov_basis(d):
    p = problem(1, d, s=0.7)
    q, o = Reduced(p), plain(p)
    assert q.k == d and q.length == p.T - p.s and q.c == p.c
    close(q.w, o.w), close(q.x, o.x)
    for epsilon in (0, 1):
        values, V, rest = q.parts[epsilon]
        H = o.H + epsilon * np.outer(o.x, o.x)
        close((V * values) @ V.T, H)
        close(V @ rest, epsilon * np.linalg.solve(H, o.c * o.x))
    slowest = np.linalg.eigvalsh(o.H + np.outer(o.x, o.x))[0]
    assert q.rounding == pytest.approx(p.rounding * np.exp(-0.7 * slowest), rel=1e-10)
    assert q.free(0.4) == pytest.approx(np.sum(o.state(o.w, 0, 0.4) ** 2) / 2, rel=1e-11)


@pytest.mark.parametrize("size", [1e-12, 1, 1e6])
def test_how_large_the_example_is_does_not_change_what_it_can_move(size):
    """H₋ⱼ = diag(1, 1, 1 + δ, 2, 2): of the equal ones only what x_j has in them."""
    rates = np.array([1, 1, 1 + 1e-6, 2, 2])
    X = np.vstack([size * np.array([1.0, 2, 1, 1, 0]), np.diag(np.sqrt(rates))])
    p = forgetting.Problem(X, np.zeros(6), 0, [1, 2, 3, 4, 5], 0, 1)
    q = Reduced(p)
    assert q.k == 3
    part = np.array([1, 2, 3, 4, 0])  # of θ₀ in K
    assert np.linalg.norm(q.w) == pytest.approx(np.linalg.norm(part), rel=1e-13)


def test_rows_that_are_nearly_dependent_make_an_orthonormal_basis():
    """Of H₋ⱼx_j 10⁻⁹ is new."""
    rates = np.array([1, 1 + 1e-9, 1 + 2e-9])
    X = np.vstack([np.ones(3), np.diag(np.sqrt(rates))])
    q = Reduced(forgetting.Problem(X, np.zeros(4), 0, [1.0, 2, -4], 0, 1))
    assert q.k == 3 and np.linalg.norm(q.w) == pytest.approx(np.sqrt(21), rel=1e-13)
    assert Reduced(forgetting.Problem(X * [1, 1, 0], np.zeros(4), 0, [1, 2, 3], 0, 1)).k == 2


def test_an_example_of_zeros_moves_nothing():
    X = np.vstack([np.zeros(2), np.eye(2)])
    p = forgetting.Problem(X, [1, 1, 1], 0, [2, 3], 0.5, 1)
    q = Reduced(p)
    assert q.k == 0 and q.w.shape == q.x.shape == (0,) and q.rounding == p.rounding
    assert forgetting.greedy(p) == weights.step(0.5)


@pytest.mark.parametrize("N", range(6))
@pytest.mark.parametrize("d", [1, 2, 3])
def test_states_and_costs_of_knots_against_expm(d, N):
    p = problem(2, d)
    q, o, rng = Reduced(p), plain(p), np.random.default_rng([d, N])
    batch = np.sort(rng.uniform(0, q.length, (4, N)), axis=1)
    ends = q.ends(batch, q.length)
    assert ends.shape == (4, d)
    for knots, end in zip(batch, ends):
        state, met = o.w, []
        for span, epsilon in pieces_of(knots, q.length):
            state = o.state(state, epsilon, span)
            met.append(state)
        states, last = q.along(knots, q.length)
        assert states.shape == (N, d)
        close(end, state), close(last, state), close(states, np.reshape(met[:-1], (N, d)))
        lam = rng.standard_normal((2, d))
        expected = np.zeros((2, N))
        for i, row in enumerate(lam):
            for n in reversed(range(N)):
                span, epsilon = pieces_of(knots, q.length)[n + 1]
                row = o.adjoint(row, epsilon, span)
                expected[i, n] = o.x @ row
        for given_, mus in ((lam, expected), (lam[0], expected[0])):
            rho, mu = q.slopes(knots, q.length, states, given_)
            assert mu.shape == mus.shape
            close(rho, np.reshape(met[:-1], (N, d)) @ o.x - o.c), close(mu, mus)
        value, gradient = q.cost(knots, q.length)
        assert value == pytest.approx(state @ state / 2, rel=1e-11)
        assert gradient.shape == (N,)

        def at(z):
            w = o.w
            for span, epsilon in pieces_of(z, q.length):
                w = o.state(w, epsilon, span)
            return w @ w / 2

        h = 1e-4
        for i, step in enumerate(h * np.eye(N)):
            slope = 8 * (at(knots + step) - at(knots - step))
            slope = (slope - at(knots + 2 * step) + at(knots - 2 * step)) / (12 * h)
            assert gradient[i] == pytest.approx(slope, rel=1e-8, abs=1e-9 * value)


@pytest.mark.parametrize("N", range(5))
@pytest.mark.parametrize("label", [1, 1e9])
def test_what_an_end_would_be_without_the_label_and_what_of_it_is_rounding(N, label):
    """256 units in the last place, unless 10⁻²⁰ of 𝓔 is more; far labels are led to from afar."""
    p = problem(3, 3)
    y = p.y.copy()
    y[p.j] *= label
    p = forgetting.Problem(p.X, y, p.j, p.theta0, p.s, p.T)
    q, o = Reduced(p), plain(p)
    knots, P = np.sort(np.random.default_rng(N).uniform(0, q.length, N)), np.eye(3)
    for span, epsilon in pieces_of(knots, q.length):
        P = o.adjoint(P, epsilon, span)
    rest = np.linalg.solve(o.H + np.outer(o.x, o.x), o.c * o.x)
    for far in (1, 1e12):
        o.w, q.w = far * o.w, far * q.w
        size = np.linalg.norm(o.w) + np.linalg.norm(rest)
        rounded = (256 * ROUNDING * size * np.linalg.norm(P)) ** 2 / 2
        value, floor = q.decayed(knots, q.length)
        assert value == pytest.approx(np.sum((P @ o.w) ** 2) / 2, rel=1e-9)
        assert floor == pytest.approx(max(rounded, 1e-20 * value), rel=1e-9, abs=0)


def test_times_however_negative_do_not_overflow():
    q = Reduced(problem(4, 2))
    values, V, rest = q.parts[1]
    far = q.advance(q.w, 1, -1e5)
    assert np.isfinite(far).all()
    time = -45 / values[-1]
    expected = V @ (rest + np.exp(-values * time) * (q.w @ V - rest))
    np.testing.assert_allclose(q.advance(q.w, 1, time), expected, rtol=1e-10)


def integrand(q, o, knots, t):
    """ε and μρ at a time, by expm."""
    w, later = o.w, []
    for begin, end, (_, weight) in zip([0, *knots], [*knots, q.length], pieces_of(knots, q.length)):
        if begin <= t <= end:
            epsilon, at = weight, o.state(w, weight, t - begin)
        w = o.state(w, weight, end - begin)
        later.append((max(0, end - max(begin, t)), weight))
    lam = w
    for span, weight in later[::-1]:
        lam = o.adjoint(lam, weight, span)
    return epsilon, (o.x @ at - o.c) * (o.x @ lam)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_how_wrong_a_weight_is_and_where_is_as_defined(seed, held):
    p = problem(seed, 2, T=2.2)
    q, o = Reduced(p), plain(p)
    knots = np.sort(np.random.default_rng(seed).uniform(0, q.length, 1 + seed % 3))
    knots = np.append(0.0, knots) if held else knots  # of the piece up to it nothing is left
    total, worst = 0.0, (0.0, 0.0)

    def wrong(t):
        epsilon, product = integrand(q, o, knots, t)
        return max(0.0, -product if epsilon else product)

    edges = np.unique([0.0, *knots, q.length])
    for left, right in zip(edges, edges[1:]):
        inside = np.linspace(left, right, 41)[1:-1]
        values = [wrong(t) for t in inside]
        worst = max(worst, (max(values), inside[np.argmax(values)]))
        signs = np.sign(values) if 0 < np.count_nonzero(values) < len(values) else []
        kinks = [inside[i] for i in np.flatnonzero(np.diff(signs))] if len(signs) else None
        total += quad(wrong, left, right, points=kinks, epsabs=1e-9, epsrel=1e-9, limit=60)[0]
    found, where = q.wrong(knots, q.length)
    size = q.cost(knots, q.length)[0]
    assert found == pytest.approx(total, rel=2e-3, abs=1e-6 * size)
    assert worst[0] == 0 or abs(where - worst[1]) <= q.length / 20
