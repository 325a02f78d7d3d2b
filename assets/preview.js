/* What a link leads to on the same page, an equation, a statement, a figure or a term, in a box
   beside it while the pointer or the focus is there. Escape closes it; none where nothing hovers. */
addEventListener("DOMContentLoaded", () => {
  const box = document.createElement("div");
  box.className = "preview bd-content";
  box.setAttribute("aria-hidden", "true"); // the link leads there
  const able = matchMedia("(hover: hover) and (min-width: 768px)");
  let shown, timer;

  const previewed = (link) => {
    const found = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    if (!found || found.contains(link)) return null;
    if (found.matches("dt")) return found.nextElementSibling;
    return found.matches("div.math, div.proof, figure") ? found : null;
  };

  const close = () => {
    clearTimeout(timer);
    box.remove();
    shown = null;
  };

  const open = (link) => {
    clearTimeout(timer);
    const found = able.matches && link !== shown && previewed(link);
    if (!found) return;
    shown = link;
    const copy = found.cloneNode(true);
    copy.querySelectorAll(".headerlink").forEach((mark) => mark.remove());
    for (const e of [copy, ...copy.querySelectorAll("[id], [tabindex], a")])
      ["id", "href", "tabindex"].forEach((name) => e.removeAttribute(name));
    box.replaceChildren(copy);
    document.body.append(box);
    put();
  };

  const put = () => {
    const place = shown.getBoundingClientRect();
    const below = place.bottom + box.offsetHeight < innerHeight || place.top < box.offsetHeight;
    box.style.top = `${below ? place.bottom : place.top - box.offsetHeight}px`;
    box.style.left = `${Math.max(8, Math.min(place.left, innerWidth - box.offsetWidth - 24))}px`;
  };

  const soon = (what, ...given) => {
    clearTimeout(timer);
    timer = setTimeout(what, 200, ...given);
  };

  document.querySelectorAll('article a[href^="#"]:not(.headerlink)').forEach((link) => {
    link.addEventListener("pointerenter", () => (link === shown ? clearTimeout(timer) : soon(open, link)));
    link.addEventListener("pointerleave", () => soon(close));
    link.addEventListener("focus", () => link.matches(":focus-visible") && open(link));
    link.addEventListener("blur", close);
    link.addEventListener("click", close);
  });
  box.addEventListener("pointerenter", () => clearTimeout(timer));
  box.addEventListener("pointerleave", () => soon(close));
  addEventListener("keydown", (event) => event.key === "Escape" && close());
  // Focus brings a link into view: then the box goes with it.
  const moved = () => shown && (shown === document.activeElement ? put() : close());
  addEventListener("scroll", moved, { passive: true });
});
