/* Sorts the ledger by a column when its head is pressed. */
document.addEventListener("DOMContentLoaded", () => {
  const order = new Intl.Collator("en", { numeric: true });
  document.querySelectorAll("table.ledger").forEach((table) => {
    const heads = [...table.querySelectorAll("thead th")];
    [...table.tBodies[0].rows].forEach((row, place) => (row.dataset.place = place));
    const body = table.querySelector("tbody");
    heads.slice(0, -1).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.querySelector("p").childNodes);
      head.querySelector("p").append(button);
      button.addEventListener("click", () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        // The first column sorts by the notes' order, which is that of the rows as they came.
        const text = (row) => (column ? row.cells[column].textContent.trim() : row.dataset.place);
        const rows = [...body.rows].sort((a, b) => sign * order.compare(text(a), text(b)));
        body.append(...rows);
      });
    });
  });
});
