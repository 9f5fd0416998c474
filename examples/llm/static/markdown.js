// Shows the little of Markdown that models write, as it comes: only what has changed is made anew, so that what somebody
// has selected stays so; a mark that is still open reaches to the end. What is shown is text (textContent), never HTML.

const FENCE = /^```\s*(\S*)/;
const HEADING = /^(#{1,6}) +(.*)/;
const ITEM = /^ *(?:[-*]|(\d+)[.)]) +(.*)/;
const INLINE = /`([^`\n]+)(?:`|$)|\*\*(.+?)(?:\*\*|$)|\*([^*\s][^*\n]*?)\*/;

const create = (tag, ...children) => {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
};

/** Show a text in an element, in which nothing else is. */
export function show(element, text) {
  const before = (element.blocks ??= []);
  const blocks = blocksOf(text);
  let same = 0;
  while (same < before.length && before[same] === blocks[same]?.source) same++;
  while (element.childElementCount > same) element.lastElementChild.remove();
  for (const block of blocks.slice(same)) element.append(nodeOf(block));
  element.blocks = blocks.map(({ source }) => source);
}

/** The blocks of a text, each with its source; the last one may be cut off anywhere. */
function blocksOf(text) {
  const blocks = [];
  let block = null;
  for (const line of text.split("\n")) {
    if (block?.kind === "code" && !block.isOver) {
      if (FENCE.test(line)) block.isOver = true;
      else block.lines.push(line);
      block.source += `\n${line}`;
      continue;
    }
    const kind = kindOf(line);
    if (!kind) block = null;
    else if (block?.kind === kind && kind !== "heading" && kind !== "code") {
      block.lines.push(line);
      block.source += `\n${line}`;
    } else blocks.push((block = { kind, lines: kind === "code" ? [] : [line], source: line }));
  }
  return blocks;
}

function kindOf(line) {
  if (FENCE.test(line)) return "code";
  if (HEADING.test(line)) return "heading";
  const item = ITEM.exec(line);
  if (item) return item[1] ? "ol" : "ul";
  return line.trim() ? "p" : "";
}

function nodeOf({ kind, lines }) {
  if (kind === "code") {
    const code = create("pre", create("code", lines.join("\n")));
    code.tabIndex = 0; // it may be too wide, and is scrolled by the keyboard, too
    return code;
  }
  if (kind === "heading") {
    const [, marks, text] = HEADING.exec(lines[0]);
    return create(`h${Math.min(6, marks.length + 1)}`, ...inline(text));
  }
  if (kind === "p") return create("p", ...inline(lines.join("\n")));
  const list = create(kind, ...lines.map((line) => create("li", ...inline(ITEM.exec(line)[2]))));
  if (kind === "ol") list.start = Number(ITEM.exec(lines[0])[1]);
  return list;
}

function inline(text) {
  const found = INLINE.exec(text);
  if (!found) return text ? [text] : [];
  const [all, code, strong, emphasis] = found;
  const node = code ? create("code", code) : create(strong ? "strong" : "em", ...inline(strong ?? emphasis));
  return [text.slice(0, found.index), node, ...inline(text.slice(found.index + all.length))];
}
