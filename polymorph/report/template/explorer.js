// The ladder by site, pair, map and step. Names come into the page as text alone, never as markup.
(() => {
  const stored = document.getElementById("numbers");
  if (!stored) return;
  const data = JSON.parse(stored.textContent);
  const NOTHING = -32768, LARGEST = 32767, FLOOR = -2, SQUEEZE = 4;
  const at = (name) => document.getElementById(`explorer-${name}`);
  const LINES_AT_FIRST = ["identity", "orthogonal", "affine", "documents permuted", "ceiling"];

  const unpacked = (text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true));
  };
  const measures = [data.turn, data.turn_of_one, data.determined, data.angle].filter(Boolean);
  for (const series of [...data.r2, ...measures]) {
    for (const name of ["low", "middle", "high", "values", "halves"]) {
      if (series[name]) series[name] = unpacked(series[name]);
    }
  }

  // One number with its range at a place; of a pair, where a seed stands against itself, that of its target.
  const read = (series, site, pair, step) => {
    if (!series) return null;
    const steps = data.steps.length;
    const number = (list, place) => (list[place] === NOTHING ? null : list[place] * series.unit);
    if (pair < 0) {
      const place = site * steps + step;
      const value = number(series.middle, place);
      return value === null ? null : { value, low: number(series.low, place), high: number(series.high, place), end: Math.abs(series.middle[place]) === LARGEST };
    }
    const ends = series.ends === "seeds" ? data.seeds.length : data.pairs.length;
    const end = series.ends === "seeds" ? data.seeds.indexOf(data.pairs[pair][1]) : pair;
    const place = (site * ends + end) * steps + step;
    const value = number(series.values, place);
    if (value === null) return null;
    const half = series.halves ? number(series.halves, place) : null;
    return { value, low: half === null ? null : value - half, high: half === null ? null : value + half, end: Math.abs(series.values[place]) === LARGEST };
  };

  const written = (value, digits = 3) => {
    const text = value.toFixed(digits);
    return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
  };
  const shown = (found, digits = 3) => (!found ? "–" : found.end ? (found.value < 0 ? "< −3.27" : "> 3.27") : written(found.value, digits));
  const ranged = (found) => (!found || found.low === null || found.end ? "–" : `${written(Math.max(found.low, -3.27))} to ${written(found.high)}`);
  const grouped = (whole) => String(whole).replace(/\B(?=(\d{3})+$)/g, ",");
  const short = (step) => (step >= 1e6 ? `${step / 1e6}M` : step >= 1e3 ? `${step / 1e3}k` : String(step));
  const named = (step) => (step === null ? "the only state" : `step ${grouped(step)}`);
  const squeezed = (value) => (Math.max(value, FLOOR) < 0 ? Math.max(value, FLOOR) / SQUEEZE : value);

  const drawn = (tag, attributes, parent, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  const made = (tag, text, parent) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  const line = (parent, x1, y1, x2, y2, more) => drawn("line", { x1, y1, x2, y2, ...more }, parent);

  // The controls.
  data.sites.forEach((site, i) => { made("option", site, at("site")).value = i; });
  made("option", data.pairs.length ? `all ${data.pairs.length} pairs: median and range` : "all pairs: median and range", at("pair")).value = -1;
  data.pairs.forEach(([source, target], i) => { made("option", `seed ${source} → seed ${target}`, at("pair")).value = i; });
  const boxes = data.r2.map((series) => {
    const label = made("label", undefined, at("lines"));
    const box = made("input", undefined, label);
    box.type = "checkbox";
    box.checked = LINES_AT_FIRST.includes(series.name);
    const key = made("span", undefined, label);
    key.className = series.kind === "map" ? "key" : "key dashed";
    key.style.borderTopColor = series.colour;
    made("span", series.kind === "control" ? `${series.name} (control)` : series.name, label);
    box.addEventListener("change", () => show());
    return box;
  });
  at("site").value = Math.max(0, data.sites.length - 1);
  at("lines").hidden = data.steps.length < 2;
  for (const name of ["site", "pair"]) at(name).addEventListener("change", () => show());
  at("step").addEventListener("input", () => show());
  document.querySelector("#explorer .controls").classList.toggle("single", data.steps.length < 2);
  document.querySelector("#explorer .panels").classList.toggle("single", data.steps.length < 2);

  // R² of every map at a step: a row each, with its numbers as text, in three groups.
  const GROUPS = { map: ["maps", null], control: ["controls", "Controls: orthogonal maps that have not seen the pairing"], ceiling: ["ceilings", "Ceiling: one seed against itself"] };
  const row = (series, found, ceiling) => {
    const line_ = made("tr", undefined, at(GROUPS[series.kind][0]));
    made("th", series.name, line_).scope = "row";
    const cell = made("td", undefined, line_);
    cell.className = "track";
    const svg = drawn("svg", { "aria-hidden": "true" }, cell);
    const x = (value) => `${(3 + (94 * (squeezed(Math.min(value, 1)) + 0.5)) / 1.5).toFixed(2)}%`;
    line(svg, x(0), 0, x(0), 18, { stroke: "#9a9a9a" });
    line(svg, x(1), 0, x(1), 18, { stroke: "#dddddd" });
    if (ceiling) line(svg, x(ceiling.value), 0, x(ceiling.value), 18, { stroke: "#222222", "stroke-dasharray": "4 3" });
    if (found) {
      if (found.low !== null) line(svg, x(found.low), 9, x(found.high), 9, { stroke: series.colour, "stroke-width": 3, "stroke-opacity": 0.45 });
      drawn("circle", { cx: x(found.value), cy: 9, r: 4.5, fill: series.kind === "control" ? "#ffffff" : series.colour, stroke: series.colour, "stroke-width": 2 }, svg);
    }
    made("td", shown(found), line_);
    made("td", ranged(found), line_);
  };
  const rows = (site, pair, step) => {
    const ceiling = read(data.r2.find((series) => series.kind === "ceiling"), site, pair, step);
    for (const [kind, [place, heading]] of Object.entries(GROUPS)) {
      at(place).replaceChildren();
      const own = data.r2.filter((series) => series.kind === kind);
      if (heading && own.length) {
        const line_ = made("tr", undefined, at(place));
        line_.className = "group";
        const head = made("th", heading, line_);
        head.scope = "rowgroup";
        head.colSpan = 4;
      }
      for (const series of own) row(series, read(series, site, pair, step), ceiling);
    }
  };

  // A plot against training steps; `lines` are [colour, dashed, [{value, low, high} or null for every step]].
  const plot = (place, title, lines, low, high, scale, ticks, chosen, marks) => {
    place.replaceChildren();
    const W = 460, H = 230, L = 42, R = 12, T = 26, B = 34;
    const svg = drawn("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}; the numbers at the chosen step stand in words above` }, place);
    drawn("text", { x: 6, y: 15, class: "title" }, svg, title);
    const furthest = Math.log10(Math.max(...data.steps, 1)) + 0.35;
    const x = (step) => L + ((W - L - R) * (step < 1 ? 0.35 * step : 0.35 + Math.log10(step))) / (furthest || 1);
    const y = (value) => H - B - ((H - T - B) * (scale(Math.max(low, Math.min(high, value))) - scale(low))) / (scale(high) - scale(low));
    for (const tick of ticks) {
      line(svg, L, y(tick), W - R, y(tick), { class: "grid" });
      drawn("text", { x: L - 5, y: y(tick) + 4, "text-anchor": "end" }, svg, String(tick).replace("-", "−"));
    }
    for (let power = 1; power <= Math.max(...data.steps, 1); power *= 10) {
      drawn("text", { x: x(power), y: H - B + 15, "text-anchor": "middle" }, svg, short(power));
    }
    if (data.steps.includes(0)) drawn("text", { x: x(0), y: H - B + 15, "text-anchor": "middle" }, svg, "0");
    drawn("text", { x: (L + W - R) / 2, y: H - 4, "text-anchor": "middle" }, svg, "training step");
    line(svg, L, H - B, W - R, H - B, { class: "axis" });
    for (const [value, reach, name] of marks) {
      if (reach) drawn("rect", { x: L, y: y(reach[1]), width: W - L - R, height: Math.max(1, y(reach[0]) - y(reach[1])), fill: "#222222", "fill-opacity": 0.1 }, svg);
      line(svg, L, y(value), W - R, y(value), { stroke: "#222222", "stroke-dasharray": "2 3" });
      drawn("text", { x: W - R, y: y(value) - 5, "text-anchor": "end" }, svg, name);
    }
    line(svg, x(data.steps[chosen]), T, x(data.steps[chosen]), H - B, { class: "now" });
    for (const [colour, dashed, found] of lines) {
      const known = found.map((one, i) => one && [x(data.steps[i]), one]).filter(Boolean);
      const band = known.filter(([, one]) => one.low !== null);
      if (band.length > 1) {
        const edge = [...band.map(([px, one]) => `${px} ${y(one.high)}`), ...band.reverse().map(([px, one]) => `${px} ${y(one.low)}`)];
        drawn("polygon", { points: edge.join(" "), fill: colour, "fill-opacity": 0.15 }, svg);
      }
      drawn("polyline", { points: known.map(([px, one]) => `${px} ${y(one.value)}`).join(" "), fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dashed ? "6 3" : "none" }, svg);
      if (found[chosen]) drawn("circle", { cx: x(data.steps[chosen]), cy: y(found[chosen].value), r: 4, fill: colour }, svg);
    }
  };

  const over = (series, site, pair) => data.steps.map((_, step) => read(series, site, pair, step));

  const plots = (site, pair, step) => {
    const chosen = data.r2.filter((_, i) => boxes[i].checked);
    const lines = chosen.map((series) => [series.colour, series.kind !== "map", over(series, site, pair)]);
    const least = Math.min(0, ...lines.flatMap(([, , found]) => found.filter(Boolean).map((one) => one.low ?? one.value)));
    const low = Math.max(FLOOR, least - 0.1);
    plot(at("r2"), "R² over training", lines, low, 1.05, squeezed, [-2, -1, 0, 0.25, 0.5, 0.75, 1].filter((tick) => tick >= low), step, []);
    const d = data.dimensions[site];
    at("turn").replaceChildren();
    if (!data.turn || d === null) return;
    const turns = [["#0072b2", false, over(data.turn, site, pair)], ...(data.turn_of_one ? [["#222222", true, over(data.turn_of_one, site, pair)]] : [])];
    const haar = Math.sqrt(2 * d);
    const top = 1.12 * Math.max(haar, ...turns.flatMap(([, , found]) => found.filter(Boolean).map((one) => one.high ?? one.value)));
    const unit = 10 ** Math.floor(Math.log10(top)), by = top / unit > 4 ? 2 * unit : top / unit > 2 ? unit : unit / 2;
    const ticks = Array.from({ length: Math.floor(top / by) + 1 }, (_, i) => Number((i * by).toPrecision(6)));
    const band = [Math.sqrt(Math.max(0, 2 * d - 4)), Math.sqrt(2 * d + 4)];
    plot(at("turn"), "‖R − I‖: two seeds; dashed: one seed against itself", turns, 0, top, (value) => value, ticks, step, [[haar, band, `√(2d) = ${written(haar, 2)}, Haar ± 2 SD`]]);
  };

  // What is drawn, in words.
  const sentence = (site, pair, step) => {
    const one = (name) => data.r2.find((series) => series.name === name && series.kind !== "control");
    const who = pair < 0 ? "median over all directed pairs" : `seed ${data.pairs[pair][0]} → seed ${data.pairs[pair][1]}`;
    const parts = ["identity", "orthogonal", "affine", "ceiling"]
      .filter((name) => one(name))
      .map((name) => `${name} ${shown(read(one(name), site, pair, step))}`);
    const d = data.dimensions[site], turn = read(data.turn, site, pair, step), r = read(data.determined, site, pair, step);
    const told = [`${data.sites[site]}, ${named(data.steps[step])}, ${who}. R²: ${parts.join(", ")}.`];
    if (turn && d !== null) told.push(`‖R − I‖ = ${shown(turn, 2)}, hence tr R = ${written(d - turn.value ** 2 / 2, 1)}; a uniformly random matrix has ${written(Math.sqrt(2 * d), 2)} and 0.`);
    if (r && d !== null) told.push(`The data determine ${written(r.value, 0)} of ${d} dimensions of R.`);
    return told.join(" ");
  };

  const show = () => {
    const [site, pair, step] = ["site", "pair", "step"].map((name) => Number(at(name).value));
    const place = data.steps.length > 1 ? ` (${step + 1} of ${data.steps.length})` : "";
    at("at").textContent = named(data.steps[step]) + place;
    at("step").setAttribute("aria-valuetext", named(data.steps[step]));
    at("said").textContent = sentence(site, pair, step);
    at("spread").textContent = pair < 0 ? "least to greatest" : "95 % interval";
    rows(site, pair, step);
    if (data.steps.length > 1) plots(site, pair, step);
  };

  document.getElementById("explorer").hidden = false;
  show();
})();
