"""W1: leverage and leave-one-out parameters of all points of least squares, over baselines.

Every figure is the median of interleaved runs, over that of a baseline timed in the same process:
one matrix product of the size of X with a Cholesky factorisation, and statsmodels' dfbetas.
"""

import statistics
import time

import numpy as np
import statsmodels.api as sm
from statsmodels.stats.outliers_influence import OLSInfluence

from ifcore import data, leastsquares


def medians(rounds, **works):
    """Seconds of each work, the median over rounds in which each ran once."""
    times = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def main():
    X, y = data.regression(0, 20_000, 200, condition=2)
    G = X.T @ X
    found = medians(
        15,
        ours=lambda: leastsquares.leave_one_out(X, y),
        baseline=lambda: (X @ G, np.linalg.cholesky(G)),
        diagnostics=lambda: leastsquares.diagnostics(X, y),
        qr=lambda: leastsquares._each_by_qr(X, y, np.ones(len(y)), lambda *_: None),
    )
    ours, diagnostics, qr = (
        found[name] / found["baseline"] for name in ("ours", "diagnostics", "qr")
    )
    print("n × d = 20,000 × 200")
    print(f"  leave_one_out over GEMM + Cholesky   {ours:8.2f}   (target: at most 2)")
    print(f"  diagnostics over the same            {diagnostics:8.2f}   (target: at most 2)")
    print(f"  QR over the same, if ill-conditioned {qr:8.2f}")

    X, y = data.regression(0, 1_000, 50, condition=2)
    G = X.T @ X
    found = medians(
        30,
        ours=lambda: leastsquares.leave_one_out(X, y),
        baseline=lambda: (X @ G, np.linalg.cholesky(G)),
    )
    start = time.perf_counter()
    OLSInfluence(sm.OLS(y, X).fit()).dfbetas
    dfbetas = (time.perf_counter() - start) / found["ours"]
    print("n × d = 1,000 × 50")
    print(f"  leave_one_out over GEMM + Cholesky   {found['ours'] / found['baseline']:8.2f}")
    print(f"  dfbetas over leave_one_out           {dfbetas:8.0f}   (target: at least 5,000)")


if __name__ == "__main__":
    main()
