// The value under the pointer, in every chart; of several series the nearest one that is shown.
for (const chart of document.querySelectorAll(".chart")) {
  const points = JSON.parse(chart.dataset.points), hover = chart.querySelector(".hover");
  const [line, dot, text] = hover.children, {width, height} = chart.viewBox.baseVal;
  const set = (node, values) => Object.entries(values).forEach(([name, value]) => node.setAttribute(name, value));
  const shown = (point) => point[3] === undefined || !chart.querySelector(`.series.off[data-series="${point[3]}"]`);
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect(), near = points.filter(shown);
    if (!near.length) return;
    const at = (event.clientX - box.left) / box.width * width, up = (event.clientY - box.top) / box.height * height;
    const far = ([x, y]) => 1000 * Math.abs(x - at) + Math.abs(y - up);
    const [x, y, label] = near.reduce((a, b) => far(b) < far(a) ? b : a), top = Number(chart.dataset.top);
    set(line, {x1: x, x2: x, y1: top, y2: chart.dataset.bottom});
    set(dot, {cx: x, cy: y});
    set(text, {y: top + 10, "text-anchor": x > width / 2 ? "end" : "start"});
    text.replaceChildren(...label.split("\n").map((words, i) => {
      const row = document.createElementNS(text.namespaceURI, "tspan");
      set(row, {x: x > width / 2 ? x - 8 : x + 8, dy: i ? 14 : 0});
      row.textContent = words;
      return row;
    }));
    hover.classList.add("on");
  });
  chart.addEventListener("pointerleave", () => hover.classList.remove("on"));
}
// A name in a legend shows and hides its series, in every chart beside it.
for (const key of document.querySelectorAll(".keys button")) {
  key.addEventListener("click", () => {
    const on = key.getAttribute("aria-pressed") !== "true";
    key.setAttribute("aria-pressed", on);
    for (const series of key.closest(".plot").querySelectorAll(`.series[data-series="${key.dataset.series}"]`)) {
      series.classList.toggle("off", !on);
    }
  });
}
