// Makes and reconciles DOM nodes. The only way by which data reaches the page: as text and as attributes, never as
// markup, because names, serials and disk models come from machines that anybody may have plugged in. Touches nothing.

const SVG = "http://www.w3.org/2000/svg";

// A node with properties and children. A property `on` has listeners, `class` and `data` what they say, `style` CSS
// properties set one by one (a style attribute would be refused by the page's own security policy); others are
// attributes, left out when null or false. Children are nodes, texts, lists of these, or null.
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

// The same for SVG.
export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "style") {
      for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    } else if (name === "data") {
      Object.assign(node.dataset, value);
    } else if (name === "value" || name === "checked" || name === "indeterminate") {
      node[name] = value;
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(node, child);
    else if (child !== null && child !== undefined && child !== false) {
      node.append(child instanceof Node ? child : visible(String(child)));
    }
  }
}

// Control and direction characters, shown as the symbols that stand for them: a name cannot hide or reorder what is
// beside it.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

// `text` with every invisible character made visible.
export function visible(text) {
  return text.replace(HIDDEN, (one) => {
    const code = one.charCodeAt(0);
    return code < 32 ? String.fromCharCode(0x2400 + code) : "\ufffd";
  });
}

// Sets a node's text, if it is another one: untouched text stays selected, and readers do not say it again.
export function text(node, value) {
  const shown = visible(String(value ?? ""));
  if (node.textContent !== shown) node.textContent = shown;
  return node;
}

// Sets or removes an attribute, if it is another one.
export function attribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
  return node;
}

// Shows or hides a node.
export function show(node, is) {
  if (node.hidden === is) node.hidden = !is;
  return node;
}

// Replaces a node's children.
export function replace(node, ...children) {
  node.replaceChildren();
  append(node, children);
  return node;
}

const kept = new WeakMap();

// Makes the children of `parent` those of `items`: a node that is there for an item's key is updated and moved, others
// are made or removed. So focus, selection and scrolling survive an update. `make(item)` returns a node, and
// `update(node, item)` fills it; both may keep what they need on `node.parts`.
export function keyed(parent, items, key, make, update) {
  const before = kept.get(parent) ?? new Map();
  const after = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    if (after.has(name)) continue;
    const node = before.get(name) ?? make(item);
    update?.(node, item);
    after.set(name, node);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  for (const [name, node] of before) if (!after.has(name)) node.remove();
  kept.set(parent, after);
}
