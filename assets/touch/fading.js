/* A point of a logistic regression fades: its path in the plane of the parameters, and both tangents. */
touch.define("fading", ({ weight, paths }, { ink, state, board, label, slider, choice, hint, say }) => {
  const names = Object.keys(paths);
  const last = weight.length - 1;
  const plus = (a, b, times) => a.map((v, k) => v + times * b[k]);
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
  const norm = (a) => Math.hypot(...a);

  hint("Choose a point and let its weight fade: by the slider, or, where it has the focus, by the arrow keys.");
  state.point ??= names[1];
  const path = () => paths[state.point].theta;
  const whole = paths[names[0]].theta[last];
  const change = () => plus(path()[0], whole, -1);
  const from = {
    response: (w) => path()[Math.round(w * last)],
    one: (w) => plus(whole, paths[state.point].at_one, w - 1),
    zero: (w) => plus(path()[0], paths[state.point].at_zero, w),
  };
  /* How far θ is from θ*, along the whole change, in per cent of it. */
  const part = (theta) => (100 * dot(plus(theta, whole, -1), change())) / dot(change(), change());
  const gap = (theta, w) => (100 * norm(plus(theta, from.response(w), -1))) / norm(change());

  const plane = board([-0.36, 1.45, 2.2, -0.5], "The parameters as the point fades, with the linearisations at both ends");
  const shares = board([-0.18, 122, 1.1, -19.9], "The part of the change at each weight, in per cent, with both tangents");
  const w = () => state.w ?? 0.5;
  const still = { fixed: true, highlight: false, name: "", showInfobox: false };
  const looks = {
    response: { strokeColor: ink.blue, strokeWidth: 3 },
    one: { strokeColor: ink.vermilion, dash: 2, strokeWidth: 2 },
    zero: { strokeColor: ink.text, dash: 1, strokeWidth: 2 },
  };
  const broad = { strokeWidth: 8, strokeOpacity: 0.35 }; // the tangents lie on it
  const mark = { response: "o", one: "<>", zero: "[]" };

  names.forEach((name) => {
    const { theta } = paths[name];
    plane.create("curve", [theta.map((t) => t[0]), theta.map((t) => t[1])], { ...still, strokeColor: ink.grey, strokeWidth: 1 });
    plane.create("point", theta[0], { ...still, size: 1, color: ink.grey });
    const [by, anchorX] = { benign: [[-8, -8], "right"], "far out": [[0, -14], "middle"], outlier: [[0, 13], "middle"] }[name];
    label(plane, () => theta[0], name, () => (name === state.point ? ink.blue : ink.text), { by, anchorX });
  });
  plane.create("point", whole, { ...still, size: 2, color: ink.text });
  label(plane, () => whole, "all points", ink.text, { by: [8, -12], anchorX: "left" });

  const drawn = (on, at, options) => {
    const curve = on.create("curve", [[], []], { ...still, ...options });
    curve.updateDataArray = () => {
      const points = weight.map(at);
      [curve.dataX, curve.dataY] = [0, 1].map((k) => points.map((p) => p[k]));
    };
  };
  ["response", "zero", "one"].forEach((kind) => {
    const point = { ...still, face: mark[kind], size: kind === "response" ? 5 : 4, strokeColor: looks[kind].strokeColor };
    point.fillColor = kind === "response" ? ink.blue : "none";
    drawn(plane, from[kind], kind === "response" ? { ...looks.response, ...broad } : looks[kind]);
    drawn(shares, (v) => [v, part(from[kind](v))], looks[kind]);
    plane.create("point", [() => from[kind](w())[0], () => from[kind](w())[1]], point);
    shares.create("point", [w, () => part(from[kind](w()))], point);
  });
  /* At the far ends of the tangents; those of the benign point lie on its path, which is too short for words. */
  const far = { "far out": { one: [8, 0, "left"], zero: [8, 0, "left"] }, outlier: { one: [6, -13, "left"], zero: [-20, 14, "middle"] } };
  Object.entries(far).forEach(([name, ends]) =>
    Object.entries(ends).forEach(([kind, [across, up, anchorX]]) => {
      const [at, words] = kind === "one" ? [0, "tangent at 1"] : [1, "tangent at 0"];
      const shown = () => (name === state.point ? words : "");
      label(plane, () => from[kind](at), shown, looks[kind].strokeColor, { by: [across, up], anchorX });
    }),
  );
  const beside = (kind, v) => () => [v, part(from[kind](v))];
  label(shares, beside("response", 0.5), "refits", ink.blue, { by: [8, 8], anchorX: "left" });
  label(shares, beside("one", 0.78), "tangent at 1", ink.vermilion, { by: [-2, -9], anchorX: "right" });
  const steep = () => {
    const v = Math.min(0.55, 78 / (100 - part(from.zero(1))));
    return [v, part(from.zero(v))];
  };
  label(shares, steep, "tangent at 0", ink.text, { by: [-8, 0], anchorX: "right" });

  label(shares, () => [1.08, -14.5], "weight of the point", ink.text, { anchorX: "right" });
  label(shares, () => [0, 114], "per cent of the change", ink.text, { by: [12, 0], anchorX: "left" });
  label(plane, () => [2.18, 0], "θ₁", ink.text, { by: [0, 14], anchorX: "right" });
  label(plane, () => [0, 1.38], "θ₂", ink.text, { by: [12, 0], anchorX: "left" });

  const pair = (theta) => `(${theta.map((v) => v.toFixed(3).replace("-", "−")).join(", ")})`;
  const tell = () => {
    const [one, zero] = [from.one(w()), from.zero(w())];
    say(
      `${state.point}, weight ${w().toFixed(3)}: θ = ${pair(from.response(w()))}. ` +
        `By the linearisation at 1: ${pair(one)}, off by ${gap(one, w()).toFixed(1)}% of the whole change. ` +
        `At 0: ${pair(zero)}, off by ${gap(zero, w()).toFixed(1)}%.`,
    );
  };
  const changed = () => {
    [plane, shares].forEach((on) => on.fullUpdate());
    tell();
  };
  choice("point", names.map((name) => [name, name]), {}, changed);
  slider("weight", { min: 0, max: 1, step: weight[1], key: "w", value: 0.5, shown: (v) => v.toFixed(3) }, changed);
  changed();
});
