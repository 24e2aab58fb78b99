// The orbitable point clouds of the report. Bundled with three.js into ../assets/viewer.min.js by `make viewer`.
import {
  BufferAttribute,
  BufferGeometry,
  ColorManagement,
  LinearSRGBColorSpace,
  PerspectiveCamera,
  Points,
  PointsMaterial,
  Scene,
  Vector3,
  WebGLRenderer,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";

const STACKED = 560; // px of width, below which the second cloud stands under the first

// Colours of points are sRGB and go to the screen as they are, as photos do.
ColorManagement.enabled = false;

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

/** Pixels of a point, so that few points in a large view are seen as well as many. */
function pointSize(count, width, height) {
  return Math.min(5, Math.max(1.6, 0.45 * Math.sqrt((width * height) / Math.max(1, count))));
}

/** cloud: {low: [3], step: [3], xyz: base64 of uint16 [n, 3], rgb: base64 of uint8 [n, 3]} → Points. */
function points(cloud) {
  const raw = bytes(cloud.xyz);
  const grid = new Uint16Array(raw.buffer, raw.byteOffset, raw.byteLength / 2);
  const xyz = new Float32Array(grid.length);
  for (let k = 0; k < grid.length; k++) xyz[k] = cloud.low[k % 3] + cloud.step[k % 3] * grid[k];
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(xyz, 3));
  geometry.setAttribute("color", new BufferAttribute(bytes(cloud.rgb), 3, true));
  return new Points(geometry, new PointsMaterial({ sizeAttenuation: false, vertexColors: true }));
}

/**
 * Two clouds beside each other (one above the other where it is narrow), under one camera.
 *
 * camera: {eye: [3], target: [3], up: [3], fovy: degrees, extent: scene units}
 */
export function create(element, camera) {
  const renderer = new WebGLRenderer({ antialias: true });
  renderer.outputColorSpace = LinearSRGBColorSpace;
  renderer.setPixelRatio(Math.min(2, window.devicePixelRatio));
  renderer.setClearColor(0x46464e);
  renderer.autoClear = false;
  const canvas = renderer.domElement;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  element.append(canvas);

  const eye = new PerspectiveCamera(camera.fovy, 1, camera.extent * 1e-3, camera.extent * 1e3);
  eye.up.fromArray(camera.up);
  const controls = new OrbitControls(eye, canvas);
  const scenes = [new Scene(), new Scene()];
  let width = 1, height = 1, wanted = false, gone = false;

  function reset() {
    eye.position.fromArray(camera.eye);
    controls.target.fromArray(camera.target);
    controls.update();
    draw();
  }

  function paint() {
    wanted = false;
    if (gone) return;
    const stacked = width < STACKED;
    const w = stacked ? width : Math.floor(width / 2), h = stacked ? Math.floor(height / 2) : height;
    eye.aspect = w / h;
    eye.updateProjectionMatrix();
    renderer.setScissorTest(false);
    renderer.clear();
    renderer.setScissorTest(true);
    scenes.forEach((scene, k) => {
      const left = stacked ? 0 : k * (width - w), bottom = stacked ? (1 - k) * (height - h) : 0;
      for (const cloud of scene.children) {
        cloud.material.size = pointSize(cloud.geometry.attributes.position.count, w, h) * renderer.getPixelRatio();
      }
      renderer.setViewport(left, bottom, w, h);
      renderer.setScissor(left, bottom, w, h);
      renderer.render(scene, eye);
    });
  }

  function draw() {
    if (!wanted) requestAnimationFrame(paint);
    wanted = true;
  }

  function measure() {
    width = Math.max(1, element.clientWidth);
    height = Math.max(1, element.clientHeight);
    element.classList.toggle("stacked", width < STACKED);
    renderer.setSize(width, height);
  }
  const sizes = new ResizeObserver(() => {
    measure();
    paint(); // at once: a canvas that was given another size is blank
  });
  sizes.observe(element);
  controls.addEventListener("change", draw);

  const turns = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  canvas.addEventListener("keydown", (event) => {
    const arm = new Vector3().subVectors(eye.position, controls.target);
    if (event.key in turns) {
      const [side, rise] = turns[event.key];
      arm.applyAxisAngle(eye.up, (side * Math.PI) / 36);
      const tilt = new Vector3().crossVectors(eye.up, arm).normalize();
      const tilted = arm.clone().applyAxisAngle(tilt, (-rise * Math.PI) / 36);
      if (Math.abs(tilted.angleTo(eye.up) - Math.PI / 2) < 1.5) arm.copy(tilted);
    } else if (event.key === "+" || event.key === "-") {
      arm.multiplyScalar(event.key === "+" ? 0.9 : 1 / 0.9);
    } else if (event.key === "0") {
      return reset();
    } else {
      return;
    }
    event.preventDefault();
    eye.position.addVectors(controls.target, arm);
    controls.update();
    draw();
  });

  function empty(scene) {
    for (const child of [...scene.children]) {
      scene.remove(child);
      child.geometry.dispose();
      child.material.dispose();
    }
  }

  reset();
  return {
    reset,
    canvas,
    show(clouds) {
      scenes.forEach((scene, k) => {
        empty(scene);
        if (clouds[k]) scene.add(points(clouds[k]));
      });
      draw();
    },
    /** What is seen now, as a data URI of a PNG. */
    snapshot() {
      measure();
      paint();
      return canvas.toDataURL();
    },
    dispose() {
      gone = true;
      sizes.disconnect();
      controls.dispose();
      scenes.forEach(empty);
      renderer.dispose();
      renderer.forceContextLoss();
      canvas.remove();
    },
  };
}
