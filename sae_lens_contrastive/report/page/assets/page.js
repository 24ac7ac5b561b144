"use strict";
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const precise = matchMedia("(pointer: fine)").matches;
  const config = {
    displaylogo: false,
    displayModeBar: precise ? "hover" : false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    responsive: true,
    typesetMath: false,
  };

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function luminance(rgb) {
    const [r, g, b] = rgb.map((c) => (c <= 10 ? c / 3295 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  // A colour as the page in force shows it: black and white are its own, and on dark none is darker than 3 to 1.
  function shown(hex) {
    const [, digits, alpha] = /^#([0-9a-f]{6})([0-9a-f]{2})?$/i.exec(hex) ?? [];
    if (!digits) return hex;
    if (digits === "000000") return colour("--ink");
    if (digits === "ffffff") return colour("--paper");
    if (!dark.matches) return hex;
    let rgb = [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16));
    while (luminance(rgb) < 0.125) rgb = rgb.map((c) => c + 0.1 * (255 - c));
    return `rgba(${rgb.map(Math.round).join(", ")}, ${parseInt(alpha ?? "ff", 16) / 255})`;
  }

  function inTheme(value, name = "") {
    if (Array.isArray(value)) return value.map((item) => inTheme(item));
    if (value === null || typeof value !== "object") return /color$/.test(name) ? shown(value) : value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, inTheme(item, key)]));
  }

  function colourLegends() {
    for (const shape of document.querySelectorAll("[data-colour]")) {
      shape.setAttribute(shape.hasAttribute("stroke") ? "stroke" : "fill", shown(shape.dataset.colour));
    }
  }

  function layoutOf(plot) {
    const axis = {
      automargin: true,
      gridcolor: colour("--rule"),
      linecolor: colour("--rule"),
      tickcolor: "rgba(0,0,0,0)",
      ticklen: 4,
      ticks: "outside",
      zerolinecolor: colour("--rule"),
      title: { font: { size: 12 }, standoff: 8 },
    };
    const template = {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 11 },
        hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--rule"), font: { color: colour("--ink") } },
        xaxis: axis,
        yaxis: axis,
      },
    };
    const margin = { l: 44, r: 12, t: 26, b: 40 };
    const dragmode = precise ? "zoom" : false;
    return { template, margin, dragmode, height: plot.height, ...inTheme(plot.layout) };
  }

  async function draw(element) {
    const plot = plots[element.dataset.plot];
    await Plotly.react(element, inTheme(plot.data), layoutOf(plot), config);
    element.dataset.drawn = "";
  }

  function drawWhenNear() {
    const seen = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          if (isIntersecting) {
            seen.unobserve(target);
            draw(target);
          }
        }
      },
      { rootMargin: "600px" },
    );
    for (const element of document.querySelectorAll(".plot")) {
      element.style.height = `${plots[element.dataset.plot].height}px`;
      seen.observe(element);
    }
    dark.addEventListener("change", () => {
      colourLegends();
      document.querySelectorAll("[data-drawn]").forEach(draw);
    });
    addEventListener("beforeprint", () => document.querySelectorAll(".plot:not([data-drawn])").forEach(draw));
  }

  function showAndHide(section) {
    for (const entry of section.querySelectorAll(".legend li")) {
      const key = entry.dataset.key;
      const elements = [...section.querySelectorAll(".plot")];
      const of = (element) => plots[element.dataset.plot].data.filter((trace) => trace.legendgroup === key);
      if (!elements.some((element) => of(element).length)) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(...entry.childNodes);
      entry.append(button);
      button.addEventListener("click", () => {
        const shown = button.getAttribute("aria-pressed") === "false";
        button.setAttribute("aria-pressed", String(shown));
        for (const element of elements) {
          for (const trace of of(element)) trace.visible = shown;
          if ("drawn" in element.dataset) draw(element);
        }
      });
    }
  }

  function compare(a, b) {
    const [first, second] = [parseFloat(a), parseFloat(b)];
    if (Number.isNaN(first) || Number.isNaN(second)) return a.localeCompare(b, "en", { numeric: true });
    return first - second;
  }

  function sortable(table) {
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const descending = header.getAttribute("aria-sort") === "ascending";
        headers.forEach((each) => each.removeAttribute("aria-sort"));
        header.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const body = table.tBodies[0];
        const text = (row) => row.cells[column].textContent;
        const [known, unknown] = [[], []];
        for (const row of body.rows) (text(row) === "-" ? unknown : known).push(row);
        known.sort((a, b) => (descending ? -1 : 1) * compare(text(a), text(b)));
        body.append(...known, ...unknown);
      });
    });
  }

  colourLegends();
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("main > section").forEach(showAndHide);
  drawWhenNear();
})();
