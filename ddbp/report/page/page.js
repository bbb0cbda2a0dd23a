// Draws the figures of a page by uPlot. Everything that comes from a run is text, never markup.
(() => {
  "use strict";

  const DATA = JSON.parse(document.getElementById("data").textContent);
  const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
  const COLOURS = 8;
  const MISSING = 65535, ZERO = 65534, CODES = 65533;
  // Points of the map viridis (CC0), from dark to bright.
  const RAMP = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121],
    [110, 206, 88], [181, 222, 43], [253, 231, 37]];
  const plots = new Set();

  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const ofSeries = n => colour(`--c${n % COLOURS}`);
  const dash = n => DASHES[Math.floor(n / COLOURS) % DASHES.length];

  function ramp(share) {
    const at = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1), low = Math.min(Math.floor(at), RAMP.length - 2);
    return `rgb(${RAMP[low].map((c, k) => Math.round(c + (RAMP[low + 1][k] - c) * (at - low))).join(",")})`;
  }

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "onclick") made.addEventListener("click", value);
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  function shown(value) {
    if (value === null || value === undefined || Number.isNaN(value)) return "none";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace(/\.?0+e/, "e");
    return String(Number(value.toPrecision(4)));
  }

  function bytes(text) {
    return Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  }

  function fitted(text, room) {
    return text.length > room ? `…${text.slice(1 - room)}` : text;
  }

  // What acts on a figure: zooming for all, and what one kind has more.
  function tools(plot, ...more) {
    const zoom = factor => () => zoomed(plot.u, factor);
    const all = element("div", { class: "tools" },
      element("button", { type: "button", "aria-label": "Zoom in", onclick: zoom(0.5) }, "+"),
      element("button", { type: "button", "aria-label": "Zoom out", onclick: zoom(2) }, "−"),
      element("button", { type: "button", "aria-label": "Show all", onclick: () => reset(plot.u) }, "all"), ...more);
    return all;
  }

  function related(u) {
    const key = u.cursor.sync && u.cursor.sync.key;
    return key ? [...plots].map(each => each.u).filter(each => each.cursor.sync && each.cursor.sync.key === key) : [u];
  }

  function reset(u) {
    for (const each of related(u)) {
      const x = each.data[0];
      each.setScale("x", each.limits || { min: x[0], max: x[x.length - 1] });
    }
  }

  function zoomed(u, factor) {
    const { min, max } = u.scales.x, middle = u.cursor.idx === null ? (min + max) / 2 : u.data[0][u.cursor.idx];
    if (!(max > min)) return;
    const low = middle - (middle - min) * factor, high = middle + (max - middle) * factor;
    for (const each of related(u)) each.setScale("x", { min: low, max: high });
  }

  // Keys within a plot: a cursor that moves by points, by tenths, to the ends; up and down are the plot's own.
  function keyboard(plot, host, vertical) {
    host.addEventListener("keydown", event => {
      const u = plot.u, x = u.data[0], last = x.length - 1;
      let at = u.cursor.idx === null || u.cursor.idx === undefined ? -1 : u.cursor.idx;
      const tenth = Math.max(1, Math.round(last / 10));
      const moves = { ArrowRight: 1, ArrowLeft: -1, PageDown: tenth, PageUp: -tenth };
      if (event.key in moves) at = Math.min(Math.max(at + moves[event.key], 0), last);
      else if (event.key === "Home") at = 0;
      else if (event.key === "End") at = last;
      else if (event.key === "+") return void zoomed(u, 0.5);
      else if (event.key === "-") return void zoomed(u, 2);
      else if (event.key === "0" || event.key === "Escape") return void reset(u);
      else if (vertical && (event.key === "ArrowUp" || event.key === "ArrowDown")) vertical(event.key === "ArrowUp" ? -1 : 1);
      else return;
      event.preventDefault();
      at = Math.max(at, 0);
      if (x[at] < u.scales.x.min || x[at] > u.scales.x.max) reset(u);
      u.setCursor({ left: u.valToPos(x[at], "x"), top: plot.top === undefined ? u.bbox.height / devicePixelRatio / 2 : plot.top(u) });
    });
  }

  function sized(plot, place, height) {
    const width = () => Math.max(100, place.clientWidth);
    new ResizeObserver(() => {
      if (plot.u.width !== width()) plot.u.setSize({ width: width(), height });
    }).observe(place);
    return { width: width(), height };
  }

  function axis(more) {
    return { stroke: () => colour("--soft"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { stroke: () => colour("--line"), width: 1 },
      font: "12px system-ui, sans-serif", ...more };
  }

  function marks(u) {
    const context = u.ctx;
    context.save();
    context.strokeStyle = context.fillStyle = colour("--bad");
    context.lineWidth = devicePixelRatio;
    context.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    context.textBaseline = "alphabetic";
    DATA.marks.forEach((mark, n) => {
      if (mark.x < u.scales.x.min || mark.x > u.scales.x.max) return;
      const x = Math.round(u.valToPos(mark.x, "x", true));
      context.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
      context.beginPath();
      context.moveTo(x, u.bbox.top);
      context.lineTo(x, u.bbox.top + u.bbox.height);
      context.stroke();
      const late = x > u.bbox.left + u.bbox.width * 0.7;
      context.textAlign = late ? "right" : "left";
      const at = [fitted(mark.text, 20), x + (late ? -3 : 3) * devicePixelRatio, u.bbox.top + (11 + 12 * (n % 4)) * devicePixelRatio];
      // It must be read on every colour of a map.
      context.save();
      context.setLineDash([]);
      context.lineWidth = 4 * devicePixelRatio;
      context.strokeStyle = colour("--panel");
      context.strokeText(...at);
      context.restore();
      context.fillText(...at);
    });
    context.restore();
  }

  function near(x) {
    const at = DATA.marks.filter(mark => Math.abs(mark.x - x) < 0.5);
    return at.length ? `; finding: ${at.map(mark => mark.text).join(", ")}` : "";
  }

  const values = (axisOf, splits) => splits.map(value => value === null ? "" : shown(value));

  function lines(figure, place, plot, readout) {
    const series = figure.series, points = figure.kind === "points", bars = figure.kind === "bars";
    const columns = [], looks = [{ label: figure.x }], bands = [], rowOf = [];
    series.forEach((each, n) => {
      const tables = [each.x, each.y, ...(each.low ? [each.low, each.high] : [])];
      columns.push(tables);
      const look = {
        label: each.label, stroke: () => ofSeries(n), width: 2, dash: dash(n), spanGaps: true,
        points: { show: points || each.x.length < 30, size: points ? 4 : 5, fill: () => ofSeries(n) },
      };
      if (points) look.paths = () => null;
      if (bars) Object.assign(look, { paths: uPlot.paths.bars({ size: [0.9, Infinity] }), fill: () => ofSeries(n), points: { show: false } });
      rowOf.push(looks.length);
      looks.push(look);
      if (each.low) {
        const at = looks.length;
        const edge = { label: "", stroke: "transparent", width: 0, points: { show: false }, spanGaps: true, of: n };
        looks.push({ ...edge }, { ...edge });
        bands.push({ series: [at + 1, at], fill: () => `${ofSeries(n)}40` });
      }
    });
    // Of a cloud several points lie at one x.
    const x = points ? series[0].x : [...new Set(series.flatMap(each => each.x))].sort((a, b) => a - b);
    const where = new Map(x.map((value, n) => [value, n]));
    const data = points ? [x, series[0].y] : [x];
    for (const [own, ...ys] of points ? [] : columns) {
      for (const y of ys) {
        // A value that is not there at this x is undefined, which no gap is made for.
        const column = new Array(x.length).fill(undefined);
        own.forEach((value, n) => { column[where.get(value)] = y[n]; });
        data.push(column);
      }
    }
    const logarithmic = on => on ? data.map((column, n) => n === 0 ? column : column.map(y => y > 0 ? y : y === undefined ? undefined : null)) : data;
    let log = figure.log;
    const steps = figure.x === "step";
    const make = () => {
      const options = {
        ...sized(plot, place, 230), series: looks, bands, legend: { show: false },
        scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
        axes: [axis({ label: figure.x, labelSize: 18, labelFont: "12px system-ui, sans-serif", values }), axis({ size: 64, values: log ? (u, splits) => splits.map(v => v === null ? "" : v.toExponential(0)) : values })],
        cursor: { drag: { x: true, y: false }, focus: { prox: 30 }, ...(steps ? { sync: { key: "step", scales: ["x", null], setSeries: false } } : {}) },
        hooks: {
          setCursor: [u => {
            const at = u.cursor.idx;
            if (at === null || at === undefined) return;
            const said = series.map((each, n) => {
              const row = rowOf[n];
              let near = at;
              while (near >= 0 && data[row][near] === undefined) near -= 1;
              return u.series[row].show && near >= 0 ? `${each.label} ${shown(data[row][near])}` : "";
            });
            readout.textContent = `${figure.x} ${shown(x[at])}: ${said.filter(Boolean).slice(0, 8).join(", ")}${steps ? near(x[at]) : ""}`;
          }],
          draw: steps ? [marks] : [],
        },
      };
      if (bars) options.scales.y.range = (u, low, high) => [0, high * 1.05];
      if (plot.u) plot.u.destroy();
      plot.u = new uPlot(options, logarithmic(log), place);
      if (points) {
        // Of several points at an end of the axis uPlot draws the first.
        const low = x[0], high = x[x.length - 1], room = (high - low) / 50 || 0.5;
        plot.u.limits = { min: low - room, max: high + room };
        plot.u.setScale("x", plot.u.limits);
      }
    };
    make();
    keyboard(plot, place);
    const keys = [];
    if (series.length > 1) series.forEach((each, n) => {
      const rows = looks.flatMap((look, row) => look.of === n || row === rowOf[n] ? [row] : []);
      const stroke = element("span");
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      svg.setAttribute("viewBox", "0 0 26 8"); svg.setAttribute("aria-hidden", "true");
      for (const [key, value] of Object.entries({ x1: 0, x2: 26, y1: 4, y2: 4, "stroke-width": 3, "stroke-dasharray": dash(n).join(" "), style: `stroke: var(--c${n % COLOURS})` })) line.setAttribute(key, value);
      svg.append(line);
      stroke.append(svg);
      const key = element("button", { type: "button", class: "key", "aria-pressed": "true", onclick: () => {
        const on = key.getAttribute("aria-pressed") !== "true";
        key.setAttribute("aria-pressed", String(on));
        rows.forEach(row => { looks[row].show = on; plot.u.setSeries(row, { show: on }); });
      } }, stroke, each.label);
      keys.push(key);
    });
    const more = [];
    if (!points && !bars && series.some(each => each.y.some(y => y > 0))) {
      const button = element("button", { type: "button", "aria-pressed": String(log), onclick: () => {
        log = !log;
        button.setAttribute("aria-pressed", String(log));
        make();
      } }, "logarithmic");
      more.push(button);
    }
    place.after(tools(plot, ...more, ...keys));
  }

  // Cells on a plot of uPlot: a column for each step, `rows` of them, coloured by `share(column, row)` in 0 to 1, NaN for none.
  function cells(figure, place, plot, readout, given) {
    const steps = figure.steps, edges = steps.map((step, n) => n ? (steps[n - 1] + step) / 2 : step - (steps.length > 1 ? (steps[1] - step) / 2 : 0.5));
    edges.push(steps.length > 1 ? steps[steps.length - 1] + (steps[steps.length - 1] - steps[steps.length - 2]) / 2 : steps[0] + 0.5);
    const limits = { min: edges[0], max: edges[edges.length - 1] };
    let row = 0;
    const draw = u => {
      const context = u.ctx, { left, top, width, height } = u.bbox, count = given.rows();
      context.save();
      context.beginPath();
      context.rect(left, top, width, height);
      context.clip();
      const ys = Array.from({ length: count + 1 }, (_, n) => Math.round(top + height * n / count));
      for (let column = 0; column < steps.length; column += 1) {
        const from = Math.round(u.valToPos(edges[column], "x", true)), to = Math.round(u.valToPos(edges[column + 1], "x", true));
        if (to < left || from > left + width) continue;
        for (let n = 0; n < count; n += 1) {
          const share = given.share(column, n);
          context.fillStyle = Number.isNaN(share) ? colours.missing : colours.of(share);
          context.fillRect(from, ys[n], Math.max(1, to - from), Math.max(1, ys[n + 1] - ys[n]));
        }
      }
      context.restore();
      marks(u);
    };
    const colours = { missing: colour("--missing"), kept: new Map(), of(share) {
      const level = Math.round(share * 255);
      if (!this.kept.has(level)) this.kept.set(level, ramp(level / 255));
      return this.kept.get(level);
    } };
    plot.themed = () => { colours.missing = colour("--missing"); };
    const narrow = place.clientWidth < 500;
    const options = {
      ...sized(plot, place, given.height),
      series: [{ label: "step" }, { label: "", paths: () => null, points: { show: false } }], legend: { show: false },
      scales: { x: { time: false, range: (u, low, high) => [low, high] }, y: { range: () => [0, 1] } },
      axes: [axis({ label: "step", labelSize: 18, labelFont: "12px system-ui, sans-serif", values, grid: { show: false } }),
        axis({ size: narrow ? 96 : 160, grid: { show: false }, splits: () => given.ticks(given.height - 60).map(([at]) => 1 - at).reverse(),
          filter: (u, splits) => splits, values: () => given.ticks(given.height - 60).map(([, name]) => fitted(name, narrow ? 13 : 22)).reverse() })],
      cursor: { drag: { x: true, y: false }, points: { show: false }, sync: { key: "step", scales: ["x", null], setSeries: false } },
      hooks: {
        drawAxes: [draw],
        setCursor: [u => {
          if (u.cursor.idx === null || u.cursor.idx === undefined) return;
          if (u.cursor.top >= 0) row = Math.min(given.rows() - 1, Math.max(0, Math.floor(u.cursor.top / (u.bbox.height / devicePixelRatio) * given.rows())));
          readout.textContent = `${given.said(u.cursor.idx, row)}, step ${shown(steps[u.cursor.idx])}${near(steps[u.cursor.idx])}`;
        }],
      },
    };
    plot.u = new uPlot(options, [steps, steps.map(() => 0)], place);
    plot.u.limits = limits;
    plot.u.setScale("x", limits);
    plot.top = u => (row + 0.5) / given.rows() * u.bbox.height / devicePixelRatio;
    keyboard(plot, place, by => { row = Math.min(given.rows() - 1, Math.max(0, row + by)); });
  }

  function scale(low, high) {
    const canvas = element("canvas", { width: 128, height: 8, "aria-hidden": "true" }), context = canvas.getContext("2d");
    for (let x = 0; x < 128; x += 1) {
      context.fillStyle = ramp(x / 127);
      context.fillRect(x, 0, 1, 8);
    }
    return element("div", { class: "ramp" }, low, canvas, high);
  }

  function map(figure, place, plot, readout) {
    const raw = bytes(figure.cells), codes = new Uint16Array(raw.buffer), columns = figure.steps.length;
    const level = code => figure.low + code / CODES * (figure.high - figure.low);
    const value = code => code === MISSING ? NaN : code === ZERO ? 0 : figure.log ? 10 ** level(code) : level(code);
    const names = figure.names, fits = room => Math.max(1, Math.ceil(names.length * 16 / room));
    cells(figure, place, plot, readout, {
      height: Math.min(60 + 18 * names.length, 480) + 40,
      rows: () => names.length,
      share(column, row) {
        const code = codes[row * columns + column];
        return code === MISSING ? NaN : code === ZERO ? 0 : code / CODES;
      },
      ticks: room => names.flatMap((name, n) => n % fits(room) ? [] : [[(n + 0.5) / names.length, name]]),
      said: (column, row) => `${names[row]}: ${shown(value(codes[row * columns + column]))}`,
    });
    const end = at => shown(figure.log ? 10 ** at : at);
    place.after(tools(plot, scale(end(figure.low), end(figure.high))));
  }

  function distributions(figure, place, plot, readout) {
    const codes = bytes(figure.cells), columns = figure.steps.length, bins = figure.edges.length - 1;
    let layer = 0;
    // The greatest magnitudes are above.
    const code = (column, row) => codes[(layer * columns + column) * bins + (bins - 1 - row)];
    const share = found => (found / 254) ** 2;
    const name = row => `${shown(figure.edges[bins - 1 - row])} to ${shown(figure.edges[bins - row])}`;
    let most = 1;
    const find = () => { most = 1; for (let n = layer * columns * bins; n < (layer + 1) * columns * bins; n += 1) if (codes[n] < 255) most = Math.max(most, codes[n]); };
    find();
    cells(figure, place, plot, readout, {
      height: 320,
      rows: () => bins,
      share: (column, row) => code(column, row) === 255 ? NaN : code(column, row) / most,
      ticks(room) {
        const every = Math.max(1, Math.ceil(bins * 18 / room));
        return Array.from({ length: bins }, (_, n) => n).filter(n => n % every === 0).map(n => [n / bins, shown(figure.edges[bins - n])]);
      },
      said: (column, row) => `${figure.names[layer]}, ${name(row)}: ${code(column, row) === 255 ? "none" : `${(100 * share(code(column, row))).toPrecision(2)} %`}`,
    });
    const end = element("span");
    const tell = () => { end.textContent = `${(100 * share(most)).toPrecision(2)} %`; };
    const select = element("select", { "aria-label": `${figure.title}: which of the ${figure.of}` }, ...figure.names.map((each, n) => element("option", { value: n }, each)));
    select.addEventListener("change", () => { layer = Number(select.value); find(); tell(); plot.u.redraw(false); });
    tell();
    place.after(tools(plot, select, scale("0 %", end)));
  }

  function image(picture) {
    const canvas = element("canvas", { class: "image", width: picture.width, height: picture.height, role: "img", "aria-label": picture.label });
    const levels = bytes(picture.cells), context = canvas.getContext("2d"), pixels = context.createImageData(picture.width, picture.height);
    for (let n = 0; n < picture.width * picture.height; n += 1) {
      for (let c = 0; c < 3; c += 1) pixels.data[4 * n + c] = levels[picture.channels === 3 ? 3 * n + c : n];
      pixels.data[4 * n + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  function pictures(figure, place) {
    const places = place.closest("section").querySelectorAll(".gallery .picture");
    figure.pictures.filter(Boolean).forEach((picture, n) => {
      const own = places[n];
      if (picture.kind === "image") return void own.append(image(picture));
      const plot = {}, length = picture.values[0].length;
      own.setAttribute("role", "img");
      own.setAttribute("aria-label", `${picture.label}: curves over ${length} time steps`);
      plot.u = new uPlot({
        ...sized(plot, own, 130), legend: { show: false }, cursor: { show: false }, scales: { x: { time: false } },
        series: [{}, ...picture.values.map((_, k) => ({ stroke: () => ofSeries(k), dash: dash(k), width: 1.5, points: { show: false } }))],
        axes: [axis({ size: 24, values }), axis({ size: 40, values })],
      }, [Array.from({ length }, (_, k) => k), ...picture.values], own);
      plots.add(plot);
    });
    place.remove();
  }

  const kinds = { lines, points: lines, bars: lines, map, distributions };

  function drawn(host) {
    const figure = DATA.figures[Number(host.dataset.figure)], place = host.querySelector(".plot");
    if (figure.kind === "pictures") return pictures(figure, place);
    const plot = {}, readout = element("p", { class: "readout", "aria-live": "polite" });
    const vertical = figure.kind === "map" || figure.kind === "distributions" ? ", up and down choose a row" : "";
    place.setAttribute("tabindex", "0");
    place.setAttribute("role", "application");
    place.setAttribute("aria-roledescription", "figure");
    place.setAttribute("aria-label", `${figure.title}. Left and right move the cursor${vertical}, plus and minus zoom, 0 shows all. The numbers are in a table below.`);
    place.after(readout);
    kinds[figure.kind](figure, place, plot, readout);
    plots.add(plot);
    host.classList.add("drawn");
    place.plot = plot;
  }

  // A figure is drawn when it comes near to what is seen: a page of thirty opens at once.
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      drawn(entry.target);
    }
  }, { rootMargin: "600px" });

  const preferred = matchMedia("(prefers-color-scheme: dark)"), button = document.getElementById("theme");
  function themed(name) {
    document.documentElement.dataset.theme = name;
    button.textContent = name === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Show the page in ${name === "dark" ? "light" : "dark"}`);
    for (const plot of plots) {
      if (plot.themed) plot.themed();
      plot.u.redraw(false);
    }
  }
  button.hidden = false;
  button.addEventListener("click", () => themed(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  preferred.addEventListener("change", () => themed(preferred.matches ? "dark" : "light"));
  themed(preferred.matches ? "dark" : "light");
  document.querySelectorAll("figure[data-figure]").forEach(each => seen.observe(each));
})();
