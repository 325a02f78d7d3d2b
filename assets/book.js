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
