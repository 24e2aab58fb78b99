// What the report's pages carry, made into ../assets: viewer.min.js from viewer.js and what it uses of three.js, with the
// hash of what it was made from at its head; plotly.min.js, Plotly's own bundle of its basic charts, as it is.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const sources = ["viewer.js", "package-lock.json"].map((name) => readFileSync(new URL(name, import.meta.url)));
const hash = createHash("sha256").update(Buffer.concat(sources)).digest("hex");
const licence = readFileSync(new URL("node_modules/three/LICENSE", import.meta.url), "utf8").trim();
mkdirSync(new URL("../assets", import.meta.url), { recursive: true });
await build({
  entryPoints: ["viewer.js"],
  outfile: "../assets/viewer.min.js",
  bundle: true,
  minify: true,
  charset: "ascii",
  format: "iife",
  globalName: "SplatViewer",
  target: "es2020",
  legalComments: "none",
  banner: { js: `/* made from ${hash}\nthree.js:\n${licence}\n*/` },
});

const plotly = new URL("node_modules/plotly.js-basic-dist-min/", import.meta.url);
const terms = readFileSync(new URL("LICENSE", plotly), "utf8").trim();
const charts = readFileSync(new URL("plotly-basic.min.js", plotly), "utf8").trimEnd();
writeFileSync(new URL("../assets/plotly.min.js", import.meta.url), `/*\n${terms}\n*/\n${charts}\n`);
