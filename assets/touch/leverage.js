/* A line through ten points, one of which moves: its leverage, residuals and Cook's distance. */
touch.define("leverage", ({ inputs, targets, start }, { ink, state, board, handle, label, hint, say }) => {
  const STEP = 0.25; // of an arrow key
  const NEAR = 0.15; // a point that is dragged so near to the dashed line goes onto it
  const [LEFT, RIGHT, LOW, HIGH] = [0, 9, 0, 7]; // where the point may go
  const mean = (values) => values.reduce((a, b) => a + b) / values.length;

  /* Least squares with an intercept. */
  const line = (x, y) => {
    const [mx, my] = [mean(x), mean(y)];
    const spread = x.reduce((sum, v) => sum + (v - mx) ** 2, 0);
    const slope = x.reduce((sum, v, i) => sum + (v - mx) * (y[i] - my), 0) / spread;
    const at = (v) => my + slope * (v - mx);
    const s2 = x.reduce((sum, v, i) => sum + (y[i] - at(v)) ** 2, 0) / (x.length - 2);
    return { at, slope, s2, leverage: (v) => 1 / x.length + (v - mx) ** 2 / spread };
  };

  hint(
    "Drag the purple point, or give it the focus and use the arrow keys; the other nine stay. " +
      "The thick bar is its residual ê, thick and dotted together its miss ê/(1 − h), how far it is " +
      "from the line of the nine. Outward along this dashed line h grows, and Cook's distance stays 0.",
  );
  let plane;
  const step = { enabled: true, panShift: false, panCtrl: false, dx: () => STEP * plane.unitX, dy: () => STEP * plane.unitY };
  const name = "A line through ten points, and the line without the point that moves";
  plane = board([-1.2, 9.5, 12.4, -1.2], name, { keyboard: step });
  const still = { fixed: true, highlight: false, name: "", strokeWidth: 2 };
  inputs.forEach((x, i) =>
    plane.create("point", [x, targets[i]], { ...still, size: 3, color: ink.grey, showInfobox: false }),
  );
  label(plane, () => [5, -1], "input x", ink.text);
  label(plane, () => [0, 9.1], "target y", ink.text, { by: [8, 0], anchorX: "left" });
  state.at ??= start;
  const point = handle(plane, state.at, "The point that moves", ink.purple);
  const [x, y] = [() => point.X(), () => point.Y()];
  const without = line(inputs, targets);
  const all = () => line([...inputs, x()], [...targets, y()]);

  const drawn = (of, options) =>
    plane.create("line", [() => of().at(0), () => of().slope, () => -1], { ...still, ...options });
  const beside = () => without;
  drawn(all, { strokeColor: ink.blue });
  drawn(beside, { strokeColor: ink.vermilion, dash: 2 });
  const upright = (of, options) => {
    const foot = plane.create("point", [x, () => of().at(x())], { visible: false });
    plane.create("segment", [point, foot], { ...still, strokeColor: ink.purple, ...options });
  };
  upright(beside, { dash: 1 });
  upright(all, { strokeWidth: 4 });

  /* Each line has its name at its right end, on the side where the other is not. */
  const named = (text, of, other, colour, width) => {
    const end = 10.8;
    const place = () => {
      const side = Math.sign(of().at(end) - other().at(end)) || (of === all ? 1 : -1);
      const room = (Math.abs(of().slope) * width) / 2 / plane.unitX + 11 / plane.unitY;
      const height = of().at(end) + side * room;
      return [end, Math.min(9, Math.max(-0.6, height))];
    };
    label(plane, place, text, colour);
  };
  named("all ten", all, beside, ink.blue, 40);
  named("without it", beside, all, ink.vermilion, 70);

  const number = (value, digits = 2) => (Number(value.toFixed(digits)) || 0).toFixed(digits).replace("-", "−");
  const tell = () => {
    const fit = all();
    const [h, e] = [fit.leverage(x()), y() - fit.at(x())];
    const D = (e ** 2 * h) / (2 * fit.s2 * (1 - h) ** 2);
    say(
      `The point at (${number(x())}, ${number(y())}): leverage h = ${number(h, 3)}, ` +
        `residual ê = ${number(e)}, miss ê/(1 − h) = ${number(e / (1 - h))}, ` +
        `Cook's distance ${number(D)}.`,
    );
  };
  point.on("drag", (event) => {
    const within = (value, low, high) => Math.min(high, Math.max(low, value));
    const [across, up] = [within(x(), LEFT, RIGHT), within(y(), LOW, HIGH)];
    const height = without.at(across);
    const pulled = event?.type !== "keydown" && Math.abs(up - height) < NEAR;
    state.at = [across, pulled ? within(height, LOW, HIGH) : up];
    point.moveTo(state.at);
    tell();
  });
  plane.update();
  tell();
});
