/* The homotopy θ(t, ε) in space: training time to the right, the two parameters in depth and upwards.
   theta[k][i] is θ for the k-th of equal steps of ε at u = i/steps, where t = scale·u/(1 − u), so that
   u = 1 is t = ∞; tangents are those of the optima at ε = 0 and ε = 1. */
touch.define("homotopy", ({ theta, tangents, scale }, tools) => {
  const { ink } = tools;
  const [levels, steps] = [theta.length - 1, theta[0].length - 1];
  const lerp = (a, b, s) => a.map((x, i) => x + s * (b[i] - x));
  const at = (row, place) => {
    // the value of a list of points at a place between two of them
    const i = Math.min(Math.floor(place), row.length - 2);
    return lerp(row[i], row[i + 1], place - i);
  };
  const optima = theta.map((row) => row[steps]);
  const ends = [0, levels].map((k) => optima[k]);
  const tips = ends.map((end, i) => end.map((x, c) => x + 0.3 * tangents[i][c]));
  const all = [...theta.flat(), ...tips];
  const low = [0, 1].map((c) => Math.min(...all.map((p) => p[c])));
  const size = [0, 1].map((c) => Math.max(...all.map((p) => p[c])) - low[c]);

  const board = tools.board(
    [-1, 1, 1, -1],
    "Trajectories from one starting point to a curve of optima, in space. Arrow keys turn it.",
    { axis: false, keyboard: { enabled: false }, registerEvents: { resize: true } },
  );
  const view = board.create("view3d", [[-9, -9], [18, 18], [[-9, 9], [-9, 9], [-9, 9]]], {
    axesPosition: "none",
    projection: "parallel",
    ...Object.fromEntries(["x", "y", "z"].map((a) => [`${a}PlaneRear`, { visible: false }])),
    az: { slider: { visible: false, min: 0, max: 2 * Math.PI }, pointer: { enabled: false }, keyboard: { enabled: false } },
    el: { slider: { visible: false, min: -Math.PI, max: Math.PI }, pointer: { enabled: false }, keyboard: { enabled: false } },
    bank: { slider: { visible: false }, pointer: { enabled: false }, keyboard: { enabled: false } },
  });
  const shape = board.canvasWidth / board.canvasHeight;
  const lengths = [Math.max(1.15, Math.min(2.6, 1.3 * shape)), 1, Math.max(1, Math.min(1.4, 1.2 / shape))];
  const place = (u, p) => [u, ...p.map((x, c) => (x - low[c]) / size[c])].map((x, i) => lengths[i] * (x - 0.5));
  const flat = (point) => view.project3DTo2D(point).slice(1, 3);

  const curves = [];
  const curve = (points, strokeColor, strokeWidth, more = {}) => {
    const columns = [0, 1, 2].map((c) => points.map((p) => p[c]));
    const made = view.create("curve3d", columns, { strokeColor, strokeWidth, highlight: false, ...more });
    made.put = (moved) => columns.forEach((column, c) => moved.forEach((p, i) => (column[i] = p[c])));
    curves.push({ columns, strokeWidth });
    return made;
  };
  const dot = (point, color) =>
    view.create("point3d", point, { size: 4, strokeColor: color, fillColor: color, fixed: true, withLabel: false, highlight: false, gradient: null });
  const path = (row) => row.map((p, i) => place(i / steps, p));
  const corner = (u, i, k) => place(u, [low[0] + i * size[0], low[1] + k * size[1]]);
  const wall = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]].map(([i, k]) => corner(1, i, k));
  const floor = [corner(1, 0, 0), corner(0, 0, 0), corner(0, 1, 0), corner(1, 1, 0)];
  [wall, floor, [corner(0, 0, 0), corner(0, 0, 1)]].forEach((line) => curve(line, ink.faint, 1.5));
  theta.slice(1, levels).forEach((row) => curve(path(row), ink.grey, 1));
  curve(path(theta[0]), ink.vermilion, 2, { dash: 2 });
  curve(path(theta[levels]), ink.blue, 2);
  curve(optima.map((p) => place(1, p)), ink.green, 4);
  ends.forEach((end, i) => curve([place(1, end), place(1, tips[i])], ink.purple, 3));
  const strong = curve(path(theta[0]), ink.text, 3);
  const front = curve(theta.map(() => corner(0, 0, 0)), ink.amber, 3, { dash: 2 });
  dot(place(0, theta[0][0]), ink.text);
  const now = dot(place(0, theta[0][0]), ink.text);

  /* A label near its point and on the board, where it lies on no other label and on as few lines as can be;
     the thicker a line, the more it counts. */
  const labels = [];
  const label = (words, point, colour) => {
    const spot = { words, point, at: [0, 0] };
    tools.label(board, () => spot.at, words, colour);
    labels.push(spot);
  };
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `12px ${getComputedStyle(board.containerObj).fontFamily}`;
  const dense = (line) =>
    line.slice(1).flatMap((end, i) => {
      const count = Math.ceil(Math.hypot(end[0] - line[i][0], end[1] - line[i][1]) / 8);
      return [...Array(count).keys()].map((k) => lerp(line[i], end, k / count));
    });
  const arrange = () => {
    const units = [board.unitX, -board.unitY];
    const origin = board.origin.scrCoords.slice(1);
    const canvas = [board.canvasWidth, board.canvasHeight];
    const pixel = (point) => flat(point).map((x, i) => origin[i] + units[i] * x);
    const inked = curves.flatMap(({ columns, strokeWidth }) =>
      dense(columns[0].map((_, i) => pixel(columns.map((column) => column[i])))).map((at) => ({ at, strokeWidth })),
    );
    const taken = [];
    labels.forEach((spot) => {
      const half = [pen.measureText(spot.words()).width / 2 + 6, 10];
      const foot = pixel(spot.point());
      const cost = (middle, far) => {
        const over = ([at, other]) =>
          [0, 1].map((i) => Math.max(0, half[i] + other[i] - Math.abs(middle[i] - at[i]))).reduce((a, b) => a * b);
        const under = inked.filter(({ at }) => at.every((x, i) => Math.abs(x - middle[i]) < half[i]));
        const crossed = under.reduce((sum, { strokeWidth }) => sum + strokeWidth ** 2, 0);
        return 10 * taken.reduce((sum, each) => sum + over(each), 0) + 6 * crossed + far;
      };
      const tries = [6, 18, 34].flatMap((far) =>
        [...Array(12).keys()].map((hour) => {
          const way = [Math.cos, Math.sin].map((f) => f((hour * Math.PI) / 6));
          const middle = foot.map((x, i) => Math.min(canvas[i] - half[i], Math.max(half[i], x + way[i] * (far + half[i]))));
          return { middle, cost: cost(middle, far) };
        }),
      );
      const { middle } = tries.reduce((a, b) => (b.cost < a.cost ? b : a));
      taken.push([middle, half]);
      spot.at = middle.map((x, i) => (x - origin[i]) / units[i]);
    });
  };

  const draw = () => {
    const row = theta[0].map((_, i) => at(theta.map((r) => r[i]), epsilon.value * levels));
    const u = time.value;
    const here = at(row, u * steps);
    strong.put(path(row));
    front.put(theta.map((r) => place(u, at(r, u * steps))));
    now.setPosition(place(u, here));
    board.suspendUpdate();
    view.az_slide.setValue(Math.PI + (turn.value * Math.PI) / 180);
    view.el_slide.setValue((tilt.value * Math.PI) / 180);
    view.needsUpdate = true;
    view.update();
    const seen = [0, 1].flatMap((v) => [0, 1].flatMap((i) => [0, 1].map((k) => flat(corner(v, i, k)))));
    const [xs, ys] = [0, 1].map((c) => seen.map((p) => p[c]));
    const unit = Math.max(
      (Math.max(...xs) - Math.min(...xs)) / (board.canvasWidth - 110),
      (Math.max(...ys) - Math.min(...ys)) / (board.canvasHeight - 50),
    );
    const [mx, my] = [xs, ys].map((v) => (Math.max(...v) + Math.min(...v)) / 2);
    const [hx, hy] = [board.canvasWidth, board.canvasHeight].map((v) => (unit * v) / 2);
    board.setBoundingBox([mx - hx, my + hy, mx + hx, my - hy], false);
    arrange();
    board.unsuspendUpdate();
    const [optimum, point] = [row[steps], here].map((p) => `(${p.map((x) => x.toFixed(2).replace("-", "−")).join(", ")})`);
    tools.say(`At ε = ${epsilon.value.toFixed(2)} and t = ${clock(u)}: θ = ${point}; the optimum is ${optimum}.`);
  };
  const clock = (u) => (u < 1 ? ((scale * u) / (1 - u)).toFixed(2) : "∞");
  const degrees = (value) => `${value}°`.replace("-", "−");
  const epsilon = tools.slider("weight ε", { min: 0, max: 1, step: 0.01, value: 0.4, shown: (e) => e.toFixed(2) }, draw);
  const time = tools.slider("time t", { min: 0, max: 1, step: 0.01, value: 0.5, shown: clock }, draw);
  const turn = tools.slider("turn", { min: -180, max: 180, step: 1, value: -28, shown: degrees }, draw);
  const tilt = tools.slider("tilt", { min: 0, max: 90, step: 1, value: 18, shown: degrees }, draw);

  label(() => `ε = ${epsilon.value.toFixed(2)}`, () => now.coords.slice(1), ink.text);
  label(() => "ε = 0", () => place(1, ends[0]), ink.vermilion);
  label(() => "ε = 1", () => place(1, ends[1]), ink.blue);
  label(() => "θ̇(0)", () => place(1, tips[0]), ink.purple);
  label(() => "θ̇(1)", () => place(1, tips[1]), ink.purple);
  label(() => "optima", () => place(1, at(optima, levels / 2)), ink.green);
  label(() => `all at t = ${clock(time.value)}`, () => place(time.value, at(theta[0], time.value * steps)), ink.amber);
  label(() => "θ₀", () => place(0, theta[0][0]), ink.text);
  const forward = () => board.unitX * (flat(corner(1, 0, 0))[0] - flat(corner(0, 0, 0))[0]);
  label(() => (forward() > 0 ? "time t →" : "← time t"), () => corner(0.5, 0, 0), ink.text);
  label(() => "t = ∞", () => corner(1, 1, 1), ink.text);
  label(() => "θ₁", () => corner(0, 0.5, 0), ink.text);
  label(() => "θ₂", () => corner(0, 0, 0.6), ink.text);
  draw();

  /* Dragging turns, and the arrow keys do; a finger that moves up or down scrolls the page instead. */
  const box = board.containerObj;
  const by = (slider, change) => {
    slider.input.value = slider === turn ? ((slider.value + change + 540) % 360) - 180 : slider.value + change;
    slider.input.dispatchEvent(new Event("input"));
  };
  let held = null;
  box.addEventListener("pointerdown", (event) => {
    held = [event.clientX, event.clientY];
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointermove", (event) => {
    if (!held) return;
    const moved = [event.clientX - held[0], event.clientY - held[1]].map((x) => Math.round(x / 2));
    by(turn, moved[0]);
    if (event.pointerType === "mouse") by(tilt, moved[1]);
    held = held.map((x, i) => x + 2 * moved[i]);
  });
  ["pointerup", "pointercancel"].forEach((name) => box.addEventListener(name, () => (held = null)));
  box.tabIndex = 0;
  const keys = { ArrowLeft: [turn, -5], ArrowRight: [turn, 5], ArrowUp: [tilt, -5], ArrowDown: [tilt, 5] };
  box.addEventListener("keydown", (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    by(...keys[event.key]);
  });
});
