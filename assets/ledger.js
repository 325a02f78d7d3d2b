/* The ledger's filter: by verdict, by part and by a word, and its order. */
document.addEventListener("DOMContentLoaded", () => {
  const ledger = document.querySelector("div.ledger");
  if (!ledger) return;
  const rows = [...ledger.querySelectorAll(":scope > details")];
  const named = (row, kind) =>
    [...row.classList].find((name) => name.startsWith(kind + "-")).slice(kind.length + 1);
  const facts = rows.map((row, place) => ({
    row,
    place,
    verdict: row.querySelector(".verdict").textContent,
    part: named(row, "part").replaceAll("-", " "),
    text: [...row.querySelectorAll("*")]
      .filter((e) => !e.closest(".katex-html"))
      .flatMap((e) => [...e.childNodes])
      .filter((node) => node.nodeType === Node.TEXT_NODE)
      .map((node) => node.data)
      .join(" ")
      .toLowerCase(),
  }));

  const bar = document.createElement("form");
  bar.className = "ledger-filter";
  bar.addEventListener("submit", (event) => event.preventDefault());
  const field = (text, element) => {
    const label = document.createElement("label");
    label.append(text + " ", element);
    bar.append(label);
    return element;
  };
  const choice = (text, options) => {
    const select = field(text, document.createElement("select"));
    options.forEach(([value, shown]) => select.append(new Option(shown, value)));
    return select;
  };
  const unique = (kind) => [...new Set(facts.map((fact) => fact[kind]))].map((v) => [v, v]);
  const verdict = choice("Verdict", [["", "all"], ...unique("verdict")]);
  const part = choice("Part", [["", "all"], ...unique("part")]);
  const order = choice("Order", [["place", "of the notes"], ["verdict", "by verdict"]]);
  const word = field("Word", document.createElement("input"));
  word.type = "search";
  const count = document.createElement("output");
  bar.append(count);
  ledger.before(bar);

  const apply = () => {
    let shown = 0;
    const words = word.value.toLowerCase().split(/\s+/);
    facts.forEach((fact) => {
      const fits =
        (!verdict.value || fact.verdict === verdict.value) &&
        (!part.value || fact.part === part.value) &&
        words.every((each) => fact.text.includes(each));
      fact.row.hidden = !fits;
      shown += fits;
    });
    count.textContent = `${shown} of ${facts.length}`;
  };
  order.addEventListener("change", () => {
    const by = (fact) => (order.value === "verdict" ? fact.verdict : "");
    const sorted = facts.toSorted((a, b) => by(a).localeCompare(by(b)) || a.place - b.place);
    ledger.append(...sorted.map((fact) => fact.row));
  });
  bar.addEventListener("input", apply);
  apply();
});
