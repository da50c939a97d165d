// Shows a model's answer: text, `code`, **bold** and fenced code. Only text nodes and elements made
// here reach the page, so nothing in an answer can become markup.
const FENCE = /^```[^\n`]*\n([\s\S]*?)(?:^```[ \t]*(?:\n|$)|(?![\s\S]))/gm;
const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*/g;

export function showAnswer(element, text) {
  const parts = [];
  eachPart(text, FENCE, (prose) => prose.trim() && parts.push(paragraph(prose.trim())), (match) => {
    const block = document.createElement("pre");
    block.tabIndex = 0; // wide code scrolls, also with the keyboard
    block.append(make("code", match[1].replace(/\n$/, "")));
    parts.push(block);
  });
  element.replaceChildren(...parts);
}

function paragraph(text) {
  const element = document.createElement("p");
  eachPart(text, INLINE, (plain) => element.append(plain), ([, code, bold]) => {
    element.append(code === undefined ? make("strong", bold) : make("code", code));
  });
  return element;
}

function eachPart(text, pattern, onText, onMatch) {
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > end) onText(text.slice(end, match.index));
    onMatch(match);
    end = match.index + match[0].length;
  }
  if (end < text.length) onText(text.slice(end));
}

export function make(name, text, className) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}
