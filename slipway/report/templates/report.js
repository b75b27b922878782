"use strict";
// Tables are whole without this: it sorts them by a column, and shows only rows with the words.
(() => {
  const value = (row, at) => {
    const cell = row.cells[at];
    return cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v;
  };
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, "en", { numeric: true });
  };
  for (const table of document.querySelectorAll("table[data-sorts]")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, at) => {
      if (head.dataset.fixed !== undefined) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].sort((a, b) => compare(value(a, at), value(b, at)));
        body.append(...(down ? rows.reverse() : rows));
      });
    });
  }
  for (const find of document.querySelectorAll(".find")) {
    const [input, told] = [find.querySelector("input"), find.querySelector("output")];
    const rows = [...document.getElementById(find.dataset.table).tBodies[0].rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const show = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      rows.forEach((row, at) => {
        row.hidden = !words.every((word) => texts[at].includes(word));
        count += row.hidden ? 0 : 1;
      });
      told.textContent = `${count} of ${rows.length}`;
    };
    find.hidden = false;
    input.addEventListener("input", show);
    input.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { input.value = ""; show(); }
    });
    show();
  }
  document.addEventListener("keydown", (event) => {
    const input = document.querySelector(".find input");
    if (event.key === "/" && input && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      input.focus();
    }
  });
})();
