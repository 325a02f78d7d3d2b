"""The parts of the room one by one, against expm, differences and their definitions."""

from itertools import combinations_with_replacement
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm

from ifcore import flow, forgetting, weights
from ifcore.forgetting import fastest, rivals, search
from ifcore.forgetting.problem import zeros
from ifcore.forgetting.reduced import Reduced

ROUNDING = np.finfo(float).eps


def problem(seed, d, s=0.2, T=1.5, size=3.0):
    rng = np.random.default_rng([seed, d, 20])
    X, y = rng.standard_normal((d + 3, d)) / 1.5, rng.standard_normal(d + 3)
    return forgetting.Problem(X, y, int(rng.integers(d + 3)), size * rng.standard_normal(d), s, T)


def plain(p):
    """w, x, H₋ⱼ, c in the basis that Gram and Schmidt make of x, H₋ⱼx, …; the flows by expm."""
    powers = [p.x]
    while len(powers) < len(p.x):
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
    assert q.rounding == pytest.approx(p.rounding * np.exp(-0.7 * slowest), rel=1e-10, abs=0)
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
    p = problem(3, 3, s=0.0)
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
        assert label == far == 1 or (rounded > 1e-20 * value) == (label > far)
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


# the fastest way ----------------------------------------------------------------------------


def led_to_zero(seed, d, scale=1.0):
    """A `Reduced` whose w is led to 0 by known durations, the weight 1 last, and these."""
    rng = np.random.default_rng([seed, d, 21])
    q = Reduced(problem(seed, d, s=0.0, T=1.0))
    durations = scale * rng.uniform(0.3, 1, d) / q.parts[1][0][-1]
    q.w, q.length = fastest._start(q, durations)[0], 1.5 * durations.sum()
    return q, durations


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5])
def test_the_start_that_durations_lead_from_and_its_slopes(d):
    p = problem(5, d)
    q, o, durations = Reduced(p), plain(p), np.linspace(0.1, 0.4, d)

    def start(durations):
        w = np.zeros(d)
        for i in reversed(range(d)):
            w = o.state(w, (d - i) % 2, -durations[i])
        return w

    w, slopes = fastest._start(q, durations)
    close(w, start(durations))
    for i, h in enumerate(1e-3 * np.eye(d)):
        slope = 8 * (start(durations + h) - start(durations - h))
        slope = (slope - start(durations + 2 * h) + start(durations - 2 * h)) / 12e-3
        np.testing.assert_allclose(slopes[:, i], slope, rtol=0, atol=1e-7 * np.abs(slopes).max())


def test_how_far_a_start_misses_is_what_rounding_does_not_explain():
    q = Reduced(problem(6, 3))
    size, q.rounding = np.linalg.norm(q.w), 1e-3
    away = np.array([0.6, 0, -0.8])
    for distance, beyond in ((0, 0), (5e-4, 0), (3e-3, 2e-3), (7.0, 6.999)):
        assert fastest._miss(q, q.w + distance * away) == pytest.approx(beyond / size, abs=1e-14)


@pytest.mark.parametrize("shape", [[1.0, 1, 1], [1.0, 2, 4], [4.0, 2, 1]])
@pytest.mark.parametrize("far", [0, 2, 4])
def test_the_first_durations_start_no_farther_than_w(shape, far):
    """The longest of k/λ, 2k/λ, 4k/λ, … that do, λ the largest rate, within the time there is."""
    q, parts = Reduced(problem(7, 3)), np.array(shape) / np.sum(shape)
    size = 3 / q.parts[1][0][-1]
    q.w, q.length = fastest._start(q, 2.0**far * size * parts)[0], 2.0 ** (far + 2) * size
    close(fastest._scaled(q, np.array(shape)), 2.0**far * size * parts, 1e-14)
    q.w = q.w * (1 - 1e-9)  # then the first is tried whatever w is
    close(fastest._scaled(q, np.array(shape)), 2.0 ** max(far - 1, 0) * size * parts, 1e-14)
    q.w = 1e60 * q.w
    close(fastest._scaled(q, np.array(shape)), q.length * parts, 1e-14)
    q.length /= 1 + 1e-9
    close(fastest._scaled(q, np.array(shape)), 2.0 ** (far + 1) * size * parts, 1e-14)
    q.length = 0.3 * size
    close(fastest._scaled(q, np.array(shape)), q.length * parts, 1e-14)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_newton_goes_on_while_it_converges_at_once(d):
    """Against Newton's own changes: at most a half, and then at most a half of the one before."""
    outcomes, rng = [], np.random.default_rng([d, 22])
    for seed in range(40):
        q, durations = led_to_zero(seed, d)
        begun = durations * np.exp(rng.choice([0.02, 0.1, 0.3]) * rng.standard_normal(d))
        found = fastest._newton(q, begun, q.w)
        now, allowed, fine = begun, 0.5, True
        while allowed > 1e-5:
            w, slopes = fastest._start(q, now)
            change = np.linalg.solve(slopes, q.w - w) / now
            fine = np.abs(change).max() <= allowed
            if not fine:
                break
            now, allowed = now * (1 + change), np.abs(change).max() / 2
        outcomes.append(fine)
        assert (found is not None) == fine
        if fine:
            np.testing.assert_allclose(found, durations, rtol=1e-5)
    assert {*outcomes} == {True, False}


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_durations_are_led_to_those_of_w_or_beyond_the_time(d, seed):
    q, durations = led_to_zero(seed, d)
    begun = fastest._scaled(q, np.ones(d))
    found, whole = fastest._led(q, begun, q.length)
    assert whole
    np.testing.assert_allclose(found, durations, rtol=1e-5)
    close(fastest._nearest(q, found), durations, 1e-12)
    short = 0.8 * durations.sum()
    found, whole = fastest._led(q, begun * min(1, 0.5 * short / begun.sum()), short)
    assert not whole and found.sum() > short


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [0, 2])
def test_the_least_time_is_found_if_there_is_so_much(d, seed):
    q, durations = led_to_zero(seed, d)
    found = fastest.least_time(q)
    np.testing.assert_allclose(found, durations, rtol=1e-8)
    time = found.sum()
    for length in (time, time * (1 - 5e-11)):
        q.length = length
        knots = fastest.knots(q, fastest.least_time(q))
        assert len(knots) == d + 1 - d % 2 and knots[-1] <= length
        expected = np.append(np.zeros(1 - d % 2), np.cumsum(durations))
        np.testing.assert_allclose(knots, expected, rtol=1e-9)
    for length in (time * (1 - 1e-7), 0.6 * time):
        q.length = length
        assert fastest.least_time(q) is None
    q.length, q.c = 2 * time, 0.0
    assert fastest.least_time(q) is None


@pytest.mark.parametrize("d", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_fewer_pieces_than_k_are_found_too(d, seed):
    """At the border of what can be reached some durations are 0."""
    q, durations = led_to_zero(seed, d)
    durations[: d - 1 - seed % (d - 1)] = 0
    q.w = fastest._start(q, durations)[0]
    q.length = 1.2 * durations.sum()
    found = fastest.least_time(q)
    assert found.sum() == pytest.approx(durations.sum(), rel=1e-8)
    times = np.linspace(0.003, 0.997, 100) * durations.sum()
    epsilons = [(np.searchsorted(np.cumsum(each), times) + d) % 2 for each in (found, durations)]
    np.testing.assert_array_equal(*epsilons)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_the_nearest_start_is_one_where_no_duration_helps(d, seed):
    """Of ½‖start − w‖² the slopes are 0, or ≥ 0 where the duration is 0."""
    q, durations = led_to_zero(seed, d)
    size = np.linalg.norm(q.w)
    for away in np.random.default_rng([seed, d, 23]).standard_normal((3, d)):
        q.w = fastest._start(q, durations)[0] + 0.1 * size * away / np.linalg.norm(away)
        for found, tol in (
            (fastest._inside(q, durations), 1e-6),
            (fastest._nearest(q, fastest._inside(q, durations)), 1e-6),
        ):
            start, slopes = fastest._start(q, found)
            slope = (start - q.w) @ slopes * durations / size**2
            assert (found >= 0).all() and (slope >= -tol).all()
            assert (np.abs(slope) * found <= tol * durations).all()
        again = fastest._start(q, fastest._nearest(q, durations))[0]
        assert np.linalg.norm(again - q.w) <= size * (1 + 1e-12)


# the search ---------------------------------------------------------------------------------


@pytest.mark.parametrize("N", [*range(6), 99])
def test_the_grid_is_all_tuples_of_points_that_are_closer_at_the_ends(N):
    grid = search._grid(N)
    assert grid.shape[1] == N and len(grid) <= search.GRID
    if N == 0:
        assert len(grid) == 1
        return
    points = np.unique(grid[:, 0])
    fine = len(points) - 1
    assert len(grid) == comb(fine + N, N) and comb(fine + 1 + N, N) > search.GRID
    np.testing.assert_allclose(
        points, np.sin(np.pi * np.arange(fine + 1) / fine / 2) ** 2, atol=1e-15
    )
    every = {*combinations_with_replacement(points, N)} if N < 4 else {*map(tuple, grid)}
    assert {*map(tuple, grid)} == every and len(every) == len(grid)
    assert (np.diff(grid, axis=1) >= 0).all()


@pytest.mark.parametrize(
    "knots, expected",
    [
        ([], (1, [])),
        ([0], (0, [])),
        ([0, 0], (1, [])),
        ([0, 1], (0, [1])),
        ([0, 0, 0, 2], (0, [2])),
        ([1, 1], (1, [])),
        ([1, 1, 1], (1, [1])),
        ([1, 2, 2], (1, [1])),
        ([0, 1, 1, 2, 3], (0, [2])),
        ([2, 3, 3], (1, [2])),
        ([1, 2, 2, 1.5 + 1], (1, [1, 2.5])),
    ],
)
def test_switches_are_the_knots_that_do_something(knots, expected):
    assert search.switches(np.array(knots, float), 3.0) == expected


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_unit_of_a_knot_moves_the_end_by_its_own_size(d, seed):
    p = problem(seed, d)
    q, o = Reduced(p), plain(p)
    knots = np.sort(np.random.default_rng([seed, 24]).uniform(0.1, 0.9, d) * q.length)

    def end(knots):
        w = o.w
        for span, epsilon in pieces_of(knots, q.length):
            w = o.state(w, epsilon, span)
        return w

    slopes = [(end(knots + h) - end(knots - h)) / 2e-5 for h in 1e-5 * np.eye(d)]
    unit = np.minimum(np.linalg.norm(end(knots)) / np.linalg.norm(slopes, axis=1), q.length)
    np.testing.assert_allclose(search._unit(q, knots, q.length), unit, rtol=1e-5)


def test_the_search_polishes_the_best_of_the_grid_and_two_further_down(monkeypatch):
    """Of each of the theorem's patterns, where 0.5% and 2.5% of the grid are better."""
    q, begun, honest = Reduced(problem(9, 2)), [], search._polish

    def seen(q, knots, length, first):
        begun.append((len(knots) - (1 - first), first, q.cost(knots, length)[0]))
        return honest(q, knots, length, first)

    monkeypatch.setattr(search, "_polish", seen)
    monkeypatch.setattr(Reduced, "wrong", lambda *_: (0.0, 0.0))
    search.search(q, q.length)
    for inner, first in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0)):
        grid = q.length * search._grid(inner)
        knots = np.column_stack([np.zeros((len(grid), 1 - first)), grid])
        values = np.sum(q.ends(knots, q.length) ** 2, axis=1) / 2
        costs = [cost for *pattern, cost in begun if pattern == [inner, first]]
        ranks = [np.sum(values < cost * (1 - 1e-12)) for cost in costs]
        places = {int(share * len(grid)) for share in (0, 0.005, 0.025)}
        assert sorted(ranks) == sorted(places)
    assert len(begun) == 3 * 3 + 2


@pytest.mark.parametrize(
    "knots, tiny, expected",
    [
        ([1, 1 + 1e-9, 2, 2 + 1e-9], [-7, -7, -12, -7], [1 + 5e-10, 1 + 5e-10, 2, 2 + 1e-9]),
        ([1, 1 + 1e-9, 2, 2 + 1e-9], [-12, -7, -7, -7], [1, 1 + 1e-9, 2 + 5e-10, 2 + 5e-10]),
        ([1, 1 + 1e-9, 2, 2 + 1e-9], [-7, -12, -7, -7], [1, 1 + 1e-9, 2 + 5e-10, 2 + 5e-10]),
        ([1, 1 + 1e-9, 2, 2 + 1e-9], [-7, -7, -7, -12], [1 + 5e-10, 1 + 5e-10, 2, 2 + 1e-9]),
        ([1, 1 + 1e-9, 2, 2.5], [-7, -7, -12, -12], [1 + 5e-10, 1 + 5e-10, 2, 2.5]),
        ([1, 1, 1 + 1e-9, 2], [-7, -7, -7, -7], [1, 1 + 5e-10, 1 + 5e-10, 2]),
        ([1e-9, 1e-9, 3 - 1e-9, 3], [-12, -7, -7, -7], [1e-9, 0, 3, 3]),
        ([1, 2, 3 - 1e-9, 3 - 1e-9], [-7, -7, -12, -7], [1, 2, 3 - 1e-9, 3]),
    ],
)
def test_what_is_near_is_said_by_both_knots(knots, tiny, expected):
    found = search._tidied(np.array(knots, float), 3.0, 10.0 ** np.array(tiny))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


def test_the_search_begins_where_it_is():
    seen = []

    def cost(z):
        seen.append(z.copy())
        return z @ z, 2 * z

    found = search._slsqp(cost, np.array([1.0, 2]), np.array([0.1, 0.2]), 3.0, held=0)
    assert not seen[0].any() and not found.any()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(
    "values, floor, rounds, last",
    [
        (0.5 ** np.arange(12), 0, 8, 8),
        ([1, 0.995, 0.5, 0.2], 0, 1, 1),
        ([1, 0.98, 0.96, 0.955, 0.5], 0, 3, 3),
        ([1, 0.985, 0.98, 0.5], 0, 2, 2),
        ([1, 1, 0.5], 0, 1, 0),
        ([1, 0.5, 1.2, 0.1], 0, 2, 1),
        ([1, 0.5, 0.25, 0.1], 0.3, 2, 2),
        ([1, 0.5, 0.25], 2, 0, 0),
    ],
)
def test_the_search_goes_on_while_a_round_gains(values, floor, rounds, last, size, monkeypatch):
    said, asked = iter(size * np.array([*values, 0, 0])), []
    q = SimpleNamespace(cost=lambda *_: (next(said), 0), decayed=lambda *_: (0, size * floor))
    monkeypatch.setattr(search, "_unit", lambda q, knots, length: np.ones(1))
    monkeypatch.setattr(search, "_slsqp", lambda *_, **held: asked.append(1) or np.full(1, 0.125))
    knots, value = search._polish(q, np.array([0.5]), 3.0, 1)
    assert (len(asked), value, knots[0]) == (rounds, size * values[last], 0.5 + 0.125 * last)


@pytest.mark.parametrize("first, inner", [(1, []), (0, []), (1, [0.4, 2.5]), (0, [0.7])])
def test_a_piece_of_any_length_is_tried_before_around_and_after_a_time(first, inner):
    """The one that is wanted, as the end says, is found where it lies in [0, 3]."""
    where, held = 1.1, [0.0] * (1 - first)
    for span in 3 * 0.5 ** np.arange(1, 40):
        for left in (where - span, where - span / 2, where):
            ends = np.clip([left, left + span], 0, 3)
            wanted = np.array(held + sorted([*inner, *ends]))
            q = SimpleNamespace(ends=lambda tries, length, wanted=wanted: tries - wanted)
            found = search._pierced(q, first, inner, 3.0, where)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-15)
    q = SimpleNamespace(ends=lambda tries, length: tries[:, -2:] - [where, 3])
    assert first == 0 or inner or search._pierced(q, 1, [], 3.0, where)[1] == where + 1.5


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_polished_and_settled_is_at_rest(d, seed):
    p = problem(seed, d, T=2.0)
    q, rng = Reduced(p), np.random.default_rng([seed, d, 25])
    for first in (0, 1):
        start = np.sort(rng.uniform(0, q.length, d))
        knots, value = search._polish(q, np.append(np.zeros(1 - first), start), q.length, first)
        assert value == q.cost(knots, q.length)[0]
        assert value <= q.cost(np.append(np.zeros(1 - first), start), q.length)[0]
        settled = search._settled(q, knots, q.length)
        begin, inner = search.switches(settled, q.length)
        assert (begin, len(inner)) == (lambda f, i: (f, len(i)))(*search.switches(knots, q.length))
        assert (settled == np.append(np.zeros(1 - begin), inner)).all()
        least, slopes = q.cost(settled, q.length)
        assert least <= value * (1 + 1e-11)
        unit = search._unit(q, settled, q.length)
        if inner and least > q.decayed(settled, q.length)[1]:
            assert (np.abs(slopes * unit)[1 - begin :] <= 1e-11 * least).all()
            moved = np.append(np.zeros(1 - begin), inner + 1e-5 * unit[1 - begin :])
            back = search._settled(q, moved, q.length)
            np.testing.assert_allclose(back, settled, rtol=0, atol=1e-9 * q.length)


@pytest.mark.parametrize("floor, chosen", [(0, 0), (1e-28, 1), (1.0, 2)])
def test_of_weights_below_rounding_the_one_with_the_fewest_switches_is_taken(
    floor, chosen, monkeypatch
):
    q = Reduced(problem(3, 2))
    runs = [(np.array([0.2, 0.6]), 1e-30), (np.array([0.0, 0.5]), 1e-29), (np.array([]), 0.5)]
    left = iter([*runs, *[(np.array([0.1]), 9.0)] * 99])
    monkeypatch.setattr(search, "_polish", lambda *_: next(left))
    monkeypatch.setattr(search, "_settled", lambda q, knots, length: knots)
    monkeypatch.setattr(search, "_grid", lambda N: np.zeros((1, N)))
    monkeypatch.setattr(
        Reduced, "decayed", lambda _, knots, length: (9.0, floor if knots is runs[0][0] else 9.0)
    )
    monkeypatch.setattr(Reduced, "wrong", lambda *_: (0.0, 0.0))
    knots, value = search.search(q, q.length)
    assert knots is runs[chosen][0] and value == q.cost(knots, q.length)[0]


@pytest.mark.parametrize(
    "wrong, inner, floor, gains, times",
    [
        (2e-9, 0, 0, [0.9, 0.9], 2),
        (2e-9, 1, 0, [0.9, 0.9], 2),
        (2e-9, 1, 0, [1.0], 1),
        (2e-9, 1, 0, [0.9, 0.9, 1.0], 2),
        (2e-9, 2, 0, [0.9, 0.9], 1),
        (2e-9, 3, 0, [0.9], 1),
        (2e-9, 4, 0, [0.9], 0),
        (5e-10, 1, 0, [0.9], 0),
        (2e-9, 1, 4.0, [0.9], 0),
        (2e-9, 1, 3.7, [0.9, 0.9], 1),
    ],
)
def test_a_missing_piece_is_put_in_while_that_gains(wrong, inner, floor, gains, times, monkeypatch):
    """Where it is wrong by more than 10⁻⁹ of 𝓔, and two switches more are allowed; k = 5."""
    q, asked = Reduced(problem(3, 5)), []
    state = [(np.linspace(0.1, 0.2, inner), 4.0)]
    monkeypatch.setattr(search, "_grid", lambda N: np.zeros((1, N)))
    monkeypatch.setattr(search, "_settled", lambda q, knots, length: knots)
    monkeypatch.setattr(Reduced, "decayed", lambda *_: (9.0, floor))
    monkeypatch.setattr(Reduced, "wrong", lambda *_: (wrong * state[-1][1], 0.7))

    def pierced(q, first, inside, length, where):
        assert first == 1 and where == 0.7 and list(inside) == list(state[-1][0])
        gain = gains[len(asked)]
        asked.append(gain)
        new = np.append(state[-1][0], [0.5 + len(asked) / 100, 0.55 + len(asked) / 100])
        state.append((new, gain * state[-1][1]))
        return new

    def polish(q, knots, length, first):
        return state[-1]

    monkeypatch.setattr(search, "_pierced", pierced)
    monkeypatch.setattr(search, "_polish", polish)
    knots, _ = search.search(q, q.length)
    assert len(asked) == times
    assert len(knots) == inner + 2 * sum(gain < 1 for gain in asked)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_settled_stays_in_its_order_and_costs_no_more(seed):
    q, rng = Reduced(problem(seed, 3, T=2.2)), np.random.default_rng([seed, 28])
    starts = [np.sort(rng.uniform(0, q.length, 1 + i % 3)) for i in range(12)]
    starts += [np.sort(0.7 + 1e-3 * rng.random(2)) for _ in range(4)]
    line = np.linspace(0, q.length, 200)[:, None]
    costs = np.sum(q.ends(line, q.length) ** 2, axis=1)
    tops = np.flatnonzero((costs[1:-1] > costs[2:]) & (costs[1:-1] > costs[:-2])) + 1
    starts += [line[i] * (1 + 1e-4) for i in tops]
    for start in starts:
        settled = search._settled(q, start, q.length)
        assert (np.diff([0, *settled, q.length]) >= 0).all() and len(settled) == len(start)
        cost = q.cost(start, q.length)[0]
        assert q.cost(settled, q.length)[0] <= cost * (1 + 1e-11)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_no_unit_is_shorter_than_the_rounding_of_the_time(unit):
    """Where w(length) is 0 every shift moves it by more than its size."""
    X, y = np.array([[1.0, 2], [1, 0], [0, 1.5], [1, 1]]) / np.sqrt(unit), np.array([9.0, 0, 0, 0])
    q = Reduced(forgetting.Problem(X, y / np.sqrt(unit), 0, [1, 1], 0, unit))
    q.w = fastest._start(q, unit * np.array([0.2, 0.3]))[0]
    knots, length = unit * np.array([0, 0.2]), 0.5 * unit
    found = search._unit(q, knots, length)
    assert (found >= 3.5 * ROUNDING * length).all() and (found <= 1e-13 * length).all()


# what is found ------------------------------------------------------------------------------

FAR = forgetting.Problem([[1], [1]], [2, 1], 0, [4], 0, 1)  # of which 0 is out of reach
WAY = forgetting.Problem([[1], [1]], [-1, 0], 0, [1], 0, 3)  # at ½ log 3, with ε = 1


@pytest.mark.parametrize("violation, uncertainty", [(0, 0), (1e-6, 0), (0, 1e-2), (1e-6, 1e-2)])
def test_a_least_time_is_refused_from_a_violation_or_uncertainty_on(
    violation, uncertainty, monkeypatch
):
    said = [violation, uncertainty]
    monkeypatch.setattr(fastest, "violation", lambda *_: tuple(said))
    found = forgetting.optimal(WAY)
    assert found.reached == pytest.approx(np.log(3) / 2, rel=1e-12)
    assert (found.violation, found.uncertainty) == (violation, uncertainty)
    for i in np.flatnonzero(said):
        said[i] *= 1 + 1e-12
        with pytest.raises(forgetting.NotOptimal) as error:
            forgetting.optimal(WAY)
        assert error.value.reached.uncertainty == said[1]
        assert error.value.reached.switches == found.switches
        said[i] /= 1 + 1e-12


@pytest.mark.parametrize("share", [1e-7, 1e-3, 1e3])
@pytest.mark.parametrize("left", [1e-7, 1e-4, 0.3])
@pytest.mark.parametrize("without", [0.5, 2.0])
def test_the_violation_is_what_a_change_would_gain_over_what_is_left(
    share, left, without, monkeypatch
):
    """𝓔₀ is that of ε = 0, here 1, or that of ε without the label, if it is less."""
    gain = share * left
    monkeypatch.setattr(fastest, "least_time", lambda q: None)
    monkeypatch.setattr(search, "search", lambda q, length: (np.array([0.3]), left))
    for name, value in (
        ("cost", (left, None)),
        ("wrong", (gain, 7.0)),
        ("decayed", (without, 5.0)),
    ):
        monkeypatch.setattr(Reduced, name, lambda *_, value=value: value)
    monkeypatch.setattr(Reduced, "free", lambda *_: 1.0)
    expected = min(gain, left) / (left + 1e-6 * min(1, without))
    try:
        found = forgetting.optimal(FAR)
        assert expected <= 1e-6
    except forgetting.NotOptimal as error:
        found = error.reached
        assert expected > 1e-6
    assert found.violation == pytest.approx(expected, rel=1e-12, abs=0)
    assert found.reached == np.inf and found.uncertainty == 0 and found.switches == (0.3,)


@pytest.mark.parametrize("left, fine", [(0.99e-8, True), (1.01e-8, False)])
def test_what_is_as_good_as_0_need_not_be_shown_to_be_the_best(left, fine, monkeypatch):
    monkeypatch.setattr(fastest, "least_time", lambda q: None)
    monkeypatch.setattr(search, "search", lambda q, length: (np.array([0.3]), 1.0))
    monkeypatch.setattr(Reduced, "cost", lambda *_: (3 * left, None))
    monkeypatch.setattr(Reduced, "free", lambda *_: 3.0)
    monkeypatch.setattr(Reduced, "wrong", lambda *_: (1.0, 0.0))
    if fine:
        assert forgetting.optimal(FAR).violation > 1e-3
    else:
        with pytest.raises(forgetting.NotOptimal):
            forgetting.optimal(FAR)


def test_where_all_is_0_the_target_is_met_at_s():
    p = forgetting.Problem([[1, 2], [1, 0], [0, 1]], [3, 0, 0], 0, [0, 0], 0, 2)
    found = forgetting.optimal(p)
    assert found.reached == found.value == found.violation == found.uncertainty == 0


# the problem --------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("dependent", [False, True])
def test_what_rounding_may_change_is_by_the_condition_of_the_others(scale, dependent):
    rng = np.random.default_rng(26)
    X, y, theta0 = scale * rng.standard_normal((7, 3)), rng.standard_normal(7), rng.normal(0, 3, 3)
    X[:, 2] = X[:, 0] - 2 * X[:, 1] if dependent else X[:, 2]
    p = forgetting.Problem(X, y, 2, theta0 / scale, 0, 1)
    rest, others = np.delete(X, 2, axis=0), np.delete(y, 2)
    sigma = np.sqrt(np.linalg.eigvalsh(rest.T @ rest)[int(dependent) :])
    kappa, away = sigma[-1] / sigma[0], np.linalg.norm(rest @ p.limit - others)
    size = kappa * np.linalg.norm(p.limit) + kappa**2 * away / sigma[-1]
    expected = 10 * ROUNDING * (size + np.linalg.norm(p.theta0))
    assert p.rounding == pytest.approx(expected, rel=1e-6, abs=0)


def test_without_others_rounding_is_that_of_the_start():
    for X in ([[3.0, 4]], [[3, 4], [0, 0]]):
        p = forgetting.Problem(X, np.ones(len(X)), 0, [3, 4], 0, 1)
        assert p.rounding == pytest.approx(sum(p.X.shape) * ROUNDING * 5, abs=0)
        np.testing.assert_array_equal(p.limit, [3, 4])


def test_the_start_of_a_problem_is_its_own():
    theta0 = np.array([1.0, 2])
    p = forgetting.Problem(np.eye(2), [1, 1], 0, theta0, 0, 1)
    theta0[:] = 7
    assert p.theta0[0] == 1 and p.w0[0] == 0
    assert forgetting.Problem(np.eye(2), [1, 1], 0, theta0, 1, 1).T == 1


@pytest.mark.parametrize("s, T", [(0.5, 2.0), (1e5, 1e10)])
def test_a_schedule_may_jump_from_s_to_T_and_no_sooner_or_later(s, T):
    p = forgetting.Problem([[1e-6], [1e-6]], [1, 1], 0, [3], s, T)
    u = ROUNDING * T
    for knots in ([s, T], [s - 0.9 * u, T], [s, s, T], [s, T, T]):
        p.require(weights.piecewise(knots, np.linspace(0.2, 0.4, len(knots) - 1)))
    for knots in (
        [s - 4 * u, s, T],
        [s, T, T + 16 * u],
        [s - 4 * u, T],
        [s, T + 16 * u],
        [s - 0.1, s + 0.1],
    ):
        with pytest.raises(ValueError, match="must be 1 up to"):
            p.require(weights.piecewise(knots, np.linspace(0.2, 0.4, len(knots) - 1)))


@pytest.mark.parametrize("seed", range(3))
def test_switching_functions_against_expm_at_times_in_any_order(seed):
    p = problem(seed, 3, s=0.0)
    o = plain(p)
    knots, target = np.array([0.4, 0.9]), np.random.default_rng(seed).standard_normal(3)
    plan = weights.piecewise(knots, [0])
    times = np.array([1.2, 0.0, 0.7, p.T, 0.1, 0.7, 0.4])
    for goal in (None, target):
        rho, mu = forgetting.switching(p, plan, times, goal)
        Q = np.linalg.qr(np.transpose([p.x, p.A @ p.x, p.A @ p.A @ p.x]))
        Q = Q[0] * np.sign(np.diag(Q[1]))
        away = np.zeros(3) if goal is None else Q.T @ (goal - p.limit)
        for t, r, m in zip(times, rho, mu):
            w = o.state(o.w, 1, min(t, 0.4))
            w = o.state(w, 0, t - 0.4) if t > 0.4 else w
            end = o.state(o.state(o.w, 1, 0.4), 0, p.T - 0.4)
            lam = o.adjoint(end - away, 0, p.T - max(t, 0.4))
            lam = o.adjoint(lam, 1, max(0, 0.4 - t))
            close(r, o.x @ w - o.c, 1e-10), close(m, o.x @ lam, 1e-10)
    assert forgetting.switching(p, plan, 0.3)[0].shape == (1,)
    assert [len(part) for part in forgetting.switching(p, plan, [0.0, p.T])] == [2, 2]
    for times in ([-1e-9, 0.5], [0.5, -0.1], [-0.5], [0.5, p.T * (1 + 1e-9)]):
        with pytest.raises(ValueError, match="times must lie in"):
            forgetting.switching(p, plan, times)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("distance", forgetting.DISTANCES)
def test_a_list_of_schedules_has_the_values_and_ends_of_each(distance, d):
    p = problem(8, d)
    plans = [weights.step(t) for t in (0.2, 0.6, 1.4)]
    for together in (plans, tuple(plans), plans[:1]):
        many = forgetting.objective(p, together, distance)
        assert many.gradient is None and many.value.shape == (len(together),)
        for plan, value, end in zip(together, many.value, many.end):
            alone = forgetting.objective(p, plan, distance)
            assert value == pytest.approx(alone.value, rel=1e-10)
            close(end, alone.end)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("label", [0, 9])
def test_the_nearest_point_of_an_orbit_in_a_plane(label, scale):
    """H₋ⱼ = diag(1, 2, 0, 0) in units of 1/scale, turned: a parabola, and two that do not move."""
    Q = np.linalg.qr(np.random.default_rng(30).standard_normal((4, 4)))[0]
    X = np.array([[1.0, 1, 1, 1], [1, 0, 0, 0], [0, np.sqrt(2), 0, 0]]) / np.sqrt(scale)
    y = [label / np.sqrt(scale), 0, 0]
    p = forgetting.Problem(X @ Q, y, 0, np.array([2.0, 3, 5, 1]) @ Q, 0, scale)
    plan = weights.step(0.7 * scale)
    end = Q @ forgetting.objective(p, plan).end
    # (2e, 3e²), e in [0, 1]: the derivative of the squared distance is a cubic in e
    roots = np.roots([4 * 9, 0, 2 * 4 - 4 * 3 * end[1], -2 * 2 * end[0]])
    roots = [z.real for z in roots if abs(z.imag) < 1e-9 and 0 <= z.real <= 1]
    assert bool(roots) == bool(label)
    gaps = [(2 * e - end[0]) ** 2 + (3 * e * e - end[1]) ** 2 for e in [0, 1, *roots]]
    found = forgetting.objective(p, plan, "orbit").value
    away = (end[2] - 5) ** 2 + (end[3] - 1) ** 2
    assert found == pytest.approx((min(gaps) + away) / 2, rel=1e-11)
    later = np.array([2 * np.exp(-1), 3 * np.exp(-2), 5, 1])
    timed = forgetting.objective(p, plan, "time").value
    assert timed == pytest.approx(np.sum((end - later) ** 2) / 2, rel=1e-11)


def test_the_nearest_point_of_an_orbit_is_found_long_after_fast_modes():
    """(2 exp(−t), 3 exp(−60 t)): what is near is passed when the second is gone."""
    X = [[1.0, 1], [1, 0], [0, np.sqrt(60)]]
    p = forgetting.Problem(X, [9, 0, 0], 0, [2, 3], 0, 3)
    end = forgetting.objective(p, weights.step(0.9)).end
    t = np.linspace(0, 10, 200001)
    gaps = (2 * np.exp(-t) - end[0]) ** 2 + (3 * np.exp(-60 * t) - end[1]) ** 2
    found = forgetting.objective(p, weights.step(0.9), "orbit").value
    assert t[np.argmin(gaps)] > 1 and found <= gaps.min() / 2


@pytest.mark.parametrize("terms", [1, 2, 3, 4, 5])
def test_zeros_are_where_the_sign_changes(terms):
    rng, t = np.random.default_rng([terms, 31]), np.linspace(0.1, 3, 4001)
    for _ in range(30):
        exponents, c = rng.uniform(-1, 4, terms), rng.standard_normal(terms)
        if terms > 2:  # two zeros and more
            rows = np.exp(-np.outer(np.sort(rng.uniform(0.2, 2.9, terms - 1)), exponents))
            c = np.linalg.svd(rows)[2][-1]
        values = np.exp(-np.outer(t, exponents)) @ c
        at = np.flatnonzero(np.diff(np.sign(values)))
        found = zeros(c, exponents, 0.1, 3.0)
        assert len(found) == len(at)
        assert all(t[i] <= zero <= t[i + 1] for i, zero in zip(at, found))


def test_a_zero_at_an_end_is_none_in_between():
    assert zeros([1, -1], [0, 1], -1.0, 0.0) == zeros([1, -1], [0, 1], 0.0, 1.0) == []
    assert len(zeros([1, -1], [0, 1], -1.0, 0.5)) == 1 and zeros([1, -1], [0, 1], 0.5, -1.0) == []


@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e7])
def test_zeros_are_as_exact_in_every_unit_of_time(unit):
    c = np.poly(np.exp([-0.5, -1.0, -2.5]))[::-1]
    found = zeros(c, np.arange(4.0) / unit, 0.0, 3.0 * unit)
    np.testing.assert_allclose(found, np.array([0.5, 1.0, 2.5]) * unit, rtol=1e-13)


# greedy and direct --------------------------------------------------------------------------


def test_a_greedy_weight_switches_a_thousand_times_at_most(monkeypatch):
    asked = []
    monkeypatch.setattr(rivals, "zeros", lambda c, e, lo, hi: asked.append(hi) or [1e-5 * hi])
    monkeypatch.setattr(rivals, "_exceeds_rounding", lambda *_: True)
    with pytest.raises(forgetting.NotOptimal, match="switched 1000 times"):
        forgetting.greedy(problem(1, 2))
    assert len(asked) == 2 * 1001


@pytest.mark.parametrize("size", [0.1, 3.0])
def test_by_default_the_direct_method_has_64_parts_and_8_starts(size, monkeypatch):
    p, calls = problem(2, 2, size=size), []

    def still(cost, start, args, **options):
        calls.append((start, args))
        return SimpleNamespace(x=start, fun=cost(start, *args)[0])

    monkeypatch.setattr(rivals, "minimize", still)
    (plan, value), first = forgetting.direct(p), calls[:]
    calls.clear()
    again = forgetting.direct(p, pieces=64, starts=8, seed=0)
    assert again == (plan, value) and len(first) == len(calls) == 8 and len(plan.knots) == 65
    free = forgetting.objective(p, weights.step(p.s)).value
    for (start, args), (other, _) in zip(first, calls):
        np.testing.assert_array_equal(start, other)
        assert args[0] == pytest.approx(free, rel=1e-10)
    assert value == pytest.approx(forgetting.objective(p, plan).value, rel=1e-10)
    values = [rivals._Piecewise(p, 64)(start, 1.0)[0] for start, _ in first]
    assert value == pytest.approx(min(values), rel=1e-14)
    for pieces in (15, 17):  # in eight parts, the last of them shorter
        calls.clear()
        forgetting.direct(p, pieces, 3, 5)
        drawn = np.repeat(np.random.default_rng(5).random(8), pieces // 8 + 1)[:pieces]
        np.testing.assert_array_equal(calls[2][0], drawn)


@pytest.mark.parametrize("seed", range(3))
def test_the_direct_methods_weights_are_at_rest(seed):
    """The slope is 0, or points out of [0, 1]."""
    p = problem(seed, 3, T=2.5)
    plan, value = forgetting.direct(p, pieces=10, starts=3)
    epsilon = np.array(plan.values[1:-1])
    again, slope = rivals._Piecewise(p, 10)(epsilon, 1.0)
    assert value == pytest.approx(again, rel=1e-12)
    inner = np.clip(epsilon - slope / np.abs(slope).max(), 0, 1) - epsilon
    assert np.abs(inner).max() <= 1e-3
    assert rivals._Piecewise(p, 10)(np.zeros(10), 1.0)[0] > value


def test_weights_where_some_directions_are_at_rest():
    """H₋ⱼ is singular, and a part of [s, T] has ε = 0: against expm."""
    X = np.array([[1.0, 2, 1], [1, 0, 1], [0, 1, 1]])
    p = forgetting.Problem(X, [1, 2, 3], 0, [3, -1, 2], 0.3, 2)
    epsilon = np.array([0, 0.7, 0, 1.0])
    M, w = np.zeros((4, 4)), np.append(p.w, 1)
    for e in epsilon:
        M[:3] = np.column_stack([-p.A - e * np.outer(p.x, p.x), e * p.x * p.c])
        w = expm(M * 1.7 / 4) @ w
    diagonal = forgetting.Problem([[1.0, 2], [1, 0]], [1, 2], 0, [3, -1], 0, 2)
    free = np.array([3.0 - 2, -1]) * [np.exp(-2), 1]
    value = rivals._Piecewise(diagonal, 4)(np.zeros(4), 1.0)[0]
    assert value == pytest.approx(np.sum((free - [0, -1]) ** 2) / 2, rel=1e-12)
    for scale in (1.0, 3.0):
        found, slope = rivals._Piecewise(p, 4)(epsilon, scale)
        assert found == pytest.approx(w[:3] @ w[:3] / 2 / scale, rel=1e-11)
        near, far = (
            [
                rivals._Piecewise(p, 4)(epsilon + h * e, scale)[0]
                - rivals._Piecewise(p, 4)(epsilon - h * e, scale)[0]
                for e in np.eye(4)
            ]
            for h in (1e-3, 2e-3)
        )
        close(slope, (8 * np.array(near) - far) / 12e-3, 1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_what_greedy_does_next_is_what_the_speeds_say(seed):
    """Off the planes by ρσ; on one, even if rounding says off, by where the weights lead."""
    p, rng = problem(seed, 3), np.random.default_rng([seed, 27])
    x, A, c, n2 = p.x, p.A, p.c, p.x @ p.x
    for size in (0.1, 1, 10):
        w = size * rng.standard_normal(3)
        sigma = x @ w
        expected = rivals.Regime.WHOLE if (sigma - c) * sigma > 0 else rivals.Regime.GONE
        assert rivals._regime(p, w) == expected
        across = w - x * sigma / n2
        for off in (1e-9, -1e-9):
            near = across + off * x
            speeds = [-x @ A @ across, -x @ A @ across + n2 * c]  # of σ for the weights 0 and 1
            signs = np.sign(speeds) * np.sign(c)
            # beyond σ = 0 on the side of c, ρσ < 0 as long as ρ has the other sign: 0 is taken
            if signs[0] > 0:
                expected = rivals.Regime.GONE
            else:
                expected = rivals.Regime.WHOLE if signs[1] < 0 else rivals.Regime.SLIDE
            assert rivals._regime(p, near, "sigma") == expected
            near = across + (c / n2 + off) * x
            to_sigma = -(x @ A @ near) * c  # on ρ = 0 both weights move σ = c alike
            expected = rivals.Regime.WHOLE if to_sigma > 0 else rivals.Regime.GONE
            assert rivals._regime(p, near, "rho") == expected


@pytest.mark.parametrize("many", [1e-10, 1, 1e10])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_sum_that_is_rounding_is_known_by_its_terms(sign, many):
    """64 units in the last place of their sizes: of 2, 2.8e-14."""
    c = sign * many * np.array([1.0, -1.0])
    for rate, size in ((1.0, 1e-6), (4.0, 0.25e-6), (1e5, 1e-5)):
        told = rivals._exceeds_rounding(c, np.array([0, rate]), size)
        assert told
    assert rivals._exceeds_rounding(c, np.array([0, 2.0]), 2e-14)
    assert not rivals._exceeds_rounding(c, np.array([0, 2.0]), 1e-14)
    assert not rivals._exceeds_rounding(c, np.array([0, 1e-10]), 1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_greedy_is_on_a_plane_up_to_64_roundings(seed):
    p, rng = problem(seed, 3), np.random.default_rng([seed, 29])
    x, A, c, n2 = p.x, p.A, p.c, p.x @ p.x
    w = 4 * rng.standard_normal(3)
    across = w - x * (x @ w) / n2
    for plane, name in ((0.0, "sigma"), (c, "rho")):
        for share in (-2, -0.5, 0.5, 2):
            at = across + plane / n2 * x
            tiny = 64 * ROUNDING * (np.sqrt(n2) * np.linalg.norm(at) + abs(c))
            at = at + share * tiny / n2 * x
            on = rivals._regime(p, at, name)
            off = rivals.Regime.WHOLE if (x @ at - c) * (x @ at) > 0 else rivals.Regime.GONE
            assert rivals._regime(p, at) == (on if abs(share) < 1 else off)
    along = A @ x - x * (x @ A @ x) / n2
    still = across - along * (along @ across) / (along @ along)  # where the weight 0 keeps σ = 0
    tiny = 64 * ROUNDING * (np.sqrt(n2) * np.linalg.norm(still) + abs(c)) * np.linalg.norm(A)
    for share in (-2, -0.5, 0.5):
        at = still - share * tiny * np.sign(c) * along / (along @ along)
        gone = rivals._regime(p, at, "sigma") == rivals.Regime.GONE
        assert gone == (share > -1)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_greedy_follows_its_rule_at_every_time(seed, d):
    """ε = 1 where ρσ > 0, 0 where ρσ < 0; on a slide σ = 0, with the weight that keeps it so."""
    p = problem(seed, d, s=0.2, T=12.0, size=2.0)
    plan = forgetting.greedy(p)
    edges = [*([p.s] if plan.knots[0] > p.s else []), *plan.knots]
    edges += [p.T] if plan.knots[-1] < p.T else []
    for left, right in zip(edges, edges[1:]):
        times = left + (right - left) * np.linspace(0.05, 0.95, 7)
        theta = flow.scheduled(p.X, p.targets, p.j, plan, times)(p.w0)
        sigma, size = theta @ p.x, np.linalg.norm(p.x) * np.linalg.norm(theta, axis=1)
        rho, epsilon = sigma - p.c, plan(times)
        pull = theta @ p.A @ p.x / (p.x @ p.x * p.c)
        slides = (0 < epsilon) & (epsilon < 1)
        assert (np.abs(sigma[slides]) <= 1e-8 * size[slides] + 1e-11).all()
        np.testing.assert_allclose(epsilon[slides], pull[slides], rtol=1e-6, atol=1e-9)
        told = ~slides & (np.abs(rho * sigma) > 1e-9 * abs(p.c) * np.maximum(size, 1e-6))
        assert ((rho * sigma > 0) == epsilon)[told].all()


def falling(t):
    return 0.5 * np.exp(-t)


@pytest.mark.parametrize(
    "knots, pieces, expected",
    [
        ([0, 1, 2, 3, 4], [0.2, 0.5, 0.5, 0.7], ([0, 1, 3, 4], [0.2, 0.5, 0.7])),
        ([0, 1, 2, 3, 4], [0.2, 0.5, 0.7, 0.7], ([0, 1, 2, 4], [0.2, 0.5, 0.7])),
        ([0, 1, 2, 3], [0.2, 0.5, 0.2], ([0, 1, 2, 3], [0.2, 0.5, 0.2])),
        ([0, 1, 2], [falling, falling], ([0, 1, 2], [falling, falling])),
        ([0, 1, 2, 3], [falling, 0.5, 0.5], ([0, 1, 3], [falling, 0.5])),
        ([0, 1, 2, 3, 4], [1.0, 0.5, 0.2, 0.0], ([1, 2, 3], [0.5, 0.2])),
        ([0, 1, 2, 3], [1.0, 0.0, 1.0], ([1, 2, 3], [0, 1])),
        ([0, 1, 2, 3], [0.0, 0.5, 1.0], ([0, 1, 2, 3], [0, 0.5, 1])),
        ([0, 1, 2], [1.0, 0.0], ([1], [])),
        ([0, 1], [1.0], ([1], [])),
        ([0, 1], [0.0], ([0], [])),
        ([2, 2], [0.5], ([2], [])),
        ([0, 0, 1, 1], [0.5, 0.2, 0.7], ([0, 1], [0.2])),
    ],
)
def test_pieces_are_joined_where_they_are_one_number(knots, pieces, expected):
    assert rivals.merged(knots, pieces) == weights.piecewise(*expected)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
@pytest.mark.parametrize("seed", range(6))
def test_greedy_jumps_at_the_same_times_in_every_unit(seed, unit):
    p = problem(seed, 3, s=0.2, T=12.0)
    X, y = p.X / np.sqrt(unit), p.y / np.sqrt(unit)
    plan = forgetting.greedy(p)
    other = forgetting.greedy(forgetting.Problem(X, y, p.j, p.theta0, 0.2 * unit, 12.0 * unit))
    np.testing.assert_allclose(np.array(other.knots) / unit, plan.knots, rtol=1e-7)
    assert [callable(a) or a for a in other.pieces] == [callable(a) or a for a in plan.pieces]
