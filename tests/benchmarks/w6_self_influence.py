"""W6: self-influence of 100,000 points of a logistic regression, d = 100, over its Hessian.

The baseline, in the same run, is one Hessian and its factor.
"""

import numpy as np
from w1_leave_one_out import medians

from ifcore import data, influence, risk, solvers
from ifcore.risk import Risk
from ifcore.runs import Run


def main():
    X, y = data.classification(0, 100_000, 100, condition=3)
    problem, theta = Risk(risk.linear, risk.logistic, X, y, lam=1.0), np.zeros(100)
    run = Run(jobs=1, progress=False)
    found = medians(
        5,
        ours=lambda: influence.self_influence(problem, theta, run=run),
        baseline=lambda: solvers.factor(problem, theta, matrix="hessian"),
    )
    ratio = found["ours"] / found["baseline"]
    print(f"self-influence of all points: {ratio:.2f} times one Hessian and its factor (target 3)")


if __name__ == "__main__":
    main()
