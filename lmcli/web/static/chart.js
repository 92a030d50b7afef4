// Lines of probability over the gap, as SVG.

import { paint, svg } from "./dom.js";

const WIDTH = 640;
const HEIGHT = 360;
const LEFT = 56;
const BOTTOM = 52;
const TOP = 14;
const RIGHT = 20;
const LABELS = [0, 1, 3, 10, 30, 100, 400];
const DASHES = [null, "10 5", "3 4", "12 4 3 4"];

export function chart(lines, gaps, here, chance, word) {
  const last = Math.log1p(gaps[gaps.length - 1]);
  const x = (gap) => LEFT + ((WIDTH - LEFT - RIGHT) * Math.log1p(gap)) / last;
  const y = (p) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - p);
  const name = `Probability of ${word || "the right word"} for each model, by words in the gap`;
  const figure = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": name });
  for (const p of [0, 0.25, 0.5, 0.75, 1]) {
    const at = { x1: LEFT, x2: WIDTH - RIGHT, y1: y(p), y2: y(p) };
    figure.append(svg("line", { class: "rule", ...at }));
    figure.append(svg("text", { class: "tick end", x: LEFT - 8, y: y(p) + 6 }, `${100 * p} %`));
  }
  for (const gap of LABELS) {
    figure.append(svg("text", { class: "tick middle", x: x(gap), y: HEIGHT - 28 }, String(gap)));
  }
  const middle = (LEFT + WIDTH - RIGHT) / 2;
  figure.append(svg("text", { class: "tick middle", x: middle, y: HEIGHT - 6 }, "words between clue and blank"));
  if (chance !== null) {
    const at = { x1: LEFT, x2: WIDTH - RIGHT, y1: y(chance), y2: y(chance) };
    figure.append(svg("line", { class: "chance", ...at }));
    const place = { x: WIDTH - RIGHT, y: y(chance) - 5 };
    figure.append(svg("text", { class: "tick end small", ...place }, "guessing"));
  }
  figure.append(svg("line", { class: "here", x1: x(here), x2: x(here), y1: TOP, y2: HEIGHT - BOTTOM }));
  const seen = {};
  for (const { model, points } of lines) {
    const dash = DASHES[(seen[model.arch] = (seen[model.arch] ?? -1) + 1) % DASHES.length];
    const path = points.map(({ gap, p }) => `${x(gap).toFixed(1)},${y(p).toFixed(1)}`).join(" ");
    const group = paint(svg("g", { class: "line", "data-model": model.id }), model);
    group.append(svg("polyline", { points: path, "stroke-dasharray": dash }));
    for (const { gap, p } of points) {
      group.append(svg("circle", { cx: x(gap), cy: y(p), r: gap === here ? 7 : 3.5 }));
    }
    figure.append(group);
  }
  return figure;
}
