// Elements, and a subset of Markdown as elements. Texts become text nodes, never markup.

export const of = (id) => document.getElementById(id);

// An element with attributes, properties that begin with "on", and children.
export function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "polyline", "polygon", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

export const number = (value, digits = 0) =>
  Number(value).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

// Pieces of text with code, bold, italic and links.
const SPANS = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\*([^*\s](?:[^*\n]*[^*\s])?)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/g;
function spans(text) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(SPANS)) {
    const [all, code, bold, italic, words, address] = found;
    nodes.push(text.slice(from, found.index));
    from = found.index + all.length;
    if (code !== undefined) nodes.push(make("code", {}, code));
    else if (bold !== undefined) nodes.push(make("strong", {}, bold));
    else if (italic !== undefined) nodes.push(make("em", {}, italic));
    else nodes.push(make("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, words));
  }
  return [...nodes, text.slice(from)].filter((node) => node !== "");
}

// Blocks of text: [kind, lines, extra].
function blocks(text) {
  const found = [];
  let last = null;
  const begin = (kind, line, extra) => { last = [kind, [line], extra]; found.push(last); };
  for (const line of text.split("\n")) {
    if (last?.[0] === "pre") {
      if (/^\s*```\s*$/.test(line)) last = null; else last[1].push(line);
      continue;
    }
    const fence = /^\s*```\s*([\w+-]*)/.exec(line);
    const heading = /^(#{1,4})\s+(.*)/.exec(line);
    const item = /^\s*(?:([-*+])|(\d{1,9})[.)])\s+(.*)/.exec(line);
    const quote = /^>\s?(.*)/.exec(line);
    if (fence) { last = ["pre", [], fence[1]]; found.push(last); }
    else if (!line.trim()) last = null;
    else if (heading) { begin(`h${Math.min(heading[1].length + 2, 5)}`, heading[2]); last = null; }
    else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) { begin("hr", ""); last = null; }
    else if (item) {
      const kind = item[1] ? "ul" : "ol";
      if (last?.[0] === kind) last[1].push(item[3]); else begin(kind, item[3], item[2]);
    } else if (quote) {
      if (last?.[0] === "blockquote") last[1].push(quote[1]); else begin("blockquote", quote[1]);
    } else if (last && last[0] !== "blockquote") {
      if (last[0] === "p") last[1].push(line); else last[1][last[1].length - 1] += `\n${line.trim()}`;
    } else begin("p", line);
  }
  return found;
}

function block([kind, lines, extra]) {
  if (kind === "pre") return make("pre", { tabindex: 0 }, make("code", extra ? { "data-language": extra } : {}, lines.join("\n")));
  if (kind === "ul" || kind === "ol")
    return make(kind, kind === "ol" && extra !== "1" ? { start: extra } : {}, ...lines.map((line) => make("li", {}, ...spans(line))));
  const nodes = lines.flatMap((line, index) => (index ? [make("br"), ...spans(line)] : spans(line)));
  return make(kind, {}, ...nodes);
}

// Shows a text that grows: blocks that are as before stay as they are.
export function show(element, text) {
  const before = element.shown ?? [];
  const now = blocks(text);
  now.forEach((one, index) => {
    const key = JSON.stringify(one);
    if (before[index] === key) return;
    before[index] = key;
    const node = block(one);
    if (element.children[index]) element.children[index].replaceWith(node); else element.append(node);
  });
  while (element.children.length > now.length) element.lastChild.remove();
  before.length = now.length;
  element.shown = before;
}
