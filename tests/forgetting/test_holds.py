"""Invariances of the objective and of the best weights, and what is refused."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from ifcore import flow, forgetting, weights
from ifcore.forgetting import rivals, search
from ifcore.forgetting.problem import zeros
from ifcore.forgetting.reduced import Reduced

seeds = st.integers(0, 2**32 - 1)
runs = settings(max_examples=20, deadline=None, database=None)


def problem(seed, n=6, d=2):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)) / 2, rng.standard_normal(n)
    return X, y, rng.integers(n), 3 * rng.standard_normal(d), rng


@runs
@given(seeds)
def test_the_objective_is_half_a_squared_distance(seed):
    X, y, j, theta0, rng = problem(seed)
    s, T = 0.3, 2.0
    plans = [
        weights.step(1.1),
        weights.linear(0.3, 1.7),
        weights.piecewise([0.3, 1, 2], [0.2, 0.9]),
    ]
    together = forgetting.objective(forgetting.Problem(X, y, j, theta0, s, T), plans)
    for plan, value, end in zip(plans, together.value, together.end):
        alone = forgetting.objective(forgetting.Problem(X, y, j, theta0, s, T), plan)
        assert alone.value == pytest.approx(value, rel=1e-10)
        np.testing.assert_allclose(
            alone.end,
            flow.scheduled(X, y, j, plan, T)(theta0),
            rtol=0,
            atol=1e-9 * (1 + np.linalg.norm(theta0)),
        )
        np.testing.assert_allclose(
            end, alone.end, rtol=0, atol=1e-10 * (1 + np.linalg.norm(theta0))
        )
        target = rng.standard_normal(2)
        given_ = forgetting.objective(
            forgetting.Problem(X, y, j, theta0, s, T), plan, distance=target
        )
        assert given_.value == pytest.approx(np.sum((alone.end - target) ** 2) / 2, rel=1e-9)
    nothing = forgetting.objective(
        forgetting.Problem(X, y, j, theta0, 0.0, T), weights.step(0.0), distance="time"
    )
    assert nothing.value <= 1e-25 * np.sum(theta0**2)


@runs
@given(seeds)
def test_the_best_weights_do_not_depend_on_coordinates_or_units(seed):
    X, y, j, theta0, rng = problem(seed)
    s, T = 0.2, 2.5
    Q, b, c = np.linalg.qr(rng.standard_normal((2, 2)))[0], rng.standard_normal(2), 4.0
    best = forgetting.optimal(forgetting.Problem(X, y, j, theta0, s, T))
    for other, scale in (
        (forgetting.optimal(forgetting.Problem(X @ Q, y, j, Q.T @ theta0, s, T)), 1.0),
        (forgetting.optimal(forgetting.Problem(X, y + X @ b, j, theta0 + b, s, T)), 1.0),
        (forgetting.optimal(forgetting.Problem(X, c * y, j, c * theta0, s, T)), c**2),
        (
            forgetting.optimal(
                forgetting.Problem(np.sqrt(c) * X, np.sqrt(c) * y, j, theta0, s / c, T / c)
            ),
            1.0,
        ),
    ):
        free = forgetting.objective(
            forgetting.Problem(X, y, j, theta0, s, T), weights.step(s)
        ).value
        assert other.value / scale == pytest.approx(best.value, rel=1e-6, abs=1e-10 * free)
    greedy = forgetting.greedy(forgetting.Problem(X, y, j, theta0, s, T))
    turned = forgetting.greedy(forgetting.Problem(X @ Q, y, j, Q.T @ theta0, s, T))
    values = [
        forgetting.objective(forgetting.Problem(X_, y, j, t, s, T), g).value
        for X_, t, g in ((X, theta0, greedy), (X @ Q, Q.T @ theta0, turned))
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6, abs=1e-12)


@runs
@given(seeds)
def test_no_schedule_of_the_book_beats_the_optimal_one(seed):
    X, y, j, theta0, rng = problem(seed)
    s, T = 0.2, 2.5
    best = forgetting.optimal(forgetting.Problem(X, y, j, theta0, s, T))
    others = [weights.step(t) for t in np.linspace(s, T, 9)]
    others += [weights.linear(s, t) for t in np.linspace(0.5, T, 5)]
    others.append(forgetting.greedy(forgetting.Problem(X, y, j, theta0, s, T)))
    values = forgetting.objective(forgetting.Problem(X, y, j, theta0, s, T), others).value
    free = values[0]
    assert best.value <= values.min() * (1 + 1e-6) + 1e-12 * free
    assert best.schedule.knots[0] >= s - 1e-12 and best.schedule.knots[-1] <= T + 1e-12
    assert len(best.switches) <= len(theta0)  # k, where the target is reached too
    assert all(s < t < T for t in best.switches) and best.violation <= 1e-6
    again = forgetting.objective(forgetting.Problem(X, y, j, theta0, s, T), best.schedule).value
    assert again == pytest.approx(best.value, rel=1e-12)


X, Y = np.array([[1.0, 0], [1, 1], [0, 2]]), np.array([1.0, 2, 0])
START = np.array([3.0, -1.0])


def objective(plan, s=0.5, T=2.0, j=0, theta0=START, **options):
    return forgetting.objective(forgetting.Problem(X, Y, j, theta0, s, T), plan, **options)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda: objective(weights.step(1.0), s=-0.5),
            ValueError,
            "s must be a number at least 0; got -0.5",
        ),
        (
            lambda: objective(weights.step(1.0), s=3.0),
            ValueError,
            "a schedule needs s ≤ T; got s = 3 and T = 2",
        ),
        (lambda: objective(weights.step(1.0), T=np.inf), ValueError, "T must be finite"),
        (
            lambda: objective(weights.step(0.3)),
            ValueError,
            "must be 1 up to s = 0.5 .* first and last knot are 0.3 and 0.3",
        ),
        (
            lambda: objective(weights.linear(0.5, 2.5)),
            ValueError,
            "0 after T = 2; .* are 0.5 and 2.5",
        ),
        (lambda: objective(weights.step(1.0), j=3), IndexError, "0, …, 2; got 3"),
        (
            lambda: objective(weights.step(1.0), theta0=np.ones(3)),
            ValueError,
            r"theta0 must .* got",
        ),
        (
            lambda: objective(weights.step(1.0), theta0=[np.nan, 0]),
            ValueError,
            "theta0 must be finite",
        ),
        (
            lambda: objective(weights.step(1.0), distance="nearest"),
            ValueError,
            "'optimum', 'time' or 'orbit', or a target .* got 'nearest'",
        ),
        (
            lambda: forgetting.switching(
                forgetting.Problem(X, Y, 0, START, 0.0, 2.0), weights.step(1.0), [3.0]
            ),
            ValueError,
            r"times must lie in \[0, T\] = \[0, 2\]",
        ),
        (
            lambda: forgetting.optimal(forgetting.Problem(X, Y, 0, START, 2.0, 1.0)),
            ValueError,
            "s ≤ T; got s = 2 and T = 1",
        ),
        (
            lambda: forgetting.optimal(forgetting.Problem(X, Y, 0, START, -1.0, 1.0)),
            ValueError,
            "s must be a number at least 0; got -1.0",
        ),
        (
            lambda: forgetting.optimal(forgetting.Problem(X, Y, 0, START, 0.0, np.inf)),
            ValueError,
            "T must be finite",
        ),
        (
            lambda: forgetting.optimal(forgetting.Problem(X, Y, -4, START, 0.0, 1.0)),
            IndexError,
            "got -4",
        ),
        (
            lambda: forgetting.optimal(forgetting.Problem(X, Y, 0, np.ones(3), 0.0, 1.0)),
            ValueError,
            "theta0 must have length d = 2; got 3",
        ),
        (
            lambda: forgetting.greedy(forgetting.Problem(X, Y, 0, START, 2.0, 2.0)),
            ValueError,
            "s < T; got s = 2 and T = 2",
        ),
        (
            lambda: forgetting.optimal(forgetting.Problem(X, Y, 0, START, 2.0, 2.0)),
            ValueError,
            "s < T; got s = 2 and T = 2",
        ),
        (
            lambda: forgetting.optimal(forgetting.Problem(X, Y, 0, START, 0.0, 1e4)),
            flow.NotResolved,
            "Take a shorter horizon",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_with_a_singular_hessian_the_target_is_the_limit_from_the_start():
    """n = d: H₋ⱼ is singular, and θ*₋ⱼ depends on θ₀."""
    X, y = np.eye(2), np.array([1.0, 1.0])
    for theta0 in ([0.0, 0.0], [0.0, 5.0]):
        found = forgetting.objective(
            forgetting.Problem(X, y, 1, theta0, 0.0, 60.0), weights.step(1.0)
        )
        # the second coordinate moves for a time 1 and stays
        expected = (1 - np.exp(-1.0)) ** 2 * (1 - theta0[1]) ** 2 / 2
        assert found.value == pytest.approx(expected, rel=1e-12)
        best = forgetting.optimal(forgetting.Problem(X, y, 1, theta0, 0.0, 3.0))
        assert best.value == pytest.approx(np.exp(-6) / 2, rel=1e-12)  # dropped at once


def test_a_problem_is_its_own():
    """What is computed once is of the arrays as they came."""
    X_, y_ = X.copy(), Y.copy()
    problem = forgetting.Problem(X_, y_, 0, START, 0.5, 2.0)
    before = forgetting.objective(problem, weights.step(1.0)).value
    X_[:], y_[:] = 7, 7
    assert forgetting.objective(problem, weights.step(1.0)).value == before
    assert problem == problem and len({problem, problem}) == 1


@pytest.mark.parametrize("seed", range(12))
def test_the_optimum_has_one_of_the_theorems_patterns(seed):
    """At most k switches, and k only if 0 is last, wherever the target cannot be reached."""
    rng, d = np.random.default_rng(seed), 1 + seed % 3
    A, b, theta0 = rng.standard_normal((d + 2, d)), rng.standard_normal(d + 2), rng.normal(0, 3, d)
    found = forgetting.optimal(forgetting.Problem(A, b, 0, theta0, 0.0, rng.uniform(0.2, 3)))
    assert found.reached < np.inf or len(found.switches) <= d
    if len(found.switches) == d and found.reached == np.inf:
        assert found.schedule((found.switches[-1] + 3) / 2) == 0


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: objective(0.5), TypeError, "schedule must be a Schedule, or a list of them"),
        (lambda: objective([1]), TypeError, "schedule must be a Schedule, or a list of them"),
        (
            lambda: forgetting.Problem(X, Y, [0, 1], START, 0, 1),
            TypeError,
            r"j must be one index; got \[0, 1\]",
        ),
        (
            lambda: forgetting.direct(forgetting.Problem(X, Y, 0, START, 0, 1), pieces=0),
            ValueError,
            "pieces must be an integer at least 1; got 0",
        ),
        (
            lambda: forgetting.direct(forgetting.Problem(X, Y, 0, START, 0, 1), starts=0),
            ValueError,
            "starts must be an integer at least 1; got 0",
        ),
        (
            lambda: forgetting.direct(forgetting.Problem(X, Y, 0, START, 1, 1)),
            ValueError,
            "s < T; got s = 1 and T = 1",
        ),
    ],
)
def test_what_is_no_schedule_index_or_count_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    "knots, expected",
    [
        ([1, 2, 2 + 1e-9], [1, 2 + 5e-10, 2 + 5e-10]),
        ([1, 1 + 1e-9, 2], [1 + 5e-10, 1 + 5e-10, 2]),
        ([1, 1 + 1e-9, 1 + 2e-9], [1 + 5e-10, 1 + 5e-10, 1 + 2e-9]),
        ([1e-9, 1, 3 - 1e-9], [0, 1, 3]),
        ([0, 1e-9, 2], [0, 0, 2]),
        ([1, 1 + 1e-6, 2], [1, 1 + 1e-6, 2]),
    ],
)
def test_close_switches_are_moved_together_in_pairs_or_to_an_end(knots, expected):
    found = search._tidied(np.array(knots, float), 3.0, np.full(3, 1e-7))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
    assert len(set(found)) == len(set(expected))
    wide = search._tidied(np.array(knots, float), 3.0, np.array([1e-7, 1e-7, 1e-12]))
    assert (wide[1] == wide[2]) == (expected[1] == expected[2] and knots[0] > 2)


def test_the_search_keeps_switches_in_their_order():
    """Where the least value is with the two exchanged, the best is that both are one."""
    knots, unit, wanted = np.array([1.0, 1.5]), np.array([0.5, 0.25]), np.array([2.0, 1.0])

    def cost(z):
        miss = knots + unit * z - wanted
        return miss @ miss, 2 * unit * miss

    z = search._slsqp(cost, knots, unit, 3.0, held=0)
    np.testing.assert_allclose(knots + unit * z, [1.5, 1.5], rtol=0, atol=1e-8)
    z = search._slsqp(cost, knots, unit, 3.0, held=1)
    np.testing.assert_allclose(knots + unit * z, [1.0, 1.0], rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "knots, pieces, expected",
    [
        ([0, 1, 2], [0.5, 0.5], weights.piecewise([0, 2], [0.5])),
        ([0, 1, 1, 2], [0.5, 0.2, 0.7], weights.piecewise([0, 1, 2], [0.5, 0.7])),
        ([0, 1, 2, 3], [1.0, 0.5, 0.0], weights.piecewise([1, 2], [0.5])),
        ([0, 1, 2, 3], [0.0, 1.0, 0.0], weights.piecewise([0, 1, 2], [0, 1])),
        ([0, 1, 2], [1.0, 1.0], weights.step(2)),
        ([0, 1, 2], [0.0, 0.0], weights.step(0)),
    ],
)
def test_what_does_not_change_is_one_piece(knots, pieces, expected):
    assert rivals.merged(knots, pieces) == expected


@pytest.mark.parametrize("size", [1e-6, 1, 1e6])
@pytest.mark.parametrize("seed", range(6))
def test_what_greedy_does_from_where_the_weight_makes_no_difference(seed, size):
    """On σ = 0: what keeps it there, if that is a weight. On ρ = 0: by where ρ will go."""
    X, y, j, start, rng = problem(seed, n=6, d=3)
    x, rest, y = X[j], np.delete(X, j, axis=0), size * y
    limit, n2 = np.linalg.lstsq(rest, np.delete(y, j))[0], x @ x
    across = size * (start - x * (x @ start) / n2)
    pull = x @ rest.T @ rest @ across / n2
    for share in (-2, -0.3, 0.3, 0.7, 2):  # of the weight that keeps σ = 0
        y[j] = x @ limit + pull / share
        plan = forgetting.greedy(forgetting.Problem(X, y, j, limit + across, 0.0, 1.0))
        assert plan(1e-9) == pytest.approx(np.clip(share, 0, 1), abs=1e-6)
    for c in (-size, size):
        y[j] = x @ limit + c
        w = across + c * x / n2
        drift = x @ rest.T @ rest @ w
        plan = forgetting.greedy(forgetting.Problem(X, y, j, limit + w, 0.0, 1.0))
        assert plan(1e-9) == (drift * c < 0)


def test_greedy_keeps_an_example_whose_label_the_others_predict():
    given_ = forgetting.Problem([[1], [1]], [0, 0], 0, [3], 0.5, 2.0)
    assert forgetting.greedy(given_) == weights.step(2.0)


def test_a_greedy_weight_that_switches_without_end_is_given_up(monkeypatch):
    X, y, j, theta0, _ = problem(3, n=5, d=3)
    given_ = forgetting.Problem(X, y, j, theta0, 0.0, 20.0)
    whole = forgetting.greedy(given_)
    first, last = whole.knots[0], whole.knots[-1]
    assert first > 0 and last == 20 and whole.pieces[:2] == (0.0, 1.0) and len(whole.pieces) == 3
    monkeypatch.setattr("ifcore.forgetting.rivals.SWITCHES", 4)  # with the first, 1 up to `first`
    assert forgetting.greedy(given_).knots == whole.knots
    monkeypatch.setattr("ifcore.forgetting.rivals.SWITCHES", 2)
    with pytest.raises(forgetting.NotOptimal, match="switched 2 times before t = ") as error:
        forgetting.greedy(given_)
    assert error.value.reached == weights.piecewise(whole.knots[:3], [0, 1])


@pytest.mark.parametrize("d, seed", [(3, 50), (3, 78), (3, 99), (4, 76), (4, 132)])
def test_a_slide_that_ends_at_weight_0_is_left(d, seed):
    """There σ = σ̇ = 0: rounding must not bring it back."""
    X, y, j, theta0, _ = problem(seed, n=5, d=d)
    given_ = forgetting.Problem(X, y, j, theta0, 0.0, 20.0)
    plan = forgetting.greedy(given_)
    end = plan.knots[-1]
    assert end < 20 and callable(plan.pieces[-1]) and plan(end) <= 1e-6
    rest, others = np.delete(X, j, axis=0), np.delete(y, j)
    state = flow.scheduled(X, y, j, plan, end)(theta0)
    after = flow.constant(rest, others, np.linspace(0.01, 5, 50))(state)
    gap = (after - flow.constant(rest, others, np.inf)(theta0)) @ X[j]
    assert ((after @ X[j] - y[j]) * gap < 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_piece_is_added_where_it_gains_most(seed):
    X, y, j, theta0, rng = problem(seed, d=3)
    q = Reduced(forgetting.Problem(X, y, j, theta0, 0.0, 2.0))
    where = rng.uniform(0.5, 1.5)
    found = q.cost(search._pierced(q, 1, [], q.length, where), q.length)[0]
    spans = 2.0 * 2.0 ** -np.arange(1, 20)
    for begins in (where - spans, where - spans / 2, np.full(len(spans), where)):
        for left, right in zip(begins, begins + spans):
            tried = np.clip([left, right], 0, q.length)
            assert found <= q.cost(tried, q.length)[0] * (1 + 1e-12)


@pytest.mark.parametrize("starts", [1, 2, 3, 5])
def test_the_direct_method_begins_at_0_at_1_and_at_random(starts, monkeypatch):
    begun, honest = [], rivals.minimize

    def counted(cost, start, *more, **options):
        begun.append(start)
        return honest(cost, start, *more, **options)

    monkeypatch.setattr(rivals, "minimize", counted)
    given_ = forgetting.Problem(X, Y, 0, START, 0.2, 1.0)
    plan, value = forgetting.direct(given_, pieces=12, starts=starts, seed=3)
    assert len(begun) == starts and (begun[0] == 0).all()
    assert starts < 2 or (begun[1] == 1).all()
    rng = np.random.default_rng(3)
    for drawn in begun[2:]:
        np.testing.assert_array_equal(drawn, np.repeat(rng.random(8), 2)[:12])
    np.testing.assert_allclose(plan.knots, np.linspace(0.2, 1.0, 13), rtol=1e-14)
    again = forgetting.objective(given_, plan).value
    assert value == pytest.approx(again, rel=1e-10)
    assert value >= forgetting.optimal(given_).value * (1 - 1e-9)


def test_zeros_of_sums_of_exponentials_are_those_of_polynomials():
    """In x = e^{−t}, times in (0, 3); zeros without a change of sign do not count."""
    roots = np.exp([-0.5, -1.0, -2.5])
    c = np.poly(roots)[::-1]
    found = zeros(c, np.arange(4.0), 0.0, 3.0)
    np.testing.assert_allclose(found, [0.5, 1.0, 2.5], rtol=1e-13)
    np.testing.assert_allclose(zeros(c[::-1], np.arange(4.0)[::-1], 0.0, 3.0), found, rtol=1e-13)
    np.testing.assert_allclose(zeros(c, np.arange(4.0), 0.7, 2.4), [1.0], rtol=1e-13)
    halves = np.append(c[:1] / 2, np.append(c[:1] / 2, c[1:]))
    exponents = np.append(0.0, np.arange(4.0))
    np.testing.assert_allclose(zeros(halves, exponents, 0.0, 3.0), found, rtol=1e-13)
    assert zeros(np.poly([0.5, 0.5]), np.arange(2.0, -1, -1), 0.0, 3.0) == []
    assert zeros([1.0], [2.0], 0.0, 3.0) == zeros(c, np.arange(4.0), 3.0, 3.0) == []
