/* The homotopy θ(t, ε) as a figure to turn and to slide. Its numbers stand in the page, as JSON in div.homotopy. */
document.addEventListener("DOMContentLoaded", () => {
  const INK = { optima: ["#007A5E", "#3DC9A4"], path: ["#0072B2", "#5CB8F0"], front: ["#B87A00", "#F0B840"], tangent: ["#D55E00", "#FF8C42"] };
  const lerp = (a, b, s) => a.map((x, i) => x + s * (b[i] - x));
  const at = (row, place) => {
    // the value of a list of points at a place between two of them
    const i = Math.min(Math.floor(place), row.length - 2);
    return lerp(row[i], row[i + 1], place - i);
  };
  const element = (parent, tag, properties = {}, style = "") => {
    const made = Object.assign(document.createElement(tag), properties);
    made.style.cssText = style;
    return parent.appendChild(made);
  };

  function start(box) {
    // theta[k][i] is θ for the k-th ε at progress u = i/steps, where t = scale·u/(1 − u), so that u = 1 is t = ∞.
    const { theta, tangents, scale } = JSON.parse(box.querySelector("script").textContent);
    const levels = theta.length - 1;
    const steps = theta[0].length - 1;
    const tips = [0, levels].map((k, i) => theta[k][steps].map((x, c) => x + 0.3 * tangents[i][c]));
    const all = [...theta.flat(), ...tips];
    const low = [0, 1].map((i) => Math.min(...all.map((p) => p[i])));
    const size = [0, 1].map((i) => Math.max(...all.map((p) => p[i])) - low[i]);

    box.querySelector("p").remove();
    const canvas = element(box, "canvas", {}, "width: 100%; height: 27rem; touch-action: pan-y; cursor: grab; display: block");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "Trajectories from one starting point to a curve of optima, in space: time to the right, the two parameters in depth and upwards. The sliders below turn it.");
    const panel = element(box, "div", {}, "display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: 0.2rem 1.5rem");
    const slider = (name, min, max, step, value) => {
      const label = element(panel, "label", {}, "display: flex; gap: 0.6rem; align-items: center");
      element(label, "span", { textContent: name }, "flex: 0 0 5.5rem");
      const input = element(label, "input", { type: "range", min, max, step }, "flex: 1; min-width: 0");
      input.value = value;
      input.addEventListener("input", draw);
      return input;
    };
    const epsilon = slider("weight ε", 0, 1, 0.01, 0.4);
    const progress = slider("time t", 0, 1, 0.01, 0.5);
    const turn = slider("turn", -180, 180, 1, -32);
    const tilt = slider("tilt", -10, 90, 1, 22);
    const said = element(box, "output", {}, "display: block; margin: 0.3rem 0 1rem; font-variant-numeric: tabular-nums");

    function draw() {
      const dark = document.documentElement.dataset.theme === "dark" ? 1 : 0;
      const text = getComputedStyle(box).color;
      const ratio = window.devicePixelRatio || 1;
      const [width, height] = [canvas.clientWidth, canvas.clientHeight];
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.font = "14px sans-serif";
      pen.lineCap = pen.lineJoin = "round";

      const [a, b] = [turn, tilt].map((input) => (input.value * Math.PI) / 180);
      const zoom = Math.min(width / 2.5, height / 2.2);
      const place = (u, [first, second]) => {
        const x = 1.6 * (u - 0.5);
        const y = (first - low[0]) / size[0] - 0.5;
        const z = (second - low[1]) / size[1] - 0.5;
        const depth = y * Math.cos(a) - x * Math.sin(a);
        const across = x * Math.cos(a) + y * Math.sin(a);
        return [width / 2 + zoom * across, height / 2 - zoom * (z * Math.cos(b) + depth * Math.sin(b))];
      };
      const line = (points, colour, thick, dashes = []) => {
        pen.strokeStyle = colour;
        pen.lineWidth = thick;
        pen.setLineDash(dashes);
        pen.beginPath();
        points.forEach((point) => pen.lineTo(...point));
        pen.stroke();
      };
      const write = (words, [x, y], dx = 0, dy = 0, align = "center") => {
        pen.fillStyle = text;
        pen.textAlign = align;
        pen.fillText(words, x + dx, y + dy);
      };
      const dot = ([x, y], colour, radius) => {
        pen.fillStyle = colour;
        pen.beginPath();
        pen.arc(x, y, radius, 0, 7);
        pen.fill();
      };

      const corner = (u, i, k) => place(u, [low[0] + i * size[0], low[1] + k * size[1]]);
      pen.globalAlpha = 0.35;
      line([corner(1, 0, 0), corner(0, 0, 0), corner(0, 1, 0), corner(1, 1, 0), corner(1, 0, 0), corner(1, 0, 1), corner(1, 1, 1), corner(1, 1, 0)], text, 1);
      line([corner(0, 0, 0), corner(0, 0, 1)], text, 1);
      theta.forEach((row) => line(row.map((point, i) => place(i / steps, point)), text, 1));
      pen.globalAlpha = 1;

      const [e, u] = [Number(epsilon.value), Number(progress.value)];
      const path = theta[0].map((_, i) => at(theta.map((row) => row[i]), e * levels));
      const front = theta.map((row) => at(row, u * steps));
      const now = at(path, u * steps);
      const optima = theta.map((row) => row[steps]);
      line(optima.map((point) => place(1, point)), INK.optima[dark], 3.5);
      line(path.map((point, i) => place(i / steps, point)), INK.path[dark], 2.5);
      line(front.map((point) => place(u, point)), INK.front[dark], 2.5, [6, 5]);
      [optima[0], optima[levels]].forEach((end, i) => {
        line([place(1, end), place(1, tips[i])], INK.tangent[dark], 3, [2, 5]);
        write(i ? "θ̇(1)" : "θ̇(0)", place(1, tips[i]), 8, 4, "left");
        dot(place(1, end), INK.optima[dark], 4.5);
        write(`ε = ${i}`, place(1, end), -10, i ? -8 : 16, "right");
      });
      dot(place(u, now), INK.path[dark], 6);
      dot(place(0, theta[0][0]), text, 4.5);
      write("θ₀", place(0, theta[0][0]), 10, 5, "left");
      write("time →", lerp(corner(0, 0, 0), corner(1, 0, 0), 0.5), 0, 18);
      write("t = ∞", corner(1, 0, 0), 6, 18);
      write("θ₁", lerp(corner(0, 0, 0), corner(0, 1, 0), 0.5), -8, 14, "right");
      write("θ₂", lerp(corner(1, 0, 0), corner(1, 0, 1), 0.5), 8, 4, "left");

      const time = u < 1 ? ((scale * u) / (1 - u)).toFixed(2) : "∞";
      progress.setAttribute("aria-valuetext", time);
      said.textContent = `At ε = ${e.toFixed(2)} and t = ${time}: θ = (${now.map((x) => x.toFixed(2)).join(", ")})`;
    }

    let held = null;
    canvas.addEventListener("pointerdown", (event) => {
      held = [event.clientX, event.clientY, Number(turn.value), Number(tilt.value)];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!held) return;
      turn.value = ((held[2] + (event.clientX - held[0]) / 2 + 540) % 360) - 180;
      tilt.value = held[3] + (event.clientY - held[1]) / 2;
      draw();
    });
    ["pointerup", "pointercancel"].forEach((name) => canvas.addEventListener(name, () => (held = null)));
    new ResizeObserver(draw).observe(canvas);
    new MutationObserver(draw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  }
  document.querySelectorAll("div.homotopy").forEach(start);
});
