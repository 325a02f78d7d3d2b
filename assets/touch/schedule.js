/* A weight ε(t) to draw, linear between knots [t, ε], and where training with it ends, beside the optimal one. */
touch.define("schedule", ({ X, y, start, target, T, switches, least, path }, tools) => {
  const { ink, state } = tools;
  const COUNT = 10; // knots
  const SNAP = 0.03; // a weight this near to 0 or 1 is that
  const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);

  /* −∇ of the risk with the weight ε on the first example. */
  const velocity = (theta, epsilon) => {
    const pulls = X.map((x, i) => (i ? 1 : epsilon) * (y[i] - dot(x, theta)));
    return theta.map((_, c) => X.reduce((sum, x, i) => sum + pulls[i] * x[c], 0));
  };
  const fast = X.reduce((sum, x) => sum + dot(x, x), 0); // no mode is faster
  /* The states on the way, by Runge and Kutta's method, in steps that end at the knots. */
  const trained = (knots) => {
    const states = [start];
    knots.slice(1).forEach(([to, last], i) => {
      const [from, first] = knots[i];
      const steps = Math.ceil(((to - from) * fast) / 0.05);
      const h = (to - from) / steps;
      for (let n = 0; n < steps; n++) {
        const theta = states.at(-1);
        const slope = (share, by, k) =>
          velocity(theta.map((v, c) => v + by * h * k[c]), first + ((last - first) * (n + share)) / steps);
        const k1 = slope(0, 0, theta);
        const k2 = slope(0.5, 0.5, k1);
        const k3 = slope(0.5, 0.5, k2);
        const k4 = slope(1, 1, k3);
        states.push(theta.map((v, c) => v + (h / 6) * (k1[c] + 2 * k2[c] + 2 * k3[c] + k4[c])));
      }
    });
    return states;
  };
  const objective = (end) => end.reduce((sum, v, c) => sum + (v - target[c]) ** 2, 0) / 2;

  const even = (epsilon) => [...Array(COUNT).keys()].map((i) => [(i * T) / (COUNT - 1), epsilon]);
  const steps = [0, ...switches, T]; // of the optimal weight, which is 0 first, then 1, then 0
  const optimal = steps.slice(1).flatMap((to, i) => [[steps[i], i % 2], [to, i % 2]]);
  /* As many knots as there are handles: more in the middle of the longest pieces. */
  const filled = (knots) => {
    const all = knots.map((k) => [...k]);
    while (all.length < COUNT) {
      const lengths = all.slice(1).map((k, i) => k[0] - all[i][0]);
      const i = lengths.indexOf(Math.max(...lengths));
      all.splice(i + 1, 0, [0, 1].map((c) => (all[i][c] + all[i + 1][c]) / 2));
    }
    return all;
  };
  state.knots ??= even(0.5);

  tools.hint("Drag the points of the weight, or give one the focus and use the arrow keys.");
  let plan;
  const byKey = { dx: () => (T / 50) * plan.unitX, dy: () => 0.05 * plan.unitY };
  const keyboard = { enabled: true, panShift: false, panCtrl: false, ...byKey };
  const area = [-0.14 * T, 1.26, 1.08 * T, -0.2];
  plan = tools.board(area, "The weight of the example over time", {
    keyboard,
    axis: false,
    moveTarget: document, // a point is held outside the board, too
  });
  const still = { fixed: true, highlight: false, name: "", withLabel: false, showInfobox: false };
  const line = (board, points, strokeColor, more = {}) => {
    const made = board.create("curve", [[], []], { strokeColor, strokeWidth: 2.5, highlight: false, ...more });
    made.updateDataArray = () => [made.dataX, made.dataY] = [0, 1].map((c) => points().map((p) => p[c]));
    return made;
  };
  const words = (board, at, text, colour, place = {}) => tools.label(board, () => at, text, colour, place);
  line(plan, () => [[0, 1], [T, 1], [T, 0], [0, 0], [0, 1]], ink.faint, { strokeWidth: 1 });
  [0, 1].forEach((e) => words(plan, [0, e], `${e}`, ink.text, { by: [-18, 0] }));
  words(plan, [0, 0.5], "ε", ink.text, { by: [-18, 0] });
  words(plan, [0, 0], "t = 0", ink.text, { by: [4, -18] });
  words(plan, [T, 0], `t = T = ${T}`, ink.text, { by: [0, -18], anchorX: "right" });
  words(plan, [(switches[0] + switches[1]) / 2, 1], "optimal", ink.green, { by: [0, 18] });
  line(plan, () => optimal, ink.green, { dash: 2 });
  line(plan, () => state.knots, ink.blue);
  const handles = state.knots.map((knot, i) => {
    const made = tools.handle(plan, knot, "", ink.blue);
    made.on("drag", () => {
      const [low, high] = [state.knots[i - 1]?.[0] ?? 0, state.knots[i + 1]?.[0] ?? T];
      const t = i === 0 ? 0 : i === COUNT - 1 ? T : Math.min(high, Math.max(low, made.X()));
      const e = Math.min(1, Math.max(0, made.Y()));
      state.knots[i] = [t, e < SNAP ? 0 : e > 1 - SNAP ? 1 : e];
      show();
    });
    return made;
  });

  const plane = tools.board([-1.15, 0.8, 1.6, -0.95], "The two parameters: the ways of training and their ends", {
    axis: false,
    keepAspectRatio: true,
  });
  let states = trained(state.knots);
  const radius = Math.sqrt(2 * least);
  plane.create("circle", [target, radius], { ...still, strokeColor: ink.green, strokeWidth: 1, dash: 2 });
  line(plane, () => path, ink.green, { dash: 2 });
  line(plane, () => states, ink.blue);
  plane.create("point", path.at(-1), { ...still, face: "[]", size: 5, color: ink.green });
  plane.create("point", [() => states.at(-1)[0], () => states.at(-1)[1]], { ...still, face: "[]", size: 5, color: ink.blue });
  plane.create("point", target, { ...still, face: "x", size: 6, color: ink.text });
  words(plane, target, "θ*₋ⱼ", ink.text, { by: [0, -16] });
  tools.label(plane, () => states.at(-1), "yours", ink.blue, { by: [0, -17] });
  const corner = (x, y) => () => {
    const [left, top, right, bottom] = plane.getBoundingBox();
    return [x ? right : left, y ? top : bottom];
  };
  tools.label(plane, corner(1, 0), "θ₁ →", ink.text, { by: [-8, 14], anchorX: "right" });
  tools.label(plane, corner(0, 1), "↑ θ₂", ink.text, { by: [8, -14], anchorX: "left" });
  tools.label(plane, corner(1, 1), `from θ₀ = (${start.join(", ")})`, ink.text, { by: [-8, -14], anchorX: "right" });

  const number = (value) => value.toPrecision(4).replace("-", "−");
  const show = () => {
    states = trained(state.knots);
    state.knots.forEach(([t, e], i) => {
      handles[i].moveTo([t, e]);
      const said = `Point ${i + 1} of ${COUNT}: weight ${e.toFixed(2)} at t = ${t.toFixed(3)}`;
      handles[i].rendNode.setAttribute("aria-label", said);
    });
    plan.update();
    plane.update();
    const value = objective(states.at(-1));
    tools.say(
      `Your weight leaves 𝓔 = ${number(value)}, ${(value / least).toFixed(2)} times the least, ` +
        `${number(least)}, which the optimal one leaves.`,
    );
  };
  const put = (knots) => () => {
    state.knots = knots;
    show();
  };
  tools.button("the optimal one", put(filled(optimal)));
  tools.button("drop at once", put(even(0)));
  show();
});
