// The page: which models are shown, and the parts that show them.

import { byId, el, paint } from "./dom.js";
import { inside } from "./inside.js";
import { memory } from "./memory.js";
import { next } from "./next.js";
import { write } from "./write.js";

const response = await fetch("/page.json");
const page = await response.json();
const chosen = new Set(page.data.filter((model) => model.shown).map((model) => model.id));
const state = {
  page,
  models: () => page.data.filter((model) => chosen.has(model.id)),
  names: () => state.models().map((model) => model.id),
  text: () => byId("prompt").value,
};

byId("prompt").value = page.prompt;
byId("figures").hidden = !page.has_comparison;
const parts = [next, memory, inside, write].map((part) => part(state));

function toggle(model, on) {
  if (on) chosen.add(model.id);
  else chosen.delete(model.id);
  for (const part of parts) part.models();
}

function choice(model) {
  const box = el("input", {
    type: "checkbox",
    on: { change: (event) => toggle(model, event.target.checked) },
  });
  box.checked = chosen.has(model.id);
  const size = model.parameters === null ? "" : `${model.parameters.toLocaleString("en")} parameters, `;
  const title = `${model.arch}, ${size}${model.tokenizer} tokens, trained on ${model.text}`;
  return el("label", { class: "choice", title }, box, paint(el("span", { class: "swatch" }), model), model.id);
}

byId("model-list").replaceChildren(...page.data.map(choice));
byId("prompt").addEventListener("input", (event) => {
  for (const part of parts) part.text(event.timeStamp);
});
for (const part of parts) part.models();
document.body.dataset.ready = "true";
