/* The plots, drawn by Plotly. */
(() => {
  "use strict";
  // Okabe and Ito's colours, told apart with every common kind of colour blindness, the first that of the ink, without
  // their yellow, which is lost on white. Where there are more variants, dashes and symbols go on.
  const COLOURS = ["ink", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const ink = () => (Report.dark() ? "#ececf0" : "#18181b");
  const paper = () => (Report.dark() ? "#131316" : "#ffffff");
  const narrow = () => innerWidth < 600;
  const PRINTED = 680; // px across a page of A4 or Letter within its margins

  function look(labels, label) {
    const k = labels.indexOf(label), round = Math.floor(k / COLOURS.length);
    const colour = COLOURS[k % COLOURS.length] === "ink" ? ink() : COLOURS[k % COLOURS.length];
    return { colour, symbol: SYMBOLS[k % SYMBOLS.length], dash: DASHES[round % DASHES.length] };
  }

  function layout(x, y, more = {}) {
    const line = Report.dark() ? "#393941" : "#d8d8de";
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink(), family: "system-ui, sans-serif", size: narrow() ? 12 : 13 },
      margin: { l: 50, r: 12, t: 8, b: 44 }, hovermode: "closest", dragmode: narrow() ? false : "zoom",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, itemsizing: "constant" },
      xaxis: { ...axis, title: { text: x }, ...more }, yaxis: { ...axis, title: { text: y } },
    };
  }
  /** A logarithmic axis with ticks at 1, 2 and 5, or at 1 alone where these are too many, that say their whole number. */
  function logarithmic(values) {
    const ends = [Math.min(...values), Math.max(...values)].map(Math.log10), ticks = [];
    const digits = ends[1] - ends[0] > (narrow() ? 1.5 : 4) ? [1] : [1, 2, 5];
    for (let power = Math.floor(ends[0]) - 1; power <= ends[1] + 1; power++) ticks.push(...digits.map((digit) => digit * 10 ** power));
    return { type: "log", tickvals: ticks, ticktext: ticks.map((value) => (value >= 1e6 ? `${value / 1e6} M` : value >= 1000 ? `${value / 1000} k` : String(value))) };
  }
  const named = (run) => `${plain(run.scene)} · ${plain(run.label)} · seed ${run.seed}`;

  const PLOTS = {
    differences(data) {
      const reference = document.getElementById("reference").value;
      const rows = data.pairs.filter((pair) => pair.a === reference || pair.b === reference).map((pair) => {
        const sign = pair.b === reference ? 1 : -1, ends = pair.interval && pair.interval.map((end) => sign * end).sort((a, b) => a - b);
        return { label: sign > 0 ? pair.a : pair.b, value: sign * pair.difference, ends, scenes: Object.entries(pair.scenes).map(([scene, value]) => [scene, sign * value]) };
      }).sort((a, b) => a.value - b.value);
      const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2);
      const told = (row) => `${plain(row.label)}: ${signed(row.value)} dB${row.ends ? ` [${row.ends.map(signed).join(", ")}]` : ", no interval"}`;
      const apart = (row) => row.ends && (row.ends[0] > 0 || row.ends[1] < 0);
      const at = rows.map((_, k) => k), scenes = rows.flatMap((row, k) => row.scenes.map(([scene, value]) => ({ scene, value, at: k - 0.3 })));
      const dots = { type: "scatter", mode: "markers", showlegend: false, x: scenes.map((each) => each.value), y: scenes.map((each) => each.at),
        marker: { color: Report.dark() ? "#8b8b98" : "#85858f", size: 5 }, text: scenes.map((each) => `${plain(each.scene)}: ${signed(each.value)} dB`), hovertemplate: "%{text}<extra></extra>" };
      const bars = { type: "scatter", mode: "markers", showlegend: false, x: rows.map((row) => row.value), y: at,
        error_x: { type: "data", symmetric: false, array: rows.map((row) => (row.ends ? row.ends[1] - row.value : 0)), arrayminus: rows.map((row) => (row.ends ? row.value - row.ends[0] : 0)), color: ink(), thickness: 2, width: 5 },
        marker: { size: 11, color: rows.map((row) => (apart(row) ? ink() : paper())), line: { color: ink(), width: 2 } }, text: rows.map(told), hovertemplate: "%{text}<extra></extra>" };
      const frame = layout(`PSNR against ${plain(reference)}, dB`, "", { zeroline: true, zerolinecolor: ink(), zerolinewidth: 1.5 });
      frame.yaxis = { ...frame.yaxis, showgrid: false, zeroline: false, tickvals: at, ticktext: rows.map((row) => plain(row.label)), range: [-0.7, rows.length - 0.4] };
      frame.height = 90 + 36 * Math.max(2, rows.length);
      return [[dots, bars], frame];
    },
    scenes(data) {
      const n = data.labels.length, scenes = [...new Set(data.runs.map((run) => run.scene))];
      const traces = data.labels.map((label, k) => {
        const runs = data.runs.filter((run) => run.label === label), own = look(data.labels, label);
        const x = runs.map((run) => scenes.indexOf(run.scene) + (n > 1 ? 0.7 * (k / (n - 1) - 0.5) : 0));
        return { type: "scatter", mode: "markers", name: plain(label), x, y: runs.map((run) => run.psnr), marker: { color: own.colour, symbol: own.symbol, size: 8 },
          text: runs.map(named), hovertemplate: "%{text}<br>%{y:.2f} dB<extra></extra>" };
      });
      const width = Report.printing ? PRINTED : innerWidth - 100, crowded = Math.max(...scenes.map((scene) => scene.length)) * 8 * scenes.length > width;
      const ticks = { tickvals: scenes.map((_, k) => k), ticktext: scenes.map(plain), tickangle: crowded ? 30 : 0, showgrid: false, zeroline: false, range: [-0.6, scenes.length - 0.4] };
      const frame = layout("", "test PSNR, dB", ticks);
      const line = { type: "line", yref: "paper", y0: 0, y1: 1, line: { color: frame.yaxis.gridcolor, width: 1 } };
      frame.shapes = scenes.slice(1).map((_, k) => ({ ...line, x0: k + 0.5, x1: k + 0.5 }));
      return [traces, frame];
    },
    gaussians(data) {
      const traces = data.labels.map((label) => {
        const runs = data.runs.filter((run) => run.label === label && run.gaussians > 0), own = look(data.labels, label);
        return { type: "scatter", mode: "markers", name: plain(label), x: runs.map((run) => run.gaussians), y: runs.map((run) => run.psnr),
          marker: { color: own.colour, symbol: own.symbol, size: 9 }, text: runs.map(named), hovertemplate: "%{text}<br>%{x:,} Gaussians, %{y:.2f} dB<extra></extra>" };
      });
      return [traces, layout("Gaussians", "test PSNR, dB", logarithmic(data.runs.map((run) => run.gaussians).filter((count) => count > 0)))];
    },
    curves({ labels, plot }, node) {
      const key = node.closest("section").querySelector("input[name^=axis]:checked").value, seen = new Set();
      const order = (curve) => labels.indexOf(curve.label);
      const traces = [...plot.curves].sort((a, b) => order(a) - order(b)).map((curve) => {
        const own = look(labels, curve.label), first = !seen.has(curve.label);
        seen.add(curve.label);
        return { type: "scatter", mode: "lines+markers", name: plain(curve.label), legendgroup: plain(curve.label), showlegend: first, x: curve[key], y: curve.psnr,
          line: { color: own.colour, dash: own.dash, width: 2 }, marker: { symbol: own.symbol, size: 6, maxdisplayed: 12, color: own.colour }, opacity: first ? 1 : 0.5,
          hovertemplate: `${plain(curve.label)}, seed ${curve.seed}<br>%{x:,} · %{y:.2f} dB<extra></extra>` };
      });
      const titles = { total: "seconds of poses, start and training", seconds: "seconds of training", step: "steps", gaussians: "Gaussians" };
      return [traces, layout(titles[key], plot.preview ? "PSNR of one view, dB" : "test PSNR, dB", key === "gaussians" ? logarithmic(plot.curves.flatMap((curve) => curve[key]).filter((count) => count > 0)) : { rangemode: "tozero" })];
    },
  };

  /** For a print, which does not wait for a plot to find its margins: sizes from the lengths of its texts. */
  function fix(frame, traces) {
    const letter = 7.5, names = traces.filter((trace) => trace.showlegend !== false).map((trace) => trace.name || "");
    const rows = Math.ceil((names.length * (Math.max(0, ...names.map((name) => name.length)) * letter + 45)) / PRINTED);
    const left = Math.max(0, ...(frame.yaxis.ticktext || []).map((text) => text.length)) * letter;
    Object.assign(frame, { width: PRINTED, height: frame.height || 400, margin: { l: Math.max(56, left + 12), r: 16, t: 12 + 20 * rows, b: 64 } });
    frame.xaxis.automargin = frame.yaxis.automargin = false;
  }

  const drawn = [];
  function draw({ node, data }) {
    const [traces, frame] = PLOTS[node.dataset.plot](data, node);
    if (frame.height) node.style.height = `${frame.height}px`;
    frame.autosize = !Report.printing;
    if (Report.printing) fix(frame, traces);
    return Plotly.react(node, traces, frame, { responsive: true, displaylogo: false, displayModeBar: false });
  }
  const all = () => drawn.forEach(draw);
  for (const node of document.querySelectorAll("[data-plot]")) {
    Report.whenSeen(node, () => {
      const plot = { node, data: Report.read(node.dataset.from) };
      drawn.push(plot);
      draw(plot);
      const again = { curves: node.closest("section").querySelectorAll("input[name^=axis]"), differences: document.querySelectorAll("#reference") };
      for (const input of again[node.dataset.plot] || []) input.addEventListener("change", () => draw(plot));
    });
  }
  Report.whenDarkChanges(all);
  Report.whenPrinting(all, all);
})();
