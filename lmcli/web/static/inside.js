// One unit of a gate along the text.

import { byId, el, latest, paint, post, shown } from "./dom.js";

const PAUSE = 150; // milliseconds without a key before the text is read

export function inside(state) {
  const [choice, gate, unit] = ["inside-model", "gate", "unit"].map(byId);
  const section = byId("inside");
  let visible = false;
  let timer = null;

  function column(token, low, high) {
    const span = high - low;
    const bar = el("span", { class: "level" });
    bar.style.bottom = `${(100 * (Math.min(0, token.value) - low)) / span}%`;
    bar.style.height = `${(100 * Math.abs(token.value)) / span}%`;
    const zero = el("span", { class: "zero" });
    zero.style.bottom = `${(-100 * low) / span}%`;
    const title = `${token.value.toFixed(3)}; mean of all units ${token.mean.toFixed(3)}`;
    const text = token.text.trim() === "" ? (token.text.includes("\n") ? "\u21b5" : "\u2423") : token.text;
    return el("span", { class: "column", title }, el("span", { class: "shaft" }, zero, bar), text);
  }

  function suggested(found) {
    return found.most_varying.map((number) =>
      el("button", { type: "button", on: { click: () => pick(number) } }, String(number)),
    );
  }

  function pick(number) {
    unit.value = number;
    ask();
  }

  const ask = latest(() =>
    shown(byId("inside-status"), async () => {
      const model = state.models().find((one) => one.id === choice.value);
      const text = state.text().trimEnd().slice(0, 2000);
      if (!visible || !model || !text) return byId("strip").replaceChildren();
      const body = { model: model.id, text };
      if (gate.value) body.gate = gate.value;
      if (unit.value !== "") body.unit = Number(unit.value);
      try {
        const found = await post("/v1/inspect", body);
        if (!found.gates.length) throw new Error(`${model.id} has neither gates nor units to show`);
        const names = found.gates.map((one) => el("option", { value: one.name }, one.name));
        gate.replaceChildren(...names);
        gate.value = found.gate;
        unit.value = found.unit;
        unit.max = found.gates.find((one) => one.name === found.gate).units - 1;
        byId("varying").replaceChildren("vary most: ", ...suggested(found));
        const columns = found.tokens.map((token) => column(token, found.low, found.high));
        paint(byId("strip"), model).replaceChildren(...columns);
        section.dataset.gate = found.gate;
      } catch (error) {
        byId("strip").replaceChildren();
        byId("varying").replaceChildren();
        throw error;
      }
    }),
  );

  choice.addEventListener("change", () => {
    gate.replaceChildren();
    unit.value = "";
    ask();
  });
  gate.addEventListener("change", () => {
    unit.value = "";
    ask();
  });
  unit.addEventListener("change", () => ask());
  new IntersectionObserver((entries) => {
    visible = entries.some((entry) => entry.isIntersecting);
    if (visible) ask();
  }).observe(section);

  return {
    models: () => {
      const before = choice.value;
      const options = state.models().map((one) => el("option", { value: one.id }, one.id));
      choice.replaceChildren(...options);
      const gated = state.models().find((one) => ["lstm", "gru"].includes(one.arch));
      choice.value = state.names().includes(before) ? before : (gated?.id ?? state.names()[0] ?? "");
      ask();
    },
    text: () => {
      clearTimeout(timer);
      timer = setTimeout(() => ask(), PAUSE);
    },
  };
}
