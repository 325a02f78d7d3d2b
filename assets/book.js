/* Folds open where a link leads into them, and for print. */
const opened = (element) => {
  for (let e = element; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
};

const follow = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const fold = target && target.closest("details");
  if (fold && !fold.open) {
    opened(fold);
    target.scrollIntoView();
  } else if (target && target.tagName === "DETAILS") target.open = true;
};

addEventListener("hashchange", follow);
addEventListener("DOMContentLoaded", follow);
addEventListener("beforeprint", () => {
  document.querySelectorAll("article details:not([open])").forEach((fold) => {
    fold.open = true;
    addEventListener("afterprint", () => (fold.open = false), { once: true });
  });
});

/* What the theme leaves unsaid: the name of a button is what stands on it, the side bar is a
   landmark, and what scrolls can be reached by keys. */
const said = () => {
  document.querySelectorAll(".search-button-field").forEach((e) => e.removeAttribute("aria-label"));
  document.querySelectorAll(".theme-switch-button i").forEach((e) => {
    e.removeAttribute("title");
    e.setAttribute("aria-hidden", "true");
  });
  const bar = document.getElementById("pst-primary-sidebar");
  if (bar) bar.setAttribute("role", "navigation"), bar.setAttribute("aria-label", "The book");
};

/* All is measured before anything is written: the page is laid out once. */
const scrolls = () => {
  const all = (kind) => [...document.querySelectorAll(`article ${kind}`)];
  const right = (e) => e.getBoundingClientRect().right;
  const formulas = all("span.math");
  formulas.forEach((e) => e.classList.remove("wide"));
  const block = (e) => (getComputedStyle(e).display === "inline" ? block(e.parentElement) : e);
  const wide = formulas.map((e) => {
    const end = right(block(e.parentElement)) + 1;
    return [...e.querySelectorAll(".base")].some((box) => right(box) > end);
  });
  formulas.forEach((e, i) => e.classList.toggle("wide", wide[i]));
  const boxes = all(":is(.katex-display, .math.wide, pre, table, .pst-scrollable-table-container)");
  const scroll = boxes.map((e) => e.scrollWidth > e.clientWidth);
  boxes.forEach((e, i) => (scroll[i] ? (e.tabIndex = 0) : e.removeAttribute("tabindex")));
};

addEventListener("DOMContentLoaded", said);
addEventListener("load", scrolls);
addEventListener("resize", scrolls);
addEventListener("toggle", scrolls, true); // what a fold hid had no size

/* The file of a page is saved: a browser would show a notebook as text. */
addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".dropdown-download-buttons a").forEach((link) => (link.download = ""));
});
