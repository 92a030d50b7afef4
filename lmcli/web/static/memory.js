// The slider: filler between clue and blank, and what becomes of the right word.

import { byId, el, label, latest, percent, post, shown } from "./dom.js";
import { chart } from "./chart.js";

const GAPS = [0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 400];
const STEP = 350; // milliseconds between two gaps when it plays

export function memory(state) {
  const [sentence, right, candidates] = ["sentence", "right", "candidates"].map(byId);
  const [cue, filler, gap, play] = ["cue", "filler", "gap", "play"].map(byId);
  const { question, fillers, example } = state.page;
  const pairs = question ? question.pairs : [];
  let answers = new Map(); // by gap: the rows of all models, for the sentence as it is
  let playing = null;

  gap.max = fillers.length ? GAPS.length - 1 : 0;
  gap.disabled = play.disabled = !fillers.length;
  filler.replaceChildren(...fillers.map((name) => el("option", { value: name }, name)));
  byId("filler-label").hidden = fillers.length < 2;
  cue.replaceChildren(...pairs.map((pair) => el("option", { value: pair.cue }, pair.cue)));
  byId("cue-label").hidden = !question;
  if (question) {
    sentence.value = question.text;
    right.value = question.answer;
    candidates.value = pairs.map((pair) => pair.answer).join(", ");
    cue.value = question.cue;
  } else {
    sentence.placeholder = example;
  }

  const words = () => candidates.value.split(",").map((word) => word.trim()).filter(Boolean);
  const here = () => GAPS[Number(gap.value)];
  const usesFiller = () => fillers.length > 0 && sentence.value.includes("...");

  function body(models) {
    const asked = { models, text: sentence.value };
    if (words().length) asked.candidates = words();
    if (usesFiller()) Object.assign(asked, { gaps: [here()], filler: filler.value });
    return asked;
  }

  function row(model) {
    const found = answers.get(here())?.get(model.id);
    const said = found?.candidates[0];
    const wanted = found?.candidates.find((one) => one.text === right.value.trim());
    const cell = el("td", { class: "value" }, wanted ? percent(wanted.probability) : "-");
    if (wanted) cell.dataset.probability = wanted.probability;
    const says = said ? `${said.text} (${percent(said.probability)})` : "-";
    const name = label(model, "span");
    return el("tr", { "data-model": model.id }, el("th", { scope: "row" }, name), cell, el("td", {}, says));
  }

  function draw() {
    byId("gap-words").textContent = usesFiller() ? here() : 0;
    gap.setAttribute("aria-valuetext", `${here()} words`);
    byId("answers").tBodies[0].replaceChildren(...state.models().map(row));
    const lines = state.models().map((model) => ({
      model,
      points: GAPS.filter((one) => answers.get(one)?.has(model.id)).flatMap((one) => {
        const found = answers.get(one).get(model.id).candidates;
        const wanted = found.find((word) => word.text === right.value.trim());
        return wanted ? [{ gap: one, p: wanted.probability }] : [];
      }),
    }));
    const chance = words().length ? 1 / words().length : null;
    byId("chart").replaceChildren(chart(lines, GAPS, here(), chance, right.value.trim()));
  }

  const ask = latest(() =>
    shown(byId("memory-status"), async () => {
      if (!sentence.value.trim()) return;
      const place = here();
      const missing = state.names().filter((name) => !answers.get(place)?.has(name));
      if (missing.length) {
        const into = answers;
        const found = await post("/v1/cloze", body(missing));
        if (!into.has(place)) into.set(place, new Map());
        for (const one of found.rows) into.get(place).set(one.model, one);
        into.get(place).about = found;
        if (into !== answers) return; // the sentence has changed since
      }
      const about = answers.get(place)?.about;
      byId("filled").textContent = about?.example?.text ?? sentence.value.replace("... ", "");
      byId("command").textContent = about?.command ?? "";
      byId("memory").dataset.gap = place;
      draw();
      const { warnings } = about ?? { warnings: [] };
      if (warnings.length) throw new Error(warnings.slice(0, 3).join("; "));
    }),
  );

  function moved() {
    draw();
    ask();
  }

  function changed() {
    answers = new Map();
    delete byId("memory").dataset.gap;
    moved();
  }

  function swap() {
    const before = pairs.find((pair) => pair.answer === right.value.trim());
    const after = pairs.find((pair) => pair.cue === cue.value);
    if (before) sentence.value = sentence.value.replace(before.cue, after.cue);
    right.value = after.answer;
    changed();
  }

  function stop() {
    clearInterval(playing);
    playing = null;
    play.textContent = "Play";
  }

  play.addEventListener("click", () => {
    if (playing !== null) return stop();
    gap.value = 0;
    moved();
    play.textContent = "Pause";
    playing = setInterval(() => {
      if (!answers.has(here())) return; // the models are not there yet
      if (Number(gap.value) >= Number(gap.max)) return stop();
      gap.value = Number(gap.value) + 1;
      moved();
    }, STEP);
  });
  gap.addEventListener("input", moved);
  cue.addEventListener("change", swap);
  for (const field of [sentence, candidates, filler]) field.addEventListener("change", changed);
  right.addEventListener("input", draw);

  return { models: moved, text: () => {} };
}
