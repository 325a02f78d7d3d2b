/* Figures to touch. A page has div.touch[data-figure=NAME] with its numbers as JSON, of which "caption",
   if there is one, is written below; touch/NAME.js calls touch.define(NAME, draw), and
   draw(numbers, tools) puts the figure into the box by JSXGraph. */
const touch = {
  base: document.currentScript.src.replace(/touch\.js.*$/, ""),
  figures: {},
  define(name, draw) {
    touch.figures[name] = draw;
  },
};

touch.load = (path) =>
  (touch.loading ??= {})[path] ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = touch.base + path;
    script.onload = done;
    script.onerror = failed;
    document.head.append(script);
  });

/* What a figure is made with. `state` outlives a change of theme, at which the figure is drawn again. */
touch.tools = (box, state, drawn) => {
  const part = (name) => Object.assign(box.appendChild(document.createElement("div")), { className: name });
  const boards = part("touch-boards");
  const panel = part("touch-panel");
  const said = box.appendChild(document.createElement("output"));
  said.setAttribute("aria-live", "polite");
  const field = (text, element) => {
    const label = panel.appendChild(document.createElement("label"));
    const name = label.appendChild(document.createElement("span"));
    name.textContent = text;
    label.append(element);
    return element;
  };
  const style = getComputedStyle(box);
  const ink = Object.fromEntries(
    ["blue", "vermilion", "green", "purple", "amber", "grey", "text", "faint"].map((name) => [
      name,
      style.getPropertyValue(`--ink-${name}`).trim(),
    ]),
  );
  return {
    ink,
    state,
    /* A board of JSXGraph above the sliders: [left, top, right, bottom]; label: what a screen reader says.
       Two stand beside each other where there is room. A finger scrolls the page, except from a handle. */
    board(bounds, label, options = {}) {
      const div = document.createElement("div");
      div.className = "jxgbox";
      div.id = `${box.dataset.figure}-board-${boards.children.length}`;
      boards.append(div);
      const axis = { strokeColor: ink.grey, ticks: { strokeColor: ink.faint, label: { strokeColor: ink.text, cssStyle: "" } } };
      const board = JXG.JSXGraph.initBoard(div.id, {
        boundingbox: bounds,
        axis: true,
        defaultAxes: { x: axis, y: axis },
        showCopyright: false,
        showNavigation: false,
        pan: { enabled: false },
        zoom: { enabled: false },
        keyboard: { enabled: true, panShift: false, panCtrl: false },
        resize: { enabled: true },
        title: label,
        description: label,
        ...options,
      });
      const keep = (event) => board.mode === board.BOARD_MODE_DRAG && event.preventDefault();
      div.addEventListener("touchstart", keep, { passive: false });
      drawn.push(board);
      return board;
    },
    /* A point to move, by the arrow keys too; label: what a screen reader says. */
    handle(board, at, label, colour) {
      const colours = { color: colour, highlightFillColor: colour, highlightStrokeColor: colour };
      const point = board.create("point", at, { name: "", showInfobox: false, size: 6, tabindex: 0, ...colours });
      point.rendNode.setAttribute("role", "application");
      point.rendNode.setAttribute("aria-label", label);
      return point;
    },
    /* Words beside the point at(): `by` pixels [right, up] from it; anchors as in JSXGraph. */
    label(board, at, text, colour, { by = [0, 0], anchorX = "middle", anchorY = "middle" } = {}) {
      const place = [() => at()[0] + by[0] / board.unitX, () => at()[1] + by[1] / board.unitY];
      const options = { display: "internal", fixed: true, highlight: false, parse: false, strokeColor: colour };
      return board.create("text", [...place, text], { ...options, anchorX, anchorY });
    },
    /* A range with a name; `shown` turns its value into the words beside it. */
    slider(text, { min, max, step, key = text, value, shown = String }, changed) {
      const input = field(text, document.createElement("input"));
      Object.assign(input, { type: "range", min, max, step });
      input.value = state[key] ?? value;
      const beside = input.after(document.createElement("span")) ?? input.nextSibling;
      const say = () => {
        state[key] = Number(input.value);
        beside.textContent = shown(state[key]);
        input.setAttribute("aria-valuetext", beside.textContent);
      };
      input.addEventListener("input", () => (say(), changed()));
      say();
      return { get value() { return state[key]; }, input };
    },
    /* A choice among [value, words]. */
    choice(text, options, { key = text } = {}, changed) {
      const select = field(text, document.createElement("select"));
      options.forEach(([value, words]) => select.append(new Option(words, value)));
      select.value = state[key] ?? options[0][0];
      select.addEventListener("input", () => ((state[key] = select.value), changed()));
      return { get value() { return select.value; }, select };
    },
    button(text, pressed) {
      const made = panel.appendChild(document.createElement("button"));
      Object.assign(made, { type: "button", textContent: text });
      made.addEventListener("click", pressed);
      return made;
    },
    /* What there is to do, above the boards. */
    hint: (text) => boards.before(Object.assign(document.createElement("p"), { textContent: text })),
    /* The numbers of the figure, in words, below it. */
    say: (text) => (said.textContent = text),
  };
};

touch.start = async (box) => {
  const name = box.dataset.figure;
  const numbers = JSON.parse(box.querySelector("script").textContent);
  const [state, drawn] = [{}, []];
  await touch.load("jsxgraph/jsxgraphcore.js");
  await touch.load(`touch/${name}.js`);
  const draw = () => {
    drawn.splice(0).forEach((board) => JXG.JSXGraph.freeBoard(board));
    box.replaceChildren();
    touch.figures[name](numbers, touch.tools(box, state, drawn));
    if (numbers.caption) {
      const caption = { className: "touch-caption", textContent: numbers.caption };
      box.append(Object.assign(document.createElement("p"), caption));
    }
    box.dataset.ready = "";
  };
  draw();
  const theme = { attributes: true, attributeFilter: ["data-theme"] };
  new MutationObserver(draw).observe(document.documentElement, theme);
};

document.addEventListener("DOMContentLoaded", () => {
  const near = new IntersectionObserver(
    (seen) =>
      seen.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
        near.unobserve(target);
        touch.start(target);
      }),
    { rootMargin: "1000px" },
  );
  document.querySelectorAll("div.touch").forEach((box) => near.observe(box));
});
