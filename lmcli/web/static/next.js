// What each model expects next: bars, and the text coloured by surprise.

import { byId, el, label, latest, paint, percent, post, shown } from "./dom.js";

const TOP = 8;
const READ = 200; // tokens of the text that are shown, the last ones
const FULL = 10; // bits at which the colour is full

const printed = (token) =>
  token.unknown ? "a word it never saw" : (token.symbol === " " ? "\u2423" : token.symbol);

function coloured(tokens) {
  const parts = tokens.slice(-READ).map((token) => {
    const text = token.text === "\n" ? "\u21b5\n" : token.text;
    const part = el("span", { class: "token", title: `${token.bits.toFixed(1)} bits` }, text);
    part.style.setProperty("--level", Math.min(1, token.bits / FULL).toFixed(3));
    return part;
  });
  return tokens.length > READ ? ["... ", ...parts] : parts;
}

function card(model, append) {
  const read = el("p", { class: "read" });
  const bars = el("ol", { class: "bars", "aria-label": `What ${model.id} expects next` });
  const note = el("p", { class: "hint" });
  const node = paint(el("article", { class: "card", "data-model": model.id }), model);
  node.append(label(model), read, bars, note);
  const rows = Array.from({ length: TOP }, () => {
    const word = el("span", { class: "word" });
    const bar = el("span", { class: "bar" });
    const value = el("span", { class: "value" });
    const track = el("span", { class: "track" }, bar);
    const button = el("button", { type: "button" }, word, value, track);
    const row = { button, word, bar, value, item: el("li", {}, button), token: null };
    button.addEventListener("click", () => append(row.token.text));
    bars.append(row.item);
    return row;
  });
  const show = (found) => {
    read.replaceChildren(...coloured(found.tokens));
    rows.forEach((row, place) => {
      const token = found.next[place];
      row.item.hidden = token === undefined;
      if (row.item.hidden) return;
      row.token = token;
      row.word.textContent = printed(token);
      row.value.textContent = percent(token.probability);
      row.bar.style.width = `${100 * token.probability}%`;
      row.button.disabled = token.text === "";
      row.item.dataset.probability = token.probability;
    });
    const unknown = found.unknown.length ? ` Never seen: ${found.unknown.slice(0, 5).join(", ")}.` : "";
    note.textContent = `Uncertain by ${found.entropy_bits.toFixed(2)} bits.${unknown}`;
  };
  return { node, show };
}

export function next(state) {
  const prompt = byId("prompt");
  let cards = new Map();
  let keys = []; // when the keys were pressed that no answer has shown yet

  function append(text) {
    prompt.value += text;
    prompt.dispatchEvent(new Event("input", { bubbles: true }));
    prompt.focus();
  }

  const ask = latest(() =>
    shown(byId("next-status"), async () => {
      const models = state.names();
      if (!models.length) return;
      const body = { models, prompt: prompt.value, top: TOP, score: true, typing: true };
      const pressed = keys;
      keys = [];
      const found = await post("/v1/next", body);
      for (const one of found.models) cards.get(one.model)?.show(one);
      byId("next").dataset.shown = body.prompt;
      requestAnimationFrame((now) => {
        const end = Math.max(now, performance.now());
        for (const start of pressed) performance.measure("keystroke", { start, end });
      });
    }),
  );

  return {
    models: () => {
      cards = new Map(state.models().map((model) => [model.id, card(model, append)]));
      byId("next-cards").replaceChildren(...[...cards.values()].map((one) => one.node));
      ask();
    },
    text: (since) => {
      keys.push(since);
      ask();
    },
  };
}
