/* The comparers of pictures: truth and any two starts, by slider, flicker or beside each other, under one zoom. */
(() => {
  "use strict";
  const { element, choice, list, button } = Report;
  const FLICKER = 700; // ms
  // Whether the pictures at full size are where the page looks for them: a page that was sent alone has the small ones.
  let alone = false;

  function compare(root, pictures) {
    const state = { view: 0, chosen: [0, 0], mode: "slider", show: "image", at: 50, zoom: 1, x: 0, y: 0, turn: 0 };
    const shots = () => pictures.views[state.view].shots;
    const panes = [0, 1, 2].map(() => {
      const tag = element("span", { class: "tag" });
      return { image: element("img", { alt: "", draggable: false }), tag, box: null };
    });
    for (const pane of panes) pane.box = element("div", { class: "pane" }, pane.image, pane.tag);
    const bar = element("div", { class: "bar" });
    const stage = element("div", { class: "stage" }, ...panes.map((pane) => pane.box), bar);
    const slide = element("input", { type: "range", min: "0", max: "100", step: "0.5", value: "50", class: "slide", "aria-label": "Border between the two pictures, percent" });
    const numbers = element("figcaption", { "aria-live": "polite" });
    const lists = element("div", { class: "controls" });
    let timer = 0;

    /** What is compared, in the order of the panes: the two that are chosen, and the truth before them where it is neither. */
    function compared() {
      const truth = shots().findIndex((shot) => shot.label === "truth"), two = state.chosen.map((k) => shots()[k]);
      return state.mode === "slider" || state.chosen.includes(truth) ? two : [shots()[truth], ...two];
    }

    function place() {
      const { clientWidth: width, clientHeight: height } = panes[0].box, count = compared().length;
      state.x = Math.min(0, Math.max(width * (1 - state.zoom), state.x));
      state.y = Math.min(0, Math.max(height * (1 - state.zoom), state.y));
      const slider = state.mode === "slider", flicker = state.mode === "flicker", beside = state.mode === "beside";
      stage.className = `stage${state.zoom > 1 ? " zoomed" : ""}${state.zoom > 4 ? " near" : ""}${beside ? ` beside of${count}` : ""}`;
      panes.forEach(({ box, image, tag }, k) => {
        image.style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.zoom})`;
        box.hidden = k >= count;
        box.style.visibility = flicker && k !== state.turn % count ? "hidden" : "";
        image.style.clipPath = "";
        box.style.clipPath = slider ? `inset(0 ${k ? 0 : 100 - state.at}% 0 ${k ? state.at : 0}%)` : "";
        tag.classList.toggle("right", slider && k === 1);
      });
      bar.hidden = slide.hidden = !slider;
      bar.style.left = `${state.at}%`;
      slide.value = String(state.at);
    }

    function load() {
      compared().forEach((shot, k) => {
        const { image, tag } = panes[k], error = state.show === "error" && shot.error !== null;
        const source = error ? shot.error : shot.image, name = error ? `error of ${shot.label}` : shot.label;
        tag.textContent = name + (shot.psnr === undefined ? "" : ` · ${shot.psnr.toFixed(2)} dB`);
        image.alt = source ? `${pictures.views[state.view].name}: ${name}` : "";
        show(image, tag, source);
      });
      const scored = compared().filter((shot) => shot.psnr !== undefined);
      const fixed = (name, value, digits) => (value === undefined ? "" : `, ${name} ${value.toFixed(digits)}`);
      numbers.textContent = scored.map((shot) => `${shot.label} (seed ${pictures.seeds[shot.label]}): PSNR ${shot.psnr.toFixed(2)} dB`
        + fixed("SSIM", shot.ssim, 4) + fixed("LPIPS alex", shot.lpips_alex, 4) + fixed("LPIPS vgg", shot.lpips_vgg, 4)).join(" · ")
        + (state.show === "error" ? " · Error: mean absolute difference, from black (none) to pale yellow (20 % of the range or more)." : "");
      place();
    }

    /** The small picture at once; that at full size, beside the page, when it is here. */
    function show(image, tag, source) {
      const small = source && source.small, full = source && !alone ? source.full : null;
      image.dataset.full = full || "";
      image.classList.toggle("none", !small && !full);
      if (!small && !full) {
        tag.append(source ? " (not in the page, and not beside it)" : " (no picture)");
        return;
      }
      image.src = small || full;
      if (!full) return;
      const loading = small ? new Image() : image;
      loading.onload = () => { if (small && image.dataset.full === full) image.src = full; };
      loading.onerror = () => {
        alone = true;
        moved.hidden = false;
        if (!small && image.dataset.full === full) show(image, tag, source);
      };
      if (small) loading.src = full;
    }
    const moved = element("p", { class: "soft" }, "The pictures at full size lie in the sweep's folder, which is not beside this page: here are the small ones.");
    moved.hidden = true;

    function fresh() {
      const labels = shots().map((shot) => shot.label);
      state.chosen = state.chosen.map((k) => Math.min(k, labels.length - 1));
      lists.replaceChildren(
        list("view ", pictures.views.map((view) => view.name), state.view, (k) => { state.view = k; fresh(); }),
        list("left ", labels, state.chosen[0], (k) => { state.chosen[0] = k; load(); }),
        list("right ", labels, state.chosen[1], (k) => { state.chosen[1] = k; load(); }));
      load();
    }

    function zoom(factor, x, y) {
      const next = Math.min(16, Math.max(1, state.zoom * factor)), scale = next / state.zoom;
      state.x = x - scale * (x - state.x);
      state.y = y - scale * (y - state.y);
      state.zoom = next;
      place();
    }
    const middle = (factor) => zoom(factor, panes[0].box.clientWidth / 2, panes[0].box.clientHeight / 2);
    /** Where in its picture an event is. */
    function within(x, y) {
      const pane = panes.map((each) => each.box.getBoundingClientRect()).find((box) => box.width && x <= box.right && y <= box.bottom) || panes[0].box.getBoundingClientRect();
      return [x - pane.left, y - pane.top];
    }

    slide.addEventListener("input", () => { state.at = Number(slide.value); place(); });
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && state.zoom === 1) return; // the page scrolls over a picture that is not zoomed
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 300), ...within(event.clientX, event.clientY));
    }, { passive: false });
    stage.addEventListener("dblclick", (event) => zoom(state.zoom > 1 ? 1 / 16 : 3, ...within(event.clientX, event.clientY)));
    const fingers = new Map();
    let sliding = false;
    stage.addEventListener("pointerdown", (event) => {
      stage.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      sliding = state.mode === "slider" && (event.target === bar || state.zoom === 1);
      move(event);
    });
    function move(event) {
      const last = fingers.get(event.pointerId);
      if (!last) return;
      const now = [event.clientX, event.clientY];
      if (fingers.size === 2) {
        const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
        const gap = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
        zoom(gap(now) / gap(last), ...within((now[0] + other[0]) / 2, (now[1] + other[1]) / 2));
      } else if (sliding) {
        const box = stage.getBoundingClientRect();
        state.at = Math.min(100, Math.max(0, (100 * (now[0] - box.left)) / box.width));
      } else {
        state.x += now[0] - last[0];
        state.y += now[1] - last[1];
      }
      place();
      fingers.set(event.pointerId, now);
    }
    stage.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => fingers.delete(event.pointerId));
    new ResizeObserver(place).observe(stage);

    function mode(value) {
      state.mode = value;
      clearInterval(timer);
      state.turn = 0;
      if (value === "flicker") timer = setInterval(() => { state.turn++; place(); }, FLICKER);
      load();
    }
    const tools = element("div", { class: "controls" },
      choice("compare by", [["slider", "slider"], ["flicker", "flicker"], ["beside", "side by side"]], "slider", mode),
      choice("show", [["image", "pictures"], ["error", "error maps"]], "image", (value) => { state.show = value; load(); }),
      element("span", { role: "group", "aria-label": "Zoom", class: "zoom" }, button("+", "Zoom in", () => middle(1.5)), button("−", "Zoom out", () => middle(1 / 1.5)), button("1:1", "Whole picture", () => middle(1 / 16))));
    state.chosen[1] = Math.min(1, shots().length - 1);
    root.append(lists, tools, element("figure", {}, stage, slide, numbers, moved));
    fresh();
  }

  for (const root of document.querySelectorAll(".compare"))
    Report.whenSeen(root, () => compare(root, Report.read(root.closest("section").dataset.scene).pictures));
})();
