// The list filters as one types, and code can be copied. Both pages are whole without this.
(() => {
  const form = document.querySelector("form.search");
  if (form) {
    const input = form.querySelector("input");
    const status = form.querySelector("[role=status]");
    const nothing = document.querySelector(".nothing");
    const rows = [...document.querySelectorAll(".datasets > li")];
    const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().replace(/[_\s]+/g, " ");
    const texts = rows.map((row) => plain(`${row.textContent} ${row.dataset.words}`));

    const search = () => {
      const words = plain(input.value).split(" ").filter(Boolean);
      let found = 0;
      rows.forEach((row, index) => {
        const shown = words.every((word) => texts[index].includes(word));
        row.hidden = !shown;
        found += shown;
      });
      if (nothing) nothing.hidden = found > 0 || !words.length;
      status.textContent = words.length ? `${found} of ${rows.length}` : "";
      const address = new URL(location);
      words.length ? address.searchParams.set("q", input.value) : address.searchParams.delete("q");
      try { history.replaceState(null, "", address); } catch { /* a page from a file has no such history */ }
    };
    const clear = () => { input.value = ""; search(); input.focus(); };
    const links = () => rows.filter((row) => !row.hidden).map((row) => row.querySelector("h2 a"));

    input.addEventListener("input", search);
    form.addEventListener("submit", (event) => { event.preventDefault(); links()[0]?.focus(); });
    nothing?.querySelector("button").addEventListener("click", clear);
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "/" && document.activeElement !== input) {
        event.preventDefault();
        input.focus();
      } else if (event.key === "Escape" && input.value) {
        event.preventDefault();
        clear();
      } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        const stops = [input, ...links()];
        const here = stops.indexOf(document.activeElement);
        if (here < 0) return;
        event.preventDefault();
        stops[Math.min(Math.max(here + (event.key === "ArrowDown" ? 1 : -1), 0), stops.length - 1)].focus();
      }
    });
    form.hidden = false;
    input.value = new URL(location).searchParams.get("q") ?? "";
    search();
  }

  for (const button of document.querySelectorAll("button.copy")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
})();
