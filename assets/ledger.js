/* Sorts the ledger by a column when its head is pressed; ids sort as C3 < C3b < C10. */
document.addEventListener("DOMContentLoaded", () => {
  const order = new Intl.Collator("en", { numeric: true });
  document.querySelectorAll("table.ledger").forEach((table) => {
    const heads = [...table.querySelectorAll("thead th")];
    const body = table.querySelector("tbody");
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.querySelector("p").childNodes);
      head.querySelector("p").append(button);
      button.addEventListener("click", () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        const text = (row) => row.cells[column].textContent.trim();
        const rows = [...body.rows].sort((a, b) => sign * order.compare(text(a), text(b)));
        body.append(...rows);
      });
    });
  });
});
