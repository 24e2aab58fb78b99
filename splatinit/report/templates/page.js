/* What the page's scripts share. Plots, comparers and clouds are made when they come into view, and all for a print.
   Texts of the tables enter by textContent or escaped for Plotly, never as markup. */
const Report = (() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const makers = [], before = [], after = [], known = new Map();
  const self = {
    printing: false,
    dark: () => dark.matches && !self.printing,
    whenDarkChanges: (act) => dark.addEventListener("change", act),
    /** The data in a script element; parsed once, as several parts of a scene share it. */
    read(id) {
      if (!known.has(id)) known.set(id, JSON.parse(document.getElementById(id).textContent));
      return known.get(id);
    },
    count: (number) => number.toLocaleString("en"),

    /** Make something once: when its node comes near the window, or for a print. */
    whenSeen(node, make) {
      let made = false;
      const once = () => {
        seen.disconnect();
        if (!made) make();
        made = true;
      };
      const seen = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && once(), { rootMargin: "300px" });
      seen.observe(node);
      makers.push(once);
    },

    /** What to do before a print, when everything is made, and after it. */
    whenPrinting(begin, end) {
      before.push(begin);
      after.push(end);
    },

    element(name, attributes = {}, ...children) {
      const made = document.createElement(name);
      for (const [key, value] of Object.entries(attributes)) {
        if (key in made && typeof value !== "string") made[key] = value;
        else made.setAttribute(key, value);
      }
      made.append(...children);
      return made;
    },

    button(text, name, press) {
      const made = self.element("button", { type: "button", "aria-label": name }, text);
      made.addEventListener("click", press);
      return made;
    },

    /** One of a few, as radio buttons; options: [value, text]. */
    choice(name, options, chosen, change) {
      const group = `choice-${self.groups++}`;
      const inputs = options.map(([value, text]) => {
        const input = self.element("input", { type: "radio", name: group, value, checked: value === chosen });
        input.addEventListener("change", () => change(value));
        return self.element("label", {}, input, text);
      });
      return self.element("fieldset", {}, self.element("legend", {}, name), ...inputs);
    },
    groups: 0,

    /** One of many, as a list. */
    list(name, options, chosen, change) {
      const select = self.element("select", {}, ...options.map((text, k) => self.element("option", { value: String(k), selected: k === chosen }, text)));
      select.addEventListener("change", () => change(Number(select.value)));
      return self.element("label", {}, name, select);
    },
  };

  addEventListener("beforeprint", () => {
    self.printing = true;
    makers.forEach((make) => make());
    before.forEach((act) => act());
  });
  addEventListener("afterprint", () => {
    self.printing = false;
    after.forEach((act) => act());
  });
  return self;
})();
