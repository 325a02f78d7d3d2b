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
    epsilons = [
        (np.searchsorted(np.cumsum(each), times) + d) % 2 for each in (found, durations)
    ]
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


@pytest.mark.parametrize("N", range(6))
def test_the_grid_is_all_tuples_of_points_that_are_closer_at_the_ends(N):
    grid = search._grid(N)
    assert grid.shape[1] == N and len(grid) <= search.GRID
    if N == 0:
        assert len(grid) == 1
        return
    points = np.unique(grid[:, 0])
    fine = len(points) - 1
    assert len(grid) == comb(fine + N, N) and comb(fine + 1 + N, N) > search.GRID
    np.testing.assert_allclose(points, np.sin(np.pi * np.arange(fine + 1) / fine / 2) ** 2, atol=1e-15)
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
    unit = np.linalg.norm(end(knots)) / np.linalg.norm(slopes, axis=1)
    np.testing.assert_allclose(search._unit(q, knots, q.length), np.minimum(unit, q.length), rtol=1e-5)
    short = search._unit(q, knots, q.length) / 3
    q.length, before = q.length + 0.0, q.length
    assert (search._unit(q, knots, before) <= before).all() and (short > 0).all()


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
        ranks = [np.sum(values < cost * (1 - 1e-9)) for cost in costs]
        places = {int(share * len(grid)) for share in (0, 0.005, 0.025)}
        np.testing.assert_allclose(sorted(ranks), sorted(places), atol=2)
    assert len(begun) == 3 * 3 + 2


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
