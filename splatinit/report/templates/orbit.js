/* The point clouds: the start beside what was trained from it, turned together (SplatViewer, from viewer.js). */
(() => {
  "use strict";
  const { element, list, count } = Report;

  function orbit(root, clouds) {
    const box = element("div", { class: "cloud" });
    const tags = ["", "second"].map((side) => element("span", { class: `tag ${side}` }));
    const caption = element("figcaption", { "aria-live": "polite" });
    let chosen = 0, viewer = null;

    function told() {
      const { label, seed, start, trained, links } = clouds.variants[chosen];
      tags[0].textContent = start ? `start: ${count(start.total)} points` : "start: no points";
      tags[1].textContent = trained ? `trained: ${count(trained.total)} Gaussians` : "trained: no Gaussians";
      caption.replaceChildren(`${label}, seed ${seed}. Shown are ${count(start ? start.n : 0)} points of the start and the centres of ${count(trained ? trained.n : 0)} visible Gaussians; those far outside are left out. Drag, pinch or arrow keys turn; wheel, + and − zoom; 0 goes back. `,
        ...Object.entries(links).flatMap(([name, link]) => [element("a", { href: link }, `${name} (.ply)`), " "]));
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
    function close() {
      if (viewer) viewer.dispose();
      viewer = null;
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
      else if (!Report.printing) close();
    }, { rootMargin: "200px" }).observe(box);

    // For a print, a picture of the clouds, one context after the other.
    let picture = null;
    Report.whenPrinting(() => {
      const open_before = viewer !== null;
      open();
      if (!viewer) return;
      picture = element("img", { src: viewer.snapshot(), alt: "", class: "printed" });
      if (!open_before) close();
      box.append(picture);
    }, () => {
      if (picture) picture.remove();
      picture = null;
    });
  }

  for (const root of document.querySelectorAll(".orbit"))
    Report.whenSeen(root, () => orbit(root, Report.read(root.closest("section").dataset.scene).clouds));
})();
