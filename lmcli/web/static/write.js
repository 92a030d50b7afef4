// Texts as they are made, side by side.

import { byId, el, label, paint, request, shown } from "./dom.js";

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const whole = held.split("\n\n");
    held = whole.pop();
    for (const event of whole) {
      const data = event.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

export function write(state) {
  const [start, stop, status] = ["start", "stop", "write-status"].map(byId);
  let control = null;
  let pages = new Map();

  function lay() {
    pages = new Map(state.models().map((model) => [model.id, el("span", { class: "made" })]));
    const cards = state.models().map((model) => {
      const text = el("p", { class: "page", tabindex: "0", "aria-label": `Text of ${model.id}` }, el("span", { class: "given" }, state.text().trimEnd()));
      text.append(pages.get(model.id));
      return paint(el("article", { class: "card", "data-model": model.id }, label(model), text), model);
    });
    byId("write-cards").replaceChildren(...cards);
  }

  async function run() {
    lay();
    control = new AbortController();
    start.disabled = true;
    stop.disabled = false;
    const seed = byId("seed").value;
    const body = {
      models: state.names(),
      prompt: state.text().trimEnd(), // a blank at the end would be a token of its own
      temperature: Number(byId("temperature").value),
      length: Number(byId("length").value),
      ...(seed === "" ? {} : { seed: Number(seed) }),
    };
    await shown(status, async () => {
      const response = await request("/v1/sample", body, control.signal);
      for await (const event of events(response)) {
        if (event.error) throw new Error(event.error.message);
        pages.get(event.model)?.append(event.text);
      }
    });
    start.disabled = false;
    stop.disabled = true;
  }

  start.addEventListener("click", run);
  stop.addEventListener("click", () => control?.abort());
  return { models: () => {}, text: () => {} };
}
