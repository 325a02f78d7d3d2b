"""The problem as the weight sees it: in the span K of x_j, H₋ⱼx_j, H₋ⱼ²x_j, …"""

import numpy as np

ROUNDING = np.finfo(float).eps


class Reduced:
    """The part of w in K, in a Lanczos basis from x, of a `Problem` p.

    There H₋ⱼ is a Jacobi matrix and x a multiple of e₁. k : the dimension of K; length : T − s;
    w, x, c : as in the problem; rounding : what rounding of the problem may change in w; parts :
    for ε = 0 and ε = 1 the eigenvalues, the eigenvectors, and the state at rest in their basis.
    Knots are the times in [0, length] at which the weight jumps: it is 1 up to the first, 0 up to
    the second, and so on.
    """

    def __init__(self, p):
        basis, size = [], np.linalg.norm(p.A)
        v = p.x
        while len(basis) < len(p.x):
            for _ in range(2):
                for u in basis:
                    v = v - (u @ v) * u
            norm = np.linalg.norm(v)
            if norm <= 1e-10 * (np.linalg.norm(p.x) if not basis else size):
                break
            basis.append(v / norm)
            v = p.A @ basis[-1]
        Q = np.array(basis).reshape(len(basis), len(p.x))
        self.k, self.length, self.c = len(basis), p.T - p.s, p.c
        self.w, self.x, J = Q @ p.w, Q @ p.x, Q @ p.A @ Q.T
        self.parts = []
        for epsilon in (0, 1) if self.k else ():
            values, V = np.linalg.eigh(J + epsilon * np.outer(self.x, self.x))
            rest = self.x @ V / values * self.c if epsilon else np.zeros(self.k)
            self.parts.append((values, V, rest))
        decay = np.exp(-self.parts[1][0][0] * p.s) if self.k else 1.0
        self.rounding = p.rounding * decay

    def free(self, length):
        """½|w(length)|² for ε = 0."""
        return (self.advance(self.w, 0, length) ** 2).sum() / 2

    def decayed(self, knots, length):
        """½|w(length)|² if c were 0, and what of it, with c, need not be told from 0.

        That is 1e-20 of the former, or what rounding makes of w: 256 units in the last place of w
        and of the state at rest. Both belong to this weight: for ε = 0 they may be larger by any
        factor.
        """
        ends, before = np.vstack([self.w, np.eye(self.k)]), 0.0
        for i, after in enumerate([*knots, length]):
            ends, before = self.advance(ends, 1 - i % 2, after - before, rest=False), after
        size = np.linalg.norm(self.w) + np.linalg.norm(self.parts[1][2])
        rounded = (256 * ROUNDING * size) ** 2 * (ends[1:] ** 2).sum()
        value = ends[0] @ ends[0] / 2
        return value, max(1e-20 * value, rounded / 2)

    def advance(self, w, epsilon, time, rest=True):
        """w (…, k) after `time` (…) with a constant weight; the adjoint's flow for rest=False.

        An optimiser may ask for negative times, which are allowed as long as they do not overflow.
        """
        values, V, still = self.parts[epsilon]
        power = np.minimum(-np.multiply.outer(time, values), 50)
        modes = w @ V * np.exp(power)
        return (modes - still * np.expm1(power) if rest and epsilon else modes) @ V.T

    def ends(self, knots, length):
        """w at `length`, (m, k), for knots (m, N)."""
        w, before = np.broadcast_to(self.w, (len(knots), self.k)), 0.0
        for i in range(knots.shape[1] + 1):
            after = knots[:, i] if i < knots.shape[1] else length
            w, before = self.advance(w, 1 - i % 2, after - before), after
        return w

    def along(self, knots, length):
        """The states at the knots, (N, k), and w at `length`."""
        states, w, before = [], self.w, 0.0
        for i, after in enumerate([*knots, length]):
            w, before = self.advance(w, 1 - i % 2, after - before), after
            states.append(w)
        return np.array(states[:-1]).reshape(-1, self.k), w

    def slopes(self, knots, length, states, adjoint):
        """ρ at the knots, (N,), and xᵀλ there, for λ at `length`, (k,) or (r, k): (…, N)."""
        mu, after = [], length
        for i in reversed(range(len(knots))):
            adjoint = self.advance(adjoint, i % 2, after - knots[i], rest=False)
            after = knots[i]
            mu.append(adjoint @ self.x)
        mu = np.array(mu[::-1]).T.reshape(*adjoint.shape[:-1], len(knots))
        return states @ self.x - self.c, mu

    def cost(self, knots, length):
        """½|w|² at `length`, and its derivatives in the knots."""
        states, w = self.along(knots, length)
        rho, mu = self.slopes(knots, length, states, w)
        return w @ w / 2, signs(len(knots)) * mu * rho

    def wrong(self, knots, length):
        """∫|μρ| dt over where ε is 1 and μρ < 0, or 0 and μρ > 0, and where that is worst."""
        states, adjoint = self.along(knots, length)
        nodes, shares = np.polynomial.legendre.leggauss(64)
        edges, states = [0.0, *knots, length], [self.w, *states]
        total, worst = 0.0, (0.0, 0.0)
        for i in reversed(range(len(edges) - 1)):
            span, epsilon = edges[i + 1] - edges[i], 1 - i % 2
            t = span * (nodes + 1) / 2
            rho = self.advance(states[i], epsilon, t) @ self.x - self.c
            product = rho * (self.advance(adjoint, epsilon, span - t, rest=False) @ self.x)
            wrong = np.maximum(-product if epsilon else product, 0)
            total += span / 2 * shares @ wrong
            largest = wrong.max() if span > 0 else 0.0
            worst = max(worst, (largest, edges[i] + t[np.argmax(wrong)]))
            adjoint = self.advance(adjoint, epsilon, span, rest=False)
        return float(total), worst[1]


def signs(N):
    """Of the jump of ε at each of N knots, which begin with 1: −1 down, 1 up."""
    return np.where(np.arange(N) % 2, 1, -1)
