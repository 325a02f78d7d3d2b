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

const scrolls = () => {
  document.querySelectorAll("article span.math").forEach((e) => {
    e.classList.remove("wide");
    const boxes = [...e.querySelectorAll(".base")].map((box) => box.getBoundingClientRect().right);
    e.classList.toggle("wide", Math.max(...boxes) > e.parentElement.getBoundingClientRect().right + 1);
  });
  document
    .querySelectorAll("article :is(.katex-display, .math.wide, pre, table, .pst-scrollable-table-container)")
    .forEach((e) => (e.scrollWidth > e.clientWidth ? (e.tabIndex = 0) : e.removeAttribute("tabindex")));
};

addEventListener("DOMContentLoaded", said);
addEventListener("load", scrolls);
addEventListener("resize", scrolls);

/* The file of a page is saved: a browser would show a notebook as text. */
addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".dropdown-download-buttons a").forEach((link) => (link.download = ""));
});
