// Elements and requests. Text goes into the page as text only, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
    } else if (value !== null && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children);
  return node;
}

export const el = (tag, attributes = {}, ...children) =>
  filled(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

export const byId = (id) => document.getElementById(id);

// The colour of an architecture, the same as in all figures.
export function paint(node, model) {
  const name = /^[a-z0-9]+$/.test(model.arch) ? model.arch : "neutral";
  node.style.setProperty("--color", `var(--c-${name}, var(--neutral))`);
  return node;
}

export const label = (model, tag = "h3") =>
  el(tag, { class: "model" }, paint(el("span", { class: "swatch" }), model), model.id);

export const percent = (p) => (p >= 0.9995 ? "100 %" : `${(100 * p).toFixed(1)} %`);

export async function request(path, body, signal) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (response.ok) return response;
  const { error } = await response.json();
  throw new Error(error.hint ? `${error.message} (${error.hint})` : error.message);
}

export const post = async (path, body) => (await request(path, body)).json();

// Calls `work`; calls that come while it runs become one, when it has ended.
export function latest(work) {
  let running = false;
  let waiting = false;
  return async () => {
    waiting = true;
    if (running) return;
    running = true;
    while (waiting) {
      waiting = false;
      await work();
    }
    running = false;
  };
}

// Shows why something could not be done; a later success takes it away.
export async function shown(status, work) {
  try {
    await work();
    status.textContent = "";
  } catch (error) {
    if (error.name !== "AbortError") status.textContent = error.message;
  }
}
