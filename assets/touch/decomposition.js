/* The five gaps of the error decomposition as bars. tables[task][n][steps][damping] is [quantiles, control,
   effect, ratios]: of the five and the direct distance 10 %, median, 90 %; of the five the medians with nothing
   removed, and of the effect; the first three over the other two, of the gaps and of the effect. */
touch.define("decomposition", ({ names, tables, floor, start }, tools) => {
  const { ink, state } = tools;
  const RANGE = [Math.log10(floor), 0.3];
  const ROWS = [0, -1, -2, -3.15, -4.15, -5.3]; // where the bars lie: the three, the two, the direct distance
  const COLOURS = [ink.blue, ink.green, ink.purple, ink.vermilion, ink.amber, ink.grey];
  const HALF = 7; // of a bar's height, in pixels
  const rows = [...names, "direct distance"];
  [state.task, state.size, state.stop] = [state.task ?? start[0], state.size ?? start[1], state.stop ?? start[2]];
  let [found] = Object.values(tables[start[0]][start[1]][start[2]]); // what is drawn

  const power = (k) => `10${[...String(k)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("")}`;
  const number = (v) => {
    if (v >= 100) return v.toFixed();
    if (v >= 0.001) return v.toPrecision(3);
    if (v < floor) return `below ${power(RANGE[0])}`;
    const [digits, exponent] = v.toExponential(2).split("e");
    return `${digits}·${power(Number(exponent))}`;
  };
  const thousands = (text) => text.replace(/(\d)(\d{3})$/, "$1,$2");

  tools.hint("Choose a model, the number n of examples, the steps of training and the damping.");
  const board = tools.board(
    [RANGE[0] - 0.15, 1.55, RANGE[1] + 0.15, -6.75],
    "The five gaps as bars on a logarithmic axis, and the direct distance; the numbers are in the words below",
    { axis: false, keyboard: { enabled: false }, registerEvents: { resize: true } },
  );
  const [right, up] = [(pixels) => pixels / board.unitX, (pixels) => pixels / board.unitY];
  const place = (v) => Math.min(RANGE[1], Math.max(RANGE[0], Math.log10(v)));
  const GAP = [NaN, NaN];
  const curve = (points, options) => {
    const made = board.create("curve", [[], []], { fixed: true, highlight: false, ...options });
    made.updateDataArray = () => [made.dataX, made.dataY] = [0, 1].map((c) => points().map((p) => p[c]));
  };
  const span = (from, to, y) => {
    const cap = [y - up(4), y + up(4)];
    return [[from, cap[0]], [from, cap[1]], GAP, [from, y], [to, y], GAP, [to, cap[0]], [to, cap[1]]];
  };
  const tick = (x, y) => [[x, y - up(HALF + 4)], [x, y + up(HALF + 4)]];
  const ring = (x, y) =>
    [...Array(25).keys()].map((i) => [x + right(5 * Math.cos((i * Math.PI) / 12)), y + up(5 * Math.sin((i * Math.PI) / 12))]);
  const ground = getComputedStyle(board.containerObj).backgroundColor;
  const LOOKS = {
    span: { strokeColor: ink.text, strokeWidth: 1.5 },
    tick: { strokeColor: ink.text, strokeWidth: 3.5 },
    ring: { strokeColor: ink.text, strokeWidth: 2, fillColor: ground, fillOpacity: 1 },
  };

  /* The axis, and above the bars what the marks mean. */
  const BOTTOM = -5.85;
  for (let k = RANGE[0]; k <= 0; k++) {
    curve(() => [[k, BOTTOM], [k, 0.8]], { strokeColor: ink.faint, strokeWidth: 1 });
    if (k > RANGE[0] && (k - RANGE[0]) % 2 === 0) tools.label(board, () => [k, BOTTOM], power(k), ink.text, { by: [0, -11] });
  }
  const left = { anchorX: "left" };
  tools.label(board, () => [RANGE[0], BOTTOM], `≤ ${power(RANGE[0])}`, ink.text, { ...left, by: [0, -11] });
  tools.label(board, () => [RANGE[1], BOTTOM], "distance in outputs", ink.text, { anchorX: "right", by: [0, -28] });
  const KEY = 1.2;
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `12px ${getComputedStyle(board.containerObj).fontFamily}`;
  let offset = 4; // pixels from the left
  const key = (draw, look, text, by) => {
    const at = offset;
    curve(() => draw(RANGE[0] + right(at), KEY), look);
    tools.label(board, () => [RANGE[0], KEY], text, ink.text, { ...left, by: [at + by, 0] });
    offset += by + pen.measureText(text).width + 18;
  };
  key(tick, LOOKS.tick, "nothing removed", 7);
  key(ring, LOOKS.ring, "the effect", 10);
  key((x, y) => span(x, x + right(20), y), LOOKS.span, "10 to 90 %", 27);
  [[0, "retraining to PBRF"], [3, "PBRF to the estimate"]].forEach(([i, text]) =>
    tools.label(board, () => [RANGE[1], ROWS[i]], text, ink.text, { anchorX: "right", by: [0, HALF + 10] }),
  );

  rows.forEach((name, i) => {
    const y = ROWS[i];
    const ends = () => found[0].map((row) => place(row[i]));
    const bar = () => {
      const [low, high, end] = [y - up(HALF), y + up(HALF), ends()[1]];
      return [[RANGE[0], low], [end, low], [end, high], [RANGE[0], high], [RANGE[0], low]];
    };
    /* Strokes from the lower to the upper edge, cut off at the ends of the bar. */
    const hatch = () => {
      const length = (ends()[1] - RANGE[0]) * board.unitX;
      const strokes = [];
      for (let x = -2 * HALF; x < length; x += 7) {
        const cut = [Math.max(0, -x), Math.min(2 * HALF, length - x)];
        strokes.push(...cut.map((s) => [RANGE[0] + right(x + s), y + up(s - HALF)]), GAP);
      }
      return strokes;
    };
    const two = i === 3 || i === 4;
    const fill = { fillColor: COLOURS[i], fillOpacity: two ? 0.12 : 0.4 };
    curve(bar, { strokeColor: COLOURS[i], strokeWidth: 2, ...fill });
    if (two) curve(hatch, { strokeColor: COLOURS[i], strokeWidth: 1.5 });
    const mark = (draw, look, row) =>
      curve(() => (found[row][i] >= floor ? draw(place(found[row][i]), y) : []), look);
    curve(() => (found[0][2][i] >= floor ? span(ends()[0], ends()[2], y) : []), LOOKS.span);
    mark(tick, LOOKS.tick, 1);
    mark(ring, LOOKS.ring, 2);
    const text = () => `${name}\u2002${number(found[0][1][i])}`;
    tools.label(board, () => [RANGE[0], y], text, ink.text, { ...left, by: [0, HALF + 10] });
  });

  const of = () => tables[task.value][size.value];
  const stops = () => Object.keys(of());
  const stop = () => stops()[steps.value];
  const trained = (K) => (K === "settled" ? K : thousands(K));
  const show = () => {
    found = of()[stop()][damping.value];
    board.fullUpdate();
    const [[low, middle, high], control, effect, ratios] = found;
    const lines = rows.map((name, i) => {
      const spread = high[i] >= floor ? ` (${number(low[i])} to ${number(high[i])})` : "";
      const own = `${name[0].toUpperCase()}${name.slice(1)} ${number(middle[i])}${spread}`;
      return i < 5 ? `${own}; nothing removed ${number(control[i])}; effect ${number(effect[i])}.` : `${own}.`;
    });
    const length = stop() === "settled" ? "trained to a minimum" : `${trained(stop())} steps`;
    tools.say(
      [
        `${task.value}, n = ${thousands(size.value)}, ${length}, damping ${damping.value}: medians (10 to 90 %).`,
        ...lines,
        `The first three together are ${number(ratios[0])} times the other two; in the effect ${number(ratios[1])} times.`,
      ].join("\n"),
    );
  };
  /* The options that there are; what the reader has chosen stays if it is among them, else it is the last. */
  const fill = ({ select }, values, chosen) => {
    select.replaceChildren(...values.map((value) => new Option(thousands(value), value)));
    select.value = values.includes(chosen) ? chosen : values.at(-1);
  };
  const put = () => {
    const at = stops().indexOf(state.stop);
    steps.input.max = stops().length - 1;
    steps.input.value = at < 0 ? stops().length - 1 : at;
    steps.input.dispatchEvent(new Event("input"));
  };
  const sized = () => {
    fill(size, Object.keys(tables[task.value]), state.size);
    put();
  };
  const task = tools.choice("model", Object.keys(tables).map((name) => [name, name]), { key: "task" }, sized);
  const size = tools.choice("examples n", Object.keys(tables[state.task]).map((n) => [n, n]), { key: "size" }, put);
  const all = stops();
  const steps = tools.slider(
    "steps",
    { min: 0, max: all.length - 1, step: 1, key: "step", value: all.indexOf(state.stop), shown: (i) => trained(stops()[i]) },
    () => {
      state.stop = stop();
      fill(damping, Object.keys(of()[stop()]).reverse(), state.damping);
      show();
    },
  );
  const damping = tools.choice("damping", [["0.01", "0.01"]], { key: "damping" }, show);
  sized();
});
