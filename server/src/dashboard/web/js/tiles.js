// One tile for each machine of a site, on a canvas: ten thousand stay cheap. The words beside it and the list behind it
// say the same to who cannot see it. Touches the page.

import { attribute, h, visible } from "./dom.js";
import { byName, percent } from "./format.js";
import { far } from "./summary.js";

const SIZE = 12;
const GAP = 3;

// Colours of the style sheet, by their names, as they are in the theme that is drawn.
export function colours(names) {
  const probe = document.body.appendChild(h("i", { hidden: true }));
  const all = names.map((name) => {
    probe.style.setProperty("color", `var(--${name})`);
    return [name, getComputedStyle(probe).color];
  });
  probe.remove();
  return Object.fromEntries(all);
}

// Sets a canvas to this size, if it has another one; what is drawn on, in the page's pixels.
export function sized(canvas, width, height) {
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  canvas.style.setProperty("width", `${width}px`);
  canvas.style.setProperty("height", `${height}px`);
  const to = canvas.getContext("2d");
  to.setTransform(scale, 0, 0, scale, 0, 0);
  to.clearRect(0, 0, width, height);
  return to;
}

const NAMES = ["discovered", "inspected", "approved", "deploying", "deployed", "failed", "rejected", "retired", "track", "held"];

// A canvas of tiles; `set(machines)` draws them, in the order of their names.
export function tiles() {
  const canvas = h("canvas", { role: "img" });
  let shown = [];
  let across = 1;
  const find = (event) => {
    const [x, y] = [Math.floor(event.offsetX / (SIZE + GAP)), Math.floor(event.offsetY / (SIZE + GAP))];
    return x < across ? shown[y * across + x] : undefined;
  };
  canvas.addEventListener("mousemove", (event) => {
    const machine = find(event);
    canvas.title = machine ? visible(`${machine.name}: ${machine.state}${machine.job?.step ? `, ${machine.job.step} ${percent(machine.job.done, machine.job.total)} %` : ""}`) : "";
    canvas.classList.toggle("over", Boolean(machine));
  });
  canvas.addEventListener("click", (event) => {
    const machine = find(event);
    if (machine) location.hash = `#/machines/${machine.id}`;
  });
  canvas.set = (machines) => {
    shown = [...machines].sort((one, other) => byName(one.name, other.name));
    attribute(canvas, "aria-label", `A tile for each of ${machines.length} machines, coloured by state`);
    const width = canvas.parentElement?.clientWidth - 28 || 300;
    across = Math.max(1, Math.floor((width + GAP) / (SIZE + GAP)));
    draw(canvas, shown, across);
  };
  return canvas;
}

function draw(canvas, machines, across) {
  const to = sized(canvas, Math.min(across, machines.length) * (SIZE + GAP), Math.ceil(machines.length / across) * (SIZE + GAP));
  const colour = colours(NAMES);
  machines.forEach((machine, at) => {
    const x = (at % across) * (SIZE + GAP);
    const y = Math.floor(at / across) * (SIZE + GAP);
    tile(to, x, y, machine, colour);
  });
}

function tile(to, x, y, machine, colour) {
  const job = machine.job;
  const runs = machine.state === "deploying";
  to.fillStyle = runs ? colour.track : (colour[machine.state] ?? colour.track);
  to.fillRect(x, y, SIZE, SIZE);
  if (runs) {
    const part = Math.max(0.08, job ? far(job) : 0);
    to.fillStyle = colour.deploying;
    to.fillRect(x, y + SIZE * (1 - part), SIZE, SIZE * part);
  }
  // Shapes besides colours: a cross for what failed, an open square for what nobody has looked at.
  if (machine.state === "failed") {
    to.strokeStyle = "#fff";
    to.lineWidth = 1.6;
    to.beginPath();
    to.moveTo(x + 3, y + 3);
    to.lineTo(x + SIZE - 3, y + SIZE - 3);
    to.moveTo(x + SIZE - 3, y + 3);
    to.lineTo(x + 3, y + SIZE - 3);
    to.stroke();
  } else if (machine.state === "discovered") {
    to.clearRect(x + 2, y + 2, SIZE - 4, SIZE - 4);
  }
  if (machine.held) {
    to.fillStyle = colour.held;
    to.fillRect(x, y + SIZE - 3, SIZE, 3);
  }
}
