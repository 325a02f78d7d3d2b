"""Chunks, files, Figure 1's statements at a small scale, and what is refused or reported."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ifcore import data, gaps, risk, solvers
from ifcore.network import Network
from ifcore.proximal import damped
from ifcore.risk import Risk
from ifcore.runs import BadCache, NotConverged, Run
from ifcore.training import Training, retrain
from ifcore.weights import without

RUN = Run(jobs=1)


def protocol(steps=20, damping=2.0, **options):
    options = {"solver_options": {"max_steps": 50}} | options
    return gaps.Protocol(Training(steps, 0.05), damping, **options)


def concrete(n=60, width=8):
    mixtures = data.concrete()
    rows = np.random.default_rng(0).permutation(len(mixtures.y))[:n]
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 1)))
    y = data.standardise(mixtures.y[rows, None], intercept=False)[:, 0]
    problem = Risk(network, risk.squared, data.standardise(mixtures.X[rows], intercept=False), y)
    return problem, np.array([network.initial(s) for s in range(2)])


def same(one, two):
    for a, b in zip(
        (*one.parameters, *one.outputs, *one[2:8]), (*two.parameters, *two.outputs, *two[2:8])
    ):
        np.testing.assert_array_equal(a, b)


def test_for_a_network_stopped_early_the_first_three_gaps_are_further_training():
    """Figure 1 on a part of Concrete: they are more than half, and the control has them too."""
    problem, starts = concrete()
    found = gaps.decompose(problem, protocol(400, 0.6), starts, range(6), run=RUN)
    sizes = found.outputs.gaps
    assert (sizes[:, :, :3].sum(2) > 0.5 * sizes.sum(2)).all()
    control = np.median(found.outputs.control[:, :3], axis=0)
    assert (control > 0.5 * np.median(sizes[:, :, :3], axis=(0, 1))).all()
    low, middle, high = gaps.spread(sizes)
    assert (low <= middle).all() and (middle <= high).all() and middle.shape == (5,)
    np.testing.assert_allclose(middle, np.median(sizes, axis=(0, 1)))


@pytest.mark.parametrize("kind", ["layers", "convolution"])
def test_chunks_do_not_change_the_figures(kind):
    if kind == "layers":
        problem, starts = concrete(30, 4)
    else:
        rng = np.random.default_rng(0)
        network = Network(
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
        )
        problem = Risk(
            network,
            risk.cross_entropy,
            rng.standard_normal((30, 1, 4, 4)),
            rng.integers(0, 3, 30),
            lam=0.1,
        )
        starts = network.initial(0)
    whole, parts = (
        gaps.decompose(problem, protocol(30, 3.0, chunk=chunk), starts, range(5), run=RUN)
        for chunk in (5, 2)
    )
    for name in gaps.Distances._fields:
        for a, b in ((whole.parameters, parts.parameters), (whole.outputs, parts.outputs)):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-8)
    if kind == "layers":
        np.testing.assert_array_equal(whole.theta, parts.theta)


def test_an_interrupted_decomposition_holds_what_is_done_and_ends_with_the_same_figures(
    tmp_path, interrupted
):
    problem, starts = concrete(30, 4)
    how, run = protocol(30, 0.6, chunk=2), Run(folder=tmp_path, jobs=1)
    call = starts, [0, 4, [5, 6]]
    calls = interrupted(gaps, "_task", at=3)
    with pytest.raises(KeyboardInterrupt) as caught:
        gaps.decompose(problem, how, *call, run=run)
    partial = caught.value.partial
    np.testing.assert_array_equal(partial.done, [[True, True, True], [False] * 3], strict=True)
    assert "2 of 4 blocks" in caught.value.__notes__[0]
    assert np.isnan(partial.outputs.gaps[1]).all() and (partial.status[1] == "missing").all()
    again = gaps.decompose(problem, how, *call, run=run)
    assert [len(W) for *_, W in calls] == [2, 1, 2, 2, 1] and again.done.all()
    whole = gaps.decompose(problem, how, *call, run=RUN)
    same(again, whole)
    np.testing.assert_array_equal(partial.outputs.gaps[0], whole.outputs.gaps[0])
    np.testing.assert_allclose(
        gaps.spread(partial.outputs.gaps), gaps.spread(whole.outputs.gaps[:1])
    )
    with pytest.raises(BadCache, match="damping was 0.6, now 0.7"):
        gaps.decompose(problem, protocol(30, 0.7, chunk=2), *call, run=run)
    with pytest.raises(BadCache, match="data was"):
        other = Risk(problem.model, problem.loss, problem.X.numpy() * 2, problem.y.numpy())
        gaps.decompose(other, how, *call, run=run)


def test_memory_is_bounded_by_the_caller():
    problem, starts = concrete(30, 4)
    # no matrix, conjugate gradients
    small = gaps.decompose(problem, protocol(memory=1000), starts, [0], run=RUN)
    large = gaps.decompose(problem, protocol(), starts, [0], run=RUN)
    np.testing.assert_allclose(small.outputs.gaps, large.outputs.gaps, rtol=1e-5, atol=1e-8)
    assert large.estimates is None and large.controls is None


def test_what_does_not_end_well_is_reported():
    problem, starts = concrete(30, 4)
    short, call = protocol(proximal={"max_steps": 1}), (starts, [0, 1])
    with pytest.raises(
        NotConverged, match="fits did not end well; the first, the damped response of seed 0, remo"
    ) as caught:
        gaps.decompose(problem, short, *call, run=RUN)
    reached = caught.value.reached
    assert (reached.status[:, :, 2] == "max_steps").all() and reached.done.all()
    assert (reached.status[:, :2, 3] == "max_steps").all()
    assert (reached.status[:, 2, 3] == "converged").all()  # PBRF's control, which is θˢ
    found = gaps.decompose(problem, short, *call, run=RUN._replace(strict=False))
    same(found, reached)
    large = Risk(problem.model, risk.squared, problem.X.numpy(), 1e200 * problem.y.numpy())
    with pytest.raises(NotConverged, match=r"θˢ is 'diverged' at step \d+"):
        gaps.decompose(large, protocol(), *call, run=RUN)
    with pytest.raises(solvers.Diverged):
        gaps.decompose(problem, protocol(solver_options={"scale": 1e-3}), *call, run=RUN)


def test_an_estimate_that_diverges_has_no_gaps_and_leaves_the_others_theirs():
    problem, starts = concrete(30, 4)
    call = {"start": starts, "remove": [0, 3], "keep": True, "run": RUN._replace(strict=False)}
    lost = protocol(warm=Training(20, 1e60))
    found = gaps.decompose(problem, lost, **call)
    whole = gaps.decompose(problem, protocol(), **call)
    assert (found.status[:, :, 1] == "diverged").all()
    assert (np.delete(found.status, 1, 2) == np.delete(whole.status, 1, 2)).all()
    for mine, right in ((found.parameters, whole.parameters), (found.outputs, whole.outputs)):
        for name in ("gaps", "control", "effect"):
            assert np.isnan(getattr(mine, name)[..., :2]).all()
            np.testing.assert_array_equal(
                getattr(mine, name)[..., 2:], getattr(right, name)[..., 2:]
            )
        for name in ("direct", "effect_direct", "shift"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(right, name))
    for name in ("measured", "measured_control", "estimates", "controls"):
        mine, right = (np.moveaxis(getattr(each, name), -2, 0) for each in (found, whole))
        assert np.isnan(mine[1]).all()
        np.testing.assert_array_equal(np.delete(mine, 1, 0), np.delete(right, 1, 0))


@pytest.mark.parametrize(
    "change, error, match",
    [
        ({"start": np.zeros(3)}, ValueError, r"start must be \(s, 41\)"),
        ({"remove": 3}, TypeError, "remove must be a list"),
        ({"remove": [30]}, IndexError, "must lie in 0, …, 29; got 30"),
        ({"order": [1]}, ValueError, "order must be 2 integers at least 0; got .1."),
        ({"protocol": 3}, TypeError, "must be a Protocol, or a list of them; got 3"),
        ({"protocol": []}, ValueError, "a list of one at least"),
        ({"protocol": [protocol(5), protocol(5, chunk=2)]}, ValueError, "one chunk and one order"),
        ({"protocol": [protocol(5), None]}, TypeError, "a list of them; got \\[Protocol"),
        ({"start": np.zeros((2, 41, 1))}, ValueError, r"got \(2, 41, 1\)"),
        ({"start": np.zeros((0, 41))}, ValueError, r"with s ≥ 1.*; got \(0, 41\)"),
        ({"start": "0"}, TypeError, "start must be an array of real numbers"),
        ({"remove": [0, range(30)]}, ValueError, "must leave an example; removal 1 takes all 30"),
        ({"remove": [[]]}, TypeError, "remove must be an index or a list of indices"),
        ({"measure": 3}, TypeError, "measure must be a function; got 3"),
        ({"measure": lambda t: None}, TypeError, "measure must give real numbers; got object"),
        ({"measure": lambda t: t * 1j}, TypeError, "measure must give real numbers; got complex"),
        ({"run": "folder"}, TypeError, "run must be a Run; got str"),
    ],
)
def test_bad_input_is_refused(change, error, match):
    problem, starts = concrete(30, 4)
    call = {"protocol": protocol(5), "start": starts, "remove": [0]}
    with pytest.raises(error, match=match):
        gaps.decompose(problem, **(call | change))


@pytest.mark.parametrize(
    "change, error, match",
    [
        ({"damping": -1}, ValueError, "damping must be a number at least 0"),
        ({"damping": 0}, ValueError, "damping must be positive; got 0"),
        ({"solver": "kfac"}, ValueError, "solver must be 'cg' or 'lissa'; got 'kfac'"),
        ({"chunk": 0}, ValueError, "chunk must be"),
        ({"warm": 5}, TypeError, "must be a Training"),
        ({"near": 5}, TypeError, "must be a Training"),
        ({"reorder": 5}, ValueError, "by batches that stops where it ends; got batch=None"),
        (
            {"training": Training(5, 0.05, batch=6), "reorder": 5, "converged": True},
            ValueError,
            "got batch=6, converged=True",
        ),
        ({"reorder": -1}, TypeError, "reorder must be"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(change, error, match):
    problem, starts = concrete(30, 4)
    with pytest.raises(error, match=match):
        gaps.decompose(problem, replace(protocol(5), **change), starts, [0])


def test_a_folder_tells_two_measures_apart(tmp_path):
    problem, starts = concrete(30, 4)
    run = Run(folder=tmp_path, jobs=1)
    gaps.decompose(problem, protocol(5), starts, [0], measure=lambda t: t[:1], run=run)
    with pytest.raises(BadCache, match="measure was"):
        gaps.decompose(problem, protocol(5), starts, [0], measure=lambda t: 10 * t[:1], run=run)


def test_a_measure_with_another_constant_is_another_configuration(tmp_path):
    """They agree wherever the estimates go."""
    problem, starts = concrete(30, 4)

    def clipped(most):
        return lambda t: np.minimum(t[:2], most)

    for measure in (clipped(100.0), clipped(100.0)):
        gaps.decompose(problem, protocol(5), starts, [0], measure=measure, run=Run(tmp_path, 1))
    with pytest.raises(BadCache, match="measure code was"):
        gaps.decompose(
            problem, protocol(5), starts, [0], measure=clipped(200.0), run=Run(tmp_path, 1)
        )


def test_spread_takes_the_deciles_and_the_median():
    values = np.random.default_rng(0).permutation(11.0 * np.arange(22)).reshape(2, 11)
    np.testing.assert_allclose(gaps.spread(values), [23.1, 115.5, 207.9], rtol=1e-14)
    np.testing.assert_allclose(gaps.spread(values, 0, 1), [0, 115.5, 231], rtol=1e-14)
    with_gap = np.where(values == 0, np.nan, values)
    np.testing.assert_allclose(gaps.spread(with_gap, 0, 1), [11, 121, 231], rtol=1e-14)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: gaps.spread(np.ones(3)), ValueError, r"numbers \(s, p, …\).*; got float64 \(3,\)"),
        (lambda: gaps.spread(np.ones((0, 3, 5))), ValueError, r"got float64 \(0, 3, 5\)"),
        (lambda: gaps.spread([["a"]]), TypeError, "values must be .* got <U1"),
        (lambda: gaps.spread([[True, False]]), ValueError, "got bool"),
        (lambda: gaps.spread(np.ones((1, 3)), 0.9, 0.1), ValueError, "low = 0.9, high = 0.1"),
        (lambda: gaps.spread(np.ones((1, 3)), high=90), ValueError, "≤ 1; got .* high = 90"),
        (lambda: gaps.spread(np.ones((1, 3)), 0.5, 1.1), ValueError, "low = 0.5, high = 1.1"),
        (lambda: gaps.spread(np.ones((1, 3)), np.nan), ValueError, "low must be finite"),
    ],
)
def test_a_spread_that_is_none_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_measures_that_agree_at_the_start_are_told_apart_too(tmp_path):
    rng = np.random.default_rng(0)
    X, U, V = rng.standard_normal((3, 16, 3))
    train, one, two = (Risk(risk.linear, risk.logistic, Z, Z[:, 0] > 0, 0.1) for Z in (X, U, V))
    call = train, gaps.Protocol(Training(50, 0.5), 1.0), np.zeros(3), [0, 1]
    run = Run(tmp_path, 1, False, False)
    gaps.decompose(*call, measure=one.losses, run=run)
    with pytest.raises(BadCache, match="measure was"):
        gaps.decompose(*call, measure=two.losses, run=run)


@pytest.mark.parametrize("order", [[3.7, 4], [-3, 4], ["a", "b"]])
def test_orders_are_checked(order):
    problem, starts = concrete(30, 4)
    with pytest.raises((ValueError, TypeError), match="order must be .*; got"):
        gaps.decompose(problem, protocol(5), starts, [0], order=order)


def small():
    X, y = data.regression(0, 12, 2, condition=2)
    return Risk(risk.linear, risk.squared, X, y, lam=0.5), np.ones((2, 2))


def changes():
    further = Training(5, 0.04)
    return [
        ({"damping": 2.5}, "damping was 2.0, now 2.5"),
        ({"training": Training(5, 0.06)}, "training was"),
        ({"warm": further}, "warm was"),
        ({"near": further}, "near was"),
        ({"converged": True}, "converged was False, now True"),
        ({"solver": "cg"}, "solver was lissa, now cg"),
        ({"solver_options": {"max_steps": 51}}, "solver_options was"),
        ({"proximal": {"tol": 1e-9}}, "proximal was"),
        ({"memory": 2**20}, "memory was"),
        ({"chunk": 7}, "chunk was 8, now 7"),
    ]


def test_each_field_of_a_protocol_makes_another_configuration(tmp_path):
    problem, starts = small()
    base = gaps.Protocol(Training(5, 0.05), 2.0, solver_options={"max_steps": 50})
    run = Run(tmp_path / "one", 1, False)
    gaps.decompose(problem, base, starts, [0], run=run)
    for change, words in changes():
        with pytest.raises(BadCache, match=words):
            gaps.decompose(problem, replace(base, **change), starts, [0], run=run)
    several = Run(tmp_path / "two", 1, False)
    gaps.decompose(problem, [base, replace(base, damping=3.0)], starts, [0], run=several)
    for wrong in ([base, replace(base, damping=4.0)], [base], [base, base, base]):
        with pytest.raises(BadCache, match="protocol . was"):
            gaps.decompose(problem, wrong, starts, [0], run=several)


def test_two_schedules_of_rates_are_told_apart_wherever_they_differ(tmp_path):
    problem, starts = small()
    rates = np.full(1100, 0.05)
    run = Run(tmp_path, 1, False)
    gaps.decompose(problem, gaps.Protocol(Training(1100, rates), 2.0), starts[0], [0], run=run)
    rates = np.where(np.arange(1100) == 550, 0.04, 0.05)
    with pytest.raises(BadCache, match="training was"):
        gaps.decompose(problem, gaps.Protocol(Training(1100, rates), 2.0), starts[0], [0], run=run)


def test_what_else_is_asked_for_makes_another_configuration(tmp_path):
    problem, starts = small()
    how = gaps.Protocol(Training(5, 0.05, batch=10), 2.0, solver_options={"max_steps": 50})
    run = Run(tmp_path, 1, False)
    call = {"start": starts, "remove": [0], "order": [1, 2], "keep": False, "run": run}
    gaps.decompose(problem, how, **call)
    for change, words in (
        ({"start": starts + 1e-9}, "fits was"),
        ({"remove": [1]}, "fits was"),
        ({"order": [1, 3]}, "fits was"),
        ({"keep": True}, "keep was False, now True"),
    ):
        with pytest.raises(BadCache, match=words):
            gaps.decompose(problem, how, **call | change)


def test_removals_go_in_chunks_of_eight(tmp_path):
    problem, starts = small()
    for count, blocks in ((8, 1), (9, 2)):
        folder = tmp_path / f"{count}"
        gaps.decompose(problem, protocol(3), starts[0], range(count), run=Run(folder, 1, False))
        assert len(list(folder.glob("block-*.npz"))) == blocks


def test_the_first_fit_that_did_not_end_well_is_named():
    problem, starts = small()
    found = gaps.decompose(problem, protocol(5), starts, [0, 1], run=RUN._replace(strict=False))
    for place, words in (
        ((0, 0, 0), "the cold start of seed 0, removal 0, is 'lost', its relative .* 2.5e-01"),
        ((1, 1, 1), "the warm start of seed 1, removal 1, is"),
        ((1, 2, 2), "the damped response of seed 1, the control, is"),
        ((0, 1, 3), "the PBRF of seed 0, removal 1, is"),
    ):
        status, norm = np.full((2, 3, 4), "converged"), np.zeros((2, 3, 4))
        status[place], norm[place] = "lost", 0.25
        wrong = found._replace(status=status, gradient_norm=norm)
        with pytest.raises(NotConverged, match=f"1 of 24 fits .* first, {words}") as caught:
            gaps._require(wrong, 2)
        assert caught.value.reached is wrong
    status = np.full((2, 3, 4), "converged")
    status[0, 1, 2] = status[1, 0, 0] = "lost"
    with pytest.raises(NotConverged, match="2 of 24 .*, the damped response of seed 0, removal 1"):
        gaps._require(found._replace(status=status), 2)


def test_distances_of_estimates_by_their_definition():
    E = np.random.default_rng(0).standard_normal((4, 6, 3))
    found, size = gaps._distances(E), np.linalg.norm
    for i in range(3):
        for k in range(5):
            gap, control = E[i + 1, k] - E[i + 1, k + 1], E[0, k] - E[0, k + 1]
            assert found.gaps[i, k] == pytest.approx(size(gap), rel=1e-14)
            assert found.control[k] == pytest.approx(size(control), rel=1e-14)
            assert found.effect[i, k] == pytest.approx(size(gap - control), rel=1e-13)
        whole, control = E[i + 1, 0] - E[i + 1, 5], E[0, 0] - E[0, 5]
        assert found.direct[i] == pytest.approx(size(whole), rel=1e-14)
        assert found.effect_direct[i] == pytest.approx(size(whole - control), rel=1e-13)
        assert found.shift[i] == pytest.approx(size(E[i + 1, 3] - E[0, 3]), rel=1e-14)


def test_spread_takes_numbers_of_any_kind_and_one_quantile_for_all():
    values = np.arange(12).reshape(2, 3, 2)
    np.testing.assert_allclose(gaps.spread(values, 0.5, 0.5), [[5, 6]] * 3)
    np.testing.assert_allclose(
        gaps.spread((values > 5).astype(np.int8)), [[0, 0], [0.5, 0.5], [1, 1]]
    )
    with pytest.raises(ValueError, match="low must be a number at least 0; got -0.1"):
        gaps.spread(values, -0.1)


def classes():
    X, y = data.classification(0, 14, 2, condition=2)
    return Risk(risk.linear, risk.logistic, X, y, lam=0.5)


def test_a_fit_that_did_not_end_well_is_theta_s_only_if_it_is_the_whole_data_s(monkeypatch):
    problem, honest = classes(), gaps.retrain
    how = gaps.Protocol(Training(30, 0.5), 1.0)
    call = problem, how, np.zeros(2), [0, 1]
    for bad in (0, 1, 2):

        def lost(*given, bad=bad, **options):
            fit = honest(*given, **options)
            fit.status[bad] = "lost"
            return fit

        monkeypatch.setattr(gaps, "retrain", lost)
        if not bad:
            with pytest.raises(NotConverged, match="θˢ is 'lost' at step 30"):
                gaps.decompose(*call, run=RUN)
            continue
        with pytest.raises(NotConverged, match="2 of 12 fits did not end well") as caught:
            gaps.decompose(*call, run=RUN)
        for fit in (0, 1):  # cold and warm start, the control last
            rows = caught.value.reached.status[0, :, fit]
            assert rows.tolist() == ["lost" if j == bad else "trained" for j in (1, 2, 0)]


def test_a_theta_s_that_newton_s_method_has_not_reached_is_refused():
    how = gaps.Protocol(Training(1, 0.01), 1.0, converged=True, proximal={"max_steps": 1})
    with pytest.raises(NotConverged, match="θˢ is 'max_steps' at step 1, its relative") as caught:
        gaps.decompose(classes(), how, np.zeros(2), [0], run=RUN)
    assert caught.value.reached.status[0] == "max_steps"


def test_the_damped_response_begins_at_its_control_where_that_converged():
    problem, training = classes(), Training(3, 0.5)
    theta = retrain(problem, training, np.zeros(2)).theta
    W = np.array([without(14, j) for j in (0, 5)])
    for options in ({}, {"max_steps": 1}, {"tol": 1e-3}):
        own = {"strict": False, **options}
        control = damped(problem, theta, np.ones((1, 14)), 0.3, **own)
        begin = None if options == {"max_steps": 1} else control.theta[0]
        assert (control.status[0] == "converged") == (begin is not None)
        how = gaps.Protocol(training, 0.3, proximal=options)
        loose = RUN._replace(strict=False)
        found = gaps.decompose(problem, how, np.zeros(2), [0, 5], keep=True, run=loose)
        there = damped(problem, theta, W, 0.3, begin=begin, **own)
        np.testing.assert_array_equal(found.controls[0, 2], control.theta[0])
        np.testing.assert_array_equal(found.estimates[0, :, 2], there.theta)
        np.testing.assert_array_equal(found.gradient_norm[0, :2, 2], there.gradient_norm)
        assert found.gradient_norm[0, 2, 3] == 0 and found.status[0, 2, 3] == "converged"


def test_what_protocols_have_in_common_is_told_by_all_that_it_depends_on():
    """Side by side they are as alone, whatever one differs in."""
    problem, batch = classes(), Training(6, 0.5, batch=7)
    loose, tight = {"tol": 1e-2}, {"tol": 1e-10}
    base = gaps.Protocol(batch, 0.3, near=Training(3, 0.5), solver_options={"max_steps": 50})
    settled = replace(base, converged=True, near=None)
    plans = [
        base,
        replace(base, near=Training(4, 0.5)),
        replace(base, near=None, proximal=loose),
        replace(base, near=None, proximal=tight),
        replace(base, warm=Training(2, 0.5)),
        replace(base, solver_options={"max_steps": 60}),
        replace(settled, proximal=loose),
        replace(settled, proximal=tight),
        replace(settled, training=Training(5, 0.5, batch=7)),
        replace(base, reorder=3),
        replace(base, damping=0.4),
    ]
    call, run = (np.zeros(2), [0, [1, 2]]), RUN._replace(strict=False)
    found = gaps.decompose(problem, plans, *call, run=run)
    for plan, one in zip(plans, found):
        same(one, gaps.decompose(problem, plan, *call, run=run))
    assert (found[6].theta != found[7].theta).any()


def block(keep=True, remove=((0,), (1, 2))):
    """What one seed gives for some removals of a small problem."""
    problem, starts = small()
    plan = gaps._Plan(problem, [protocol(5).checked(12)], problem.losses, keep)
    W = np.array([without(12, list(j)) for j in remove])
    return gaps._of_protocol(gaps._task(plan, starts[0], 0, W), 0)


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_not_done_is_nan_or_missing_and_what_is_stands_in_its_place(keep):
    result, parts = block(keep), [(0, slice(0, 2)), (1, slice(0, 2))]
    found = gaps._assembled([None, result], parts, 2, 2)
    np.testing.assert_array_equal(found.done, [[False] * 2, [True] * 2], strict=True)
    assert (found.status[0] == "missing").all() and found.status.shape == (2, 3, 4)
    every = [found.theta, found.measured, found.measured_control, found.gradient_norm]
    every += [found.residual, *found.parameters, *found.outputs]
    every += [found.estimates, found.controls] if keep else []
    for part in every:
        assert np.isnan(part[0]).all() and np.isfinite(part[1]).all()
    np.testing.assert_array_equal(found.status[1], np.roll(result["status"], -1, 0))
    np.testing.assert_array_equal(found.gradient_norm[1], np.roll(result["gradient_norm"], -1, 0))
    np.testing.assert_array_equal(found.measured[1], result["measured"][1:])
    np.testing.assert_array_equal(found.measured_control[1], result["measured"][0])
    assert (found.estimates is None) == (found.controls is None) == (not keep)
    assert gaps._assembled([None, None], parts, 2, 2) is None


def test_an_estimate_that_is_nan_in_one_entry_has_no_figures_whatever_is_measured():
    problem, _ = small()
    E = np.random.default_rng(0).standard_normal((3, 6, 2))
    E[1, 2, 0] = np.nan
    plan = gaps._Plan(problem, [], lambda theta: np.array([3, 4]), True)
    found = gaps._measured(plan, E, np.zeros(2))
    lost = np.zeros((3, 6), bool)
    lost[1, 2] = True
    for name in ("measured", "estimates"):
        np.testing.assert_array_equal(np.isnan(found[name]).all(2), lost)
        np.testing.assert_array_equal(np.isnan(found[name]).any(2), lost)
    np.testing.assert_array_equal(found["measured"][~lost], [[3, 4]] * 17)
    for name in ("parameters", "outputs"):
        nan = np.isnan(found[f"{name}.gaps"])
        np.testing.assert_array_equal(nan, [[False, True, True, False, False], [False] * 5])
