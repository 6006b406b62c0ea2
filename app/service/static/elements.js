// Making what is shown. What comes from outside is only ever set as text, or is an address of our own.
export const byId = (id) => document.getElementById(id);

export function make(tag, { text, kind, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// A name in whatever direction it is written, apart from what stands around it.
export const named = (text, kind) => make("bdi", { text, kind });

// A photo that keeps its shape while it loads; boxes are laid over it.
export function framed(url, { width, height, alt }) {
  const frame = make("div", { kind: "frame" }, make("img", { src: url, alt }));
  if (width && height) setShape(frame, width, height);
  return frame;
}

export const setShape = (frame, width, height) => frame.style.setProperty("--ratio", String(width / height));

export function place(element, [x1, y1, x2, y2], { width, height }) {
  const share = (value, whole) => `${Math.min(100, Math.max(0, (100 * value) / whole))}%`;
  element.style.left = share(x1, width);
  element.style.top = share(y1, height);
  element.style.width = share(x2 - x1, width);
  element.style.height = share(y2 - y1, height);
  return element;
}

export const many = (count, one, more) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;
