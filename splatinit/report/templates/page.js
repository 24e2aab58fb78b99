/* The page's own script: plots (Plotly), image comparers, point clouds (SplatViewer). Everything is made when it comes
   into view. Texts of the tables enter by textContent or escaped for Plotly, never as markup. */
(() => {
  "use strict";
  // Okabe and Ito's colours, told apart with every common kind of colour blindness; the first is that of the ink.
  const COLOURS = ["ink", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const ink = () => (dark.matches && !printing ? "#ececf0" : "#18181b");

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key in made && typeof value !== "string") made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  function whenSeen(node, make) {
    const seen = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        seen.disconnect();
        make();
      }
    }, { rootMargin: "300px" });
    seen.observe(node);
    makers.push(() => { seen.disconnect(); make(); });
  }
  const makers = [];

  /* ------------------------------------------------------------------------------------------------------- plots */
  function look(labels, label) {
    const k = labels.indexOf(label);
    const colour = COLOURS[k % 8] === "ink" ? ink() : COLOURS[k % 8];
    return { colour, symbol: SYMBOLS[(k + Math.floor(k / 8)) % 8], dash: DASHES[Math.floor(k / 8) % 4] };
  }

  function layout(x, y, more = {}) {
    const line = dark.matches && !printing ? "#393941" : "#d8d8de";
    const narrow = innerWidth < 600;
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink(), family: "system-ui, sans-serif", size: narrow ? 12 : 13 },
      margin: { l: 50, r: 12, t: 8, b: 44 }, hovermode: "closest",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, itemsizing: "constant" },
      xaxis: { ...axis, title: { text: x }, ...more }, yaxis: { ...axis, title: { text: y } },
    };
  }

  const PLOTS = {
    scenes(data) {
      const n = data.labels.length, scenes = [...new Set(data.runs.map((run) => run.scene))];
      const traces = data.labels.map((label, k) => {
        const runs = data.runs.filter((run) => run.label === label), own = look(data.labels, label);
        const x = runs.map((run) => scenes.indexOf(run.scene) + (n > 1 ? 0.7 * (k / (n - 1) - 0.5) : 0));
        return { type: "scatter", mode: "markers", name: plain(label), x, y: runs.map((run) => run.psnr), marker: { color: own.colour, symbol: own.symbol, size: 8 },
          text: runs.map((run) => `${plain(run.scene)} · ${plain(label)} · seed ${run.seed}`), hovertemplate: "%{text}<br>%{y:.2f} dB<extra></extra>" };
      });
      const ticks = { tickvals: scenes.map((_, k) => k), ticktext: scenes.map(plain), showgrid: false, zeroline: false, range: [-0.6, scenes.length - 0.4] };
      return [traces, layout("", "test PSNR, dB", ticks)];
    },
    gaussians(data) {
      const traces = data.labels.map((label) => {
        const runs = data.runs.filter((run) => run.label === label && run.gaussians > 0), own = look(data.labels, label);
        return { type: "scatter", mode: "markers", name: plain(label), x: runs.map((run) => run.gaussians), y: runs.map((run) => run.psnr),
          marker: { color: own.colour, symbol: own.symbol, size: 9 }, text: runs.map((run) => `${plain(run.scene)} · ${plain(label)} · seed ${run.seed}`),
          hovertemplate: "%{text}<br>%{x:,} Gaussians, %{y:.2f} dB<extra></extra>" };
      });
      return [traces, layout("Gaussians", "test PSNR, dB", { type: "log", dtick: innerWidth < 600 ? 1 : "D2" })];
    },
    curves(data, node) {
      const key = node.closest("section").querySelector(".controls input:checked").value, named = new Set();
      const order = (curve) => data.labels.indexOf(curve.label);
      const traces = [...data.curves].sort((a, b) => order(a) - order(b)).map((curve) => {
        const own = look(data.labels, curve.label), first = !named.has(curve.label);
        named.add(curve.label);
        return { type: "scatter", mode: "lines+markers", name: plain(curve.label), legendgroup: plain(curve.label), showlegend: first, x: curve[key], y: curve.psnr,
          line: { color: own.colour, dash: own.dash, width: 2 }, marker: { symbol: own.symbol, size: 6, maxdisplayed: 12, color: own.colour }, opacity: first ? 1 : 0.55,
          hovertemplate: `${plain(curve.label)}, seed ${curve.seed}<br>%{x:,} · %{y:.2f} dB<extra></extra>` };
      });
      const titles = { seconds: "seconds of training", step: "steps", gaussians: "Gaussians" };
      const log = key === "gaussians" ? { type: "log", dtick: innerWidth < 600 ? 1 : "D2" } : {};
      return [traces, layout(titles[key], data.curves[0].preview ? "PSNR of one view, dB" : "test PSNR, dB", log)];
    },
  };
  const drawn = [];
  const draw = ({ node, data }) => {
    const [traces, frame] = PLOTS[node.dataset.plot](data, node);
    return Plotly.react(node, traces, frame, { responsive: true, displaylogo: false, displayModeBar: false });
  };
  for (const node of document.querySelectorAll("[data-plot]")) {
    let plot = null;
    whenSeen(node, () => {
      if (plot) return;
      plot = { node, data: read(node.dataset.from) };
      drawn.push(plot);
      draw(plot);
    });
    if (node.dataset.plot === "curves")
      node.closest("section").querySelectorAll(".controls input[name^=axis]").forEach((input) => input.addEventListener("change", () => plot && draw(plot)));
  }
  dark.addEventListener("change", () => drawn.forEach(draw));

  /* ------------------------------------------------------------------------------------------------------ pictures */
  let groups = 0;
  function choice(name, options, chosen, change) {
    const group = `choice-${groups++}`;
    const inputs = options.map(([value, text]) => {
      const input = element("input", { type: "radio", name: group, value, checked: value === chosen });
      input.addEventListener("change", () => change(value));
      return element("label", {}, input, text);
    });
    return element("fieldset", {}, element("legend", {}, name), ...inputs);
  }
  function list(name, options, chosen, change) {
    const select = element("select", {}, ...options.map((text, k) => element("option", { value: String(k), selected: k === chosen }, text)));
    select.addEventListener("change", () => change(Number(select.value)));
    return element("label", {}, name, select);
  }

  function compare(root, pictures) {
    const state = { view: 0, a: 0, b: 0, mode: "slider", show: "image", at: 50, zoom: 1, x: 0, y: 0, flip: false };
    const shots = () => pictures.views[state.view].shots;
    const panes = ["a", "b"].map((side) => element("div", { class: `pane ${side}` }, element("img", { alt: "", draggable: false })));
    const tags = ["a", "b"].map((side) => element("span", { class: `tag ${side}` }));
    const bar = element("div", { class: "bar" });
    const stage = element("div", { class: "stage" }, ...panes, bar, ...tags);
    const slide = element("input", { type: "range", min: "0", max: "100", step: "0.5", value: "50", class: "slide", "aria-label": "Border between the two pictures, percent" });
    const numbers = element("figcaption", { "aria-live": "polite" });
    const lists = element("div", { class: "controls" });
    let timer = 0;

    function place() {
      const stageWidth = panes[0].clientWidth, stageHeight = panes[0].clientHeight;
      state.x = Math.min(0, Math.max(stageWidth * (1 - state.zoom), state.x));
      state.y = Math.min(0, Math.max(stageHeight * (1 - state.zoom), state.y));
      for (const pane of panes) pane.firstChild.style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.zoom})`;
      stage.classList.toggle("zoomed", state.zoom > 1);
      const slider = state.mode === "slider";
      panes[0].style.clipPath = slider ? `inset(0 ${100 - state.at}% 0 0)` : "";
      panes[1].style.clipPath = slider ? `inset(0 0 0 ${state.at}%)` : "";
      panes[0].style.visibility = state.mode === "flicker" && state.flip ? "hidden" : "";
      panes[1].style.visibility = state.mode === "flicker" && !state.flip ? "hidden" : "";
      tags[0].hidden = state.mode === "flicker" && state.flip;
      tags[1].hidden = state.mode === "flicker" && !state.flip;
      bar.hidden = !slider;
      slide.hidden = !slider;
      bar.style.left = `${state.at}%`;
      slide.value = String(state.at);
      stage.classList.toggle("beside", state.mode === "beside");
    }

    function picture(shot) {
      const error = state.show === "error" && shot.label !== "truth";
      return [error ? shot.error : shot.image, error ? `error of ${shot.label}` : shot.label];
    }

    function load() {
      [state.a, state.b].forEach((k, side) => {
        const shot = shots()[k], [source, name] = picture(shot), image = panes[side].firstChild;
        tags[side].textContent = name + (shot.psnr ? ` · ${shot.psnr.toFixed(2)} dB` : "");
        image.classList.toggle("none", !source);
        image.alt = source ? `${pictures.views[state.view].name}: ${name}` : "";
        if (!source) return tags[side].append(" (no picture)");
        image.dataset.full = source.full;
        image.src = source.small || source.full;
        if (!source.small) return;
        const full = new Image(); // at full size, beside the page; until it is here, the small one shows
        full.onload = () => { if (image.dataset.full === source.full) image.src = source.full; };
        full.src = source.full;
      });
      const table = [state.a, state.b].map((k) => shots()[k]).filter((shot) => shot.psnr !== undefined);
      numbers.textContent = table.map((shot) => `${shot.label} (seed ${pictures.seeds[shot.label]}): PSNR ${shot.psnr.toFixed(2)} dB`
        + (shot.ssim === undefined ? "" : `, SSIM ${shot.ssim.toFixed(4)}`) + (shot.lpips_alex === undefined ? "" : `, LPIPS ${shot.lpips_alex.toFixed(4)}`)).join(" · ")
        + (state.show === "error" ? " · Error: mean absolute difference, black none to pale yellow 20 % or more." : "");
      place();
    }

    function fresh() {
      const labels = shots().map((shot) => shot.label);
      state.a = Math.min(state.a, labels.length - 1);
      state.b = Math.min(state.b, labels.length - 1);
      lists.replaceChildren(
        list("view ", pictures.views.map((view) => view.name), state.view, (k) => { state.view = k; fresh(); }),
        list("left ", labels, state.a, (k) => { state.a = k; load(); }),
        list("right ", labels, state.b, (k) => { state.b = k; load(); }));
      load();
    }

    function zoom(factor, x, y) {
      const next = Math.min(16, Math.max(1, state.zoom * factor)), scale = next / state.zoom;
      state.x = x - scale * (x - state.x);
      state.y = y - scale * (y - state.y);
      state.zoom = next;
      place();
    }
    const middle = (factor) => zoom(factor, panes[0].clientWidth / 2, panes[0].clientHeight / 2);

    slide.addEventListener("input", () => { state.at = Number(slide.value); place(); });
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && state.zoom === 1) return; // the page scrolls over a picture that is not zoomed
      event.preventDefault();
      const box = panes[0].getBoundingClientRect();
      zoom(Math.exp(-event.deltaY / 300), (event.clientX - box.left) % box.width, event.clientY - box.top);
    }, { passive: false });
    stage.addEventListener("dblclick", (event) => {
      const box = panes[0].getBoundingClientRect();
      zoom(state.zoom > 1 ? 1 / 16 : 3, (event.clientX - box.left) % box.width, event.clientY - box.top);
    });
    const fingers = new Map();
    let sliding = false;
    stage.addEventListener("pointerdown", (event) => {
      stage.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      sliding = state.mode === "slider" && (event.target === bar || state.zoom === 1);
      move(event);
    });
    function move(event) {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const box = stage.getBoundingClientRect(), now = [event.clientX, event.clientY];
      if (fingers.size === 2) {
        const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
        const gap = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
        zoom(gap(now) / gap(before), (now[0] + other[0]) / 2 - box.left, (now[1] + other[1]) / 2 - box.top);
      } else if (sliding) {
        state.at = Math.min(100, Math.max(0, (100 * (now[0] - box.left)) / box.width));
        place();
      } else {
        state.x += now[0] - before[0];
        state.y += now[1] - before[1];
        place();
      }
      fingers.set(event.pointerId, now);
    }
    stage.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => fingers.delete(event.pointerId));
    new ResizeObserver(place).observe(stage);

    function mode(value) {
      state.mode = value;
      clearInterval(timer);
      state.flip = false;
      if (value === "flicker") timer = setInterval(() => { state.flip = !state.flip; place(); }, 700);
      place();
    }
    const button = (text, name, press) => {
      const made = element("button", { type: "button", "aria-label": name }, text);
      made.addEventListener("click", press);
      return made;
    };
    const tools = element("div", { class: "controls" },
      choice("compare by", [["slider", "slider"], ["flicker", "flicker"], ["beside", "side by side"]], "slider", mode),
      choice("show", [["image", "pictures"], ["error", "error maps"]], "image", (value) => { state.show = value; load(); }),
      element("span", { role: "group", "aria-label": "Zoom" }, button("+", "Zoom in", () => middle(1.5)), " ", button("−", "Zoom out", () => middle(1 / 1.5)), " ", button("1:1", "Whole picture", () => middle(1 / 16))));
    const count = shots().length;
    state.b = count > 1 ? 1 : 0;
    root.append(lists, tools, element("figure", {}, stage, slide, numbers));
    fresh();
  }

  /* ---------------------------------------------------------------------------------------------------- the clouds */
  function orbit(root, clouds) {
    const box = element("div", { class: "cloud" });
    const tags = ["a", "b"].map((side) => element("span", { class: `tag ${side}` }));
    const caption = element("figcaption", { "aria-live": "polite" });
    const count = (cloud) => (cloud ? cloud.total.toLocaleString("en") : "no");
    let chosen = 0, viewer = null;

    function told() {
      const { label, seed, start, trained, links } = clouds.variants[chosen];
      tags[0].textContent = `start: ${count(start)} points`;
      tags[1].textContent = `trained: ${count(trained)} Gaussians`;
      caption.replaceChildren(`${label}, seed ${seed}. Shown are ${start ? start.n.toLocaleString("en") : 0} points of the start and the centres of ${trained ? trained.n.toLocaleString("en") : 0} visible Gaussians; those far outside are left out. Drag, pinch or arrow keys turn; wheel, + and − zoom; 0 goes back. `,
        ...Object.entries(links).filter(([, link]) => link).flatMap(([name, link]) => [element("a", { href: link }, `${name} (.ply)`), " "]));
      if (viewer) {
        viewer.show([start, trained]);
        viewer.canvas.setAttribute("aria-label", `Point clouds of ${label}: the start, and the centres of the trained Gaussians`);
      }
    }
    function open() {
      if (viewer) return;
      try {
        viewer = SplatViewer.create(box, clouds.look);
      } catch (error) {
        box.replaceChildren(element("p", { class: "note" }, "This browser shows no WebGL; the files below hold the points."));
        return;
      }
      told();
    }
    const back = element("button", { type: "button" }, "Reset view");
    back.addEventListener("click", () => viewer && viewer.reset());
    root.append(element("div", { class: "controls" }, list("variant ", clouds.variants.map((each) => each.label), 0, (k) => { chosen = k; told(); }), back),
      element("figure", {}, box, caption));
    box.append(...tags);
    told();
    // A browser keeps but a few WebGL contexts: one that is far out of view gives its own back.
    new IntersectionObserver((entries) => {
      if (entries[entries.length - 1].isIntersecting) open();
      else if (viewer && !printing) { viewer.dispose(); viewer = null; }
    }, { rootMargin: "200px" }).observe(box);
  }

  for (const section of document.querySelectorAll("section.scene")) {
    let made = false;
    whenSeen(section, () => {
      if (made) return;
      made = true;
      const data = read(section.dataset.scene);
      const pictures = section.querySelector(".compare"), cloud = section.querySelector(".orbit");
      if (pictures) compare(pictures, data.pictures);
      if (cloud) orbit(cloud, data.clouds);
    });
  }

  addEventListener("beforeprint", () => {
    printing = true;
    makers.forEach((make) => make());
    drawn.forEach(draw);
  });
  addEventListener("afterprint", () => { printing = false; drawn.forEach(draw); });
})();
